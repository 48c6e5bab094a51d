"""The tables of schema `bronze`: the slots that the daemon hands over, and the books kept of them."""

from __future__ import annotations

import uuid
from pathlib import PurePosixPath
from typing import Any

import duckdb

from . import failures, positions, unread
from .errors import Refused

#: Columns of the typed objects. The models read through empty tables of these, so a run in which a stream
#: has nothing new, and an object without a later column, look the same.
IDENTITY = "session varchar, frame bigint, idx integer, seq bigint, record_offset bigint, received_at timestamptz"
STREAMS = {
    "trades": "source varchar, symbol varchar, price decimal(18,8), size decimal(18,8), event_time timestamptz, "
    "conditions varchar, time_suspect boolean, price_update boolean, frame_repeat boolean",
    "gaps": "kind varchar, shard varchar, symbols varchar, previous_session varchar, reason varchar, "
    "last_received_at timestamptz, first_received_at timestamptz, last_frame bigint, frames bigint, trades bigint, "
    "quarantined bigint, gaps bigint",
    "quarantine": "reason varchar, detail varchar, raw varchar, raw_base64 boolean",
}

#: What is read of a line of a raw object.
RAW = (
    "{session: 'varchar', frame: 'bigint', \"index\": 'integer', seq: 'bigint', \"offset\": 'bigint', "
    "received_at: 'bigint', raw: 'varchar', raw_base64: 'varchar'}"
)

#: The longest line of a raw object that is read, in bytes: a frame of the default `feed.max_frame_bytes`, escaped, is
#: far shorter.
LONGEST_LINE = 256 << 20

#: The models that take each stream's slots.
MODELS = {"trades": ("stg_trades",), "gaps": ("gaps",), "quarantine": ("quarantine",)}

#: Counts up when the tables below change. A file of another layout is refused.
LAYOUT = 5

TABLES = """
create schema if not exists bronze;
create table if not exists bronze.slots (stream varchar, partition integer, generation bigint, start bigint,
  "end" bigint not null, kind varchar not null, rows bigint not null, typed varchar, typed_rows bigint,
  archive_hour varchar, poison bigint not null, arrival bigint not null, primary key (stream, partition, generation, start));
create sequence if not exists bronze.arrivals;
create table if not exists bronze.poison (stream varchar not null, partition integer not null, generation bigint not null,
  start bigint not null, session varchar, frame bigint, idx integer, seq bigint, record_offset bigint,
  received_at timestamptz, raw varchar, raw_base64 boolean);
create table if not exists bronze.unread (stream varchar not null, partition integer not null, generation bigint not null,
  start bigint not null, error varchar not null, raw varchar, offsets bigint[] not null, tried timestamptz not null);
create table if not exists bronze.ledger (model varchar not null, stream varchar not null, partition integer not null,
  generation bigint not null, start bigint not null, run bigint not null, arrival bigint not null);
create table if not exists bronze.loads (model varchar not null, run bigint not null, arrived bigint not null, kept bigint not null);
create table if not exists bronze.runs (run bigint primary key, began timestamptz not null);
create table if not exists bronze.runs_used (model varchar not null, run bigint not null);
create table if not exists bronze.watermarks (model varchar not null, source varchar not null, watermark timestamptz not null);
create table if not exists bronze.gold_days (model varchar not null, day date not null, run bigint not null);
create table if not exists bronze.verdicts_changed (run bigint not null, symbol varchar not null, source varchar not null,
  bucket_start timestamptz not null);
create table if not exists bronze.warehouse (layout integer not null, id varchar not null);
create table if not exists bronze.rules (fingerprint varchar not null);
"""


def prepare(connection: duckdb.DuckDBPyConnection, db: str) -> str:
    """Makes the tables that are missing. Returns the warehouse's id, which is new with each new file."""
    (known,) = connection.execute(
        "select count(*) > 0 from duckdb_tables() where schema_name = 'bronze' and table_name = 'slots'"
    ).fetchone()
    if known:
        (now,) = connection.execute(
            "select count(*) > 0 from duckdb_tables() where schema_name = 'bronze' and table_name = 'warehouse'"
        ).fetchone()
        layout = connection.execute("select any_value(layout) from bronze.warehouse").fetchone()[0] if now else 1
        if layout != LAYOUT:
            raise Refused(f"{db} has layout {layout}, this program {LAYOUT}: remove the file, all in it is made again from Bronze")
    connection.begin()
    connection.execute(TABLES)
    connection.execute(failures.TABLE)
    connection.execute(positions.TABLES)
    if not known:
        connection.execute("insert into bronze.warehouse values (?, ?)", [LAYOUT, str(uuid.uuid4())])
    for stream, columns in STREAMS.items():
        connection.execute(f"create or replace table bronze.empty_{stream} ({IDENTITY}, {columns})")
    connection.commit()
    return connection.execute("select id from bronze.warehouse").fetchone()[0]


def store(connection: duckdb.DuckDBPyConnection, slots: list[dict[str, Any]]) -> None:
    """Stores all of them or none. A slot that is known already must be the same. One of which an object cannot be
    read is stored too, as [unread]: the daemon goes on behind it, and the models without it."""
    if not slots:
        return
    counts, errors = unread.rows_of([slot["typed"] for slot in slots if slot["typed"]], connection)
    connection.execute("create or replace temp table found as from bronze.poison limit 0")
    for slot in slots:
        if (poison := slot.get("poison")) and slot["typed"] not in errors:
            try:
                find_poison(connection, place(slot), **poison)
            except duckdb.Error as error:
                errors[slot["typed"]] = unread.said(error, poison["raw"])
    connection.begin()
    try:
        for slot in slots:
            store_one(connection, slot, counts.get(slot["typed"]), errors.get(slot["typed"]))
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def place(slot: dict[str, Any]) -> list[Any]:
    return [slot["stream"], slot["partition"], slot["generation"], slot["start"]]


def store_one(connection: duckdb.DuckDBPyConnection, slot: dict[str, Any], typed_rows: int | None, error: str | None) -> None:
    at = place(slot)
    if slot["stream"] not in STREAMS:
        raise Refused(f"slot {at}: unknown stream; known are {', '.join(STREAMS)}")
    poison = slot.get("poison") or {"raw": None, "offsets": []}
    if not error:
        check(at, slot["rows"], slot["typed"], typed_rows, len(poison["offsets"]))
    content = (slot["end"], slot["kind"], slot["rows"], name(slot["typed"]))
    found = connection.execute(
        'select "end", kind, rows, typed from bronze.slots where stream = ? and partition = ? and generation = ? and start = ?', at
    ).fetchone()
    if found is None:
        connection.execute(
            "insert into bronze.slots values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, nextval('bronze.arrivals'))",
            [*at, slot["end"], slot["kind"], slot["rows"], slot["typed"], typed_rows, slot["archive_hour"], len(poison["offsets"])],
        )
        if error:
            unread.add(connection, at, error, **poison)
        else:
            keep_poison(connection, at)
    elif (*found[:3], name(found[3])) != content:
        raise Refused(f"slot {at} is stored with (end, kind, rows, object) {found}, and now said to be {content}: a slot never changes")


def check(at: list[Any], rows: int, typed: str | None, typed_rows: int | None, poisoned: int) -> None:
    if (typed_rows or 0) + poisoned != rows:
        raise Refused(f"slot {at} is said to have {rows} rows, {poisoned} of them in raw alone, but {typed} holds {typed_rows}")


def find_poison(connection: duckdb.DuckDBPyConnection, at: list[Any], raw: str, offsets: list[int]) -> None:
    """Reads the records that typed lacks from the raw object, into a table `found`: they are few, and nothing else
    reads raw. Not in the transaction that keeps them, which an object that cannot be read would end."""
    connection.execute(
        f"""
        insert into found
        select ?, ?, ?, ?, session, frame, "index", seq, "offset", make_timestamptz(received_at),
          coalesce(raw, raw_base64), raw is null
        from read_json(?, format = 'newline_delimited', compression = 'zstd', maximum_object_size = {LONGEST_LINE}, columns = {RAW})
        where list_contains(?, "offset")
        """,
        [*at, raw, offsets],
    )
    (found,) = connection.execute(
        "select count(*) from found where stream = ? and partition = ? and generation = ? and start = ?", at
    ).fetchone()
    if found != len(offsets):
        raise Refused(f"slot {at} names {len(offsets)} records that only {raw} holds, of which it holds {found}")


def keep_poison(connection: duckdb.DuckDBPyConnection, at: list[Any]) -> None:
    connection.execute(
        "insert into bronze.poison from found where stream = ? and partition = ? and generation = ? and start = ?", at
    )


def retry(connection: duckdb.DuckDBPyConnection) -> None:
    """Has the models take what was unread and can be read now: it arrives anew, behind all that they have taken."""
    for at, typed, rows, poison, raw, offsets in unread.due(connection):
        connection.execute("create or replace temp table found as from bronze.poison limit 0")
        try:
            typed_rows = unread.read(connection, typed)
            check(at, rows, typed, typed_rows, poison)
            if offsets:
                find_poison(connection, at, raw, offsets)
        except (duckdb.Error, Refused) as error:
            unread.again(connection, at, unread.said(error, typed))
            continue
        connection.begin()
        connection.execute(
            "update bronze.slots set typed_rows = ?, arrival = nextval('bronze.arrivals') "
            "where stream = ? and partition = ? and generation = ? and start = ?",
            [typed_rows, *at],
        )
        keep_poison(connection, at)
        unread.remove(connection, at)
        connection.commit()


def set_aside(connection: duckdb.DuckDBPyConnection) -> bool:
    """After a build that failed: whether an object was in its way, which is unread from here on."""
    aside = False
    waits = [slot for name, models in MODELS.items() for model in models for slot in waiting(connection, name, model) if slot[0] == name]
    for *at, typed in waits:
        try:
            unread.read(connection, typed)
        except duckdb.Error as error:
            unread.add(connection, at, unread.said(error, typed), None, [])
            aside = True
    return aside


def name(typed: str | None) -> str | None:
    """An object is named by its content; where it lies may change."""
    return PurePosixPath(typed).name if typed else None


def tails(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """The last slot of each chain, from which the daemon goes on."""
    rows = connection.execute(
        'select stream, partition, max_by((generation, "end"), (generation, start)) from bronze.slots group by all order by all'
    ).fetchall()
    return {f"{stream}/{partition}": {"generation": at[0], "end": at[1]} for stream, partition, at in rows}


def pending(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Models that have slots to take."""
    return {model for stream, models in MODELS.items() for model in models if waiting(connection, stream, model, limit=1)}


def rows_waiting(connection: duckdb.DuckDBPyConnection) -> int:
    """How many records of trades are to be taken."""
    (rows,) = connection.execute(
        "select coalesce(sum(typed_rows), 0) from bronze.slots where stream = 'trades' and arrival > "
        "(select coalesce(max(arrival), 0) from bronze.ledger where model = 'stg_trades')"
    ).fetchone()
    return rows


def waiting(connection: duckdb.DuckDBPyConnection, stream: str, model: str, limit: int | None = None) -> list[tuple[Any, ...]]:
    """The slots that a model has to take, those behind the last that it took: places and objects. See the macro `new_slots`."""
    (reached,) = connection.execute("select coalesce(max(arrival), 0) from bronze.ledger where model = ?", [model]).fetchone()
    return connection.execute(
        f"""
        select stream, partition, generation, start, typed
        from bronze.slots s
        where arrival > {reached} and (stream = ? and typed is not null or ? = 'quarantine' and poison > 0)
          and not exists (from bronze.unread u
            where u.stream = s.stream and u.partition = s.partition and u.generation = s.generation and u.start = s.start)
        limit ?
        """,
        [stream, model, limit],
    ).fetchall()
