"""Makes typed Parquet objects and their slots, as the daemon writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

SESSION = "0199d1f0-7c00-7000-8000-000000000001"

COLUMNS = {
    "trades": "session varchar, frame bigint, idx integer, seq bigint, record_offset bigint, source varchar, "
    "symbol varchar, price decimal(18,8), size decimal(18,8), event_time timestamptz, received_at timestamptz, "
    "conditions varchar, time_suspect boolean, price_update boolean, frame_repeat boolean",
    "gaps": "session varchar, frame bigint, idx integer, seq bigint, record_offset bigint, received_at timestamptz, "
    "kind varchar, shard varchar, symbols varchar, previous_session varchar, reason varchar, "
    "last_received_at timestamptz, first_received_at timestamptz, last_frame bigint, frames bigint, trades bigint, "
    "quarantined bigint, gaps bigint",
    "quarantine": "session varchar, frame bigint, idx integer, seq bigint, record_offset bigint, "
    "received_at timestamptz, reason varchar, detail varchar, raw varchar, raw_base64 boolean",
}

Slot = dict[str, Any]


@dataclass
class Bronze:
    """A folder of typed objects. Rows wait in one table a stream until slots are cut from it."""

    folder: Path
    connection: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.connection.execute("set TimeZone = 'UTC'")
        for stream, columns in COLUMNS.items():
            self.connection.execute(f"create table {stream} ({columns})")

    def add_tape(self, tape: Path, session: str = SESSION) -> int:
        """The trades of a tape, each received 20 ms after it happened. Returns how many there are now."""
        self.connection.execute(
            f"""
            insert into trades
            with frames as (select row_number() over () as frame, json from read_ndjson_objects('{tape}')),
            trades as (
              select frame, unnest(json_extract(json, '$.data[*]')) as t, generate_subscripts(json_extract(json, '$.data[*]'), 1) - 1 as idx
              from frames
            )
            select '{session}', frame, idx, place, place, 'finnhub', t->>'$.s', cast(t->>'$.p' as decimal(18,8)),
                   cast(t->>'$.v' as decimal(18,8)), make_timestamptz(cast(t->>'$.t' as bigint) * 1000),
                   make_timestamptz(cast(t->>'$.t' as bigint) * 1000 + 20000),
                   array_to_string(cast(t->'$.c' as varchar[]), ','), false, cast(t->>'$.v' as decimal(18,8)) = 0, false
            from (select *, row_number() over (order by frame, idx) - 1 as place from trades)
            """
        )
        return self.count("trades")

    def add(self, stream: str, **values: Any) -> None:
        """One row; a value that is not given takes a plain default."""
        number = self.count(stream)
        row: dict[str, Any] = {
            "session": SESSION, "frame": number + 1, "idx": 0, "seq": number, "record_offset": number,
            "received_at": "2026-11-23 15:00:30+00", "source": "finnhub", "symbol": "AAPL", "price": "100", "size": "10",
            "event_time": "2026-11-23 15:00:00+00", "conditions": None, "time_suspect": False, "price_update": False,
            "frame_repeat": False, "kind": "gap", "shard": "k1", "reason": "test", "detail": "test", "raw": "{}",
            "raw_base64": False,
        }  # fmt: skip
        unknown = values.keys() - {column.split()[0] for column in COLUMNS[stream].split(", ")}
        assert not unknown, unknown
        row |= values
        names = [column.split()[0] for column in COLUMNS[stream].split(", ") if column.split()[0] in row]
        marks = ", ".join("?" * len(names))
        self.connection.execute(f"insert into {stream} ({', '.join(names)}) values ({marks})", [row[name] for name in names])

    def count(self, stream: str) -> int:
        return self.connection.execute(f"select count(*) from {stream}").fetchone()[0]

    def slot(self, stream: str, start: int, end: int, *, rows: str = "", generation: int = 1) -> Slot:
        """The rows `start` to `end`, by their place in the stream (or those that `rows` picks)."""
        where = rows or f"record_offset between {start} and {end}"
        file = self.folder / f"{stream}-p0-g{generation}-{start:09}-{end:09}.parquet"
        (count,) = self.connection.execute(
            f"copy (select * from {stream} where {where} order by record_offset) to '{file}' (format parquet, compression zstd)"
        ).fetchone()
        return {
            "stream": stream, "partition": 0, "generation": generation, "start": start, "end": end, "kind": "data",
            "rows": count, "typed": str(file), "archive_hour": "2026-11-23T20",
        }  # fmt: skip

    def poisoned(self, stream: str, start: int, end: int, *offsets: int) -> Slot:
        """A slot whose typed object lacks some records, as its writer died of them; the raw object has all."""
        named = " or ".join(f"record_offset = {offset}" for offset in offsets)
        slot = self.slot(stream, start, end, rows=f"record_offset between {start} and {end} and not ({named})")
        raw = self.folder / f"{stream}-p0-g1-{start:09}-{end:09}.jsonl.zst"
        (count,) = self.connection.execute(
            f"""
            copy (
              select session, frame, idx as "index", seq, record_offset as "offset", epoch_us(received_at) as received_at,
                '{{"p":"' || record_offset || '"}}' as raw
              from {stream} where record_offset between {start} and {end} order by record_offset
            ) to '{raw}' (format json, compression zstd)
            """
        ).fetchone()
        return slot | {"rows": count, "poison": {"raw": str(raw), "offsets": list(offsets)}}

    def cut(self, stream: str, pieces: int, *, generation: int = 1) -> list[Slot]:
        """All rows of a stream in so many slots, in order."""
        total = self.count(stream)
        bounds = [total * n // pieces for n in range(pieces + 1)]
        return [self.slot(stream, a, b - 1, generation=generation) for a, b in zip(bounds, bounds[1:], strict=False)]
