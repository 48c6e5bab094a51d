"""Gold's indicators and what is read of them, as published, held against TA-Lib, pandas and numpy (`tests/oracle/indicators.py`)."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import indicators
import market
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import walks
from refining import Refiner, edit

from bronze import Bronze

#: What the second source takes of the made tape. It falls silent half an hour before the other.
REPLAYED = "(symbol = 'ECHO' or (symbol = 'BRAV' and extract(hour from event_time) % 2 = 0)) and event_time < '2026-03-10 14:30:30+00'"


@dataclass
class Published:
    """A version of Gold, with the newest event time of each source by the records that went into it."""

    gold: Path
    watermarks: dict[str, datetime]
    warehouse: Path

    def differences(self, **how: Any) -> list[str]:
        results = indicators.check(self.gold, **{"watermarks": self.watermarks, "warehouse": self.warehouse} | how)
        for result in results:
            print(result)
        return [difference for result in results for difference in result.differences]


def publish(bronze: Bronze, home: Path, kept: Path, runs: list[str], **how: Any) -> list[Published]:
    """The records of each of these conditions in runs of their own; a copy of Gold after each."""
    versions, total = [], bronze.count("trades")
    with Refiner(home, **how) as refiner:
        for n, where in enumerate(runs):
            cuts = [total * part // 4 for part in range(5)]
            slots = [
                bronze.slot("trades", begin, end - 1, rows=f"record_offset between {begin} and {end - 1} and ({where})", generation=n + 1)
                for begin, end in zip(cuts, cuts[1:], strict=False)
            ]
            refiner.refine(slots)
            given = " or ".join(f"({condition})" for condition in runs[: n + 1])
            newest = bronze.connection.execute(
                f"select source, max(event_time) from trades where not time_suspect and ({given}) group by source"
            ).fetchall()
            gold = Path(shutil.copytree(refiner.gold, kept / str(n)))
            versions.append(Published(gold, dict(newest), refiner.db))
    return versions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Published]:
    """The made tape in four runs: most of it; some minutes in its midst; one trade in seven; and the last, which
    closes a minute of all symbols, with two by a clock that runs two hours ahead, which close none: one of them is all
    that its symbol has."""
    folder = tmp_path_factory.mktemp("indicators")
    bronze = Bronze(folder / "bronze")
    total = bronze.add_tape(walks.tape(folder / "tape.jsonl.gz"))
    bronze.connection.execute(f"update trades set source = 'replay' where {REPLAYED}")
    ahead = walks.END + timedelta(hours=2)
    for symbol in ("ALFA", "LONE"):
        bronze.add("trades", symbol=symbol, price="100", event_time=ahead, received_at=walks.END, time_suspect=True)
    runs = [
        "true",
        "event_time between '2026-03-09 15:30:00+00' and '2026-03-09 15:33:00+00'",
        "record_offset % 7 = 3",
        f"record_offset >= {total - 1}",
    ]
    only = [" and not ".join([f"({run})", *(f"({later})" for later in runs[n + 1 :])]) for n, run in enumerate(runs)]
    return publish(bronze, folder / "home", folder, only)


@pytest.mark.parametrize("run", range(4))
def test_a_made_tape(made: list[Published], run: int) -> None:
    assert made[run].differences() == []


@pytest.fixture
def walked(tmp_path: Path) -> Bronze:
    bronze = Bronze(tmp_path / "bronze")
    bronze.add_tape(walks.tape(tmp_path / "tape.jsonl.gz"))
    return bronze


#: All but the last hour, made anew in many parts; then that hour, for which the tails look back, of RARE over half a year.
THEN_AN_HOUR = ["event_time < '2026-03-10 14:00:00+00'", "event_time >= '2026-03-10 14:00:00+00'"]


def test_in_many_parts_and_then_an_hour(walked: Bronze, home: Path, tmp_path: Path) -> None:
    versions = publish(walked, home, tmp_path, THEN_AN_HOUR, bars_in_part=300)
    assert [version.differences() for version in versions] == [[], []]


#: The file, what is right in it, and what misses rows.
FORGETFUL = {
    "parts left out": ("macros/gold.sql", "for part in range(parts)", "for part in range(parts // 2)"),
    "bars of half a year ago": ("macros/series.sql", "'60 days', none]", "'60 days']"),
}


@pytest.mark.parametrize("forgotten", FORGETFUL)
def test_what_a_model_forgets_is_seen(walked: Bronze, home: Path, tmp_path: Path, project: Path, forgotten: str) -> None:
    edit(project, *FORGETFUL[forgotten])
    versions = publish(walked, home, tmp_path, THEN_AN_HOUR, project=project, bars_in_part=300)
    assert [version.differences() for version in versions] != [[], []]


def test_the_last_trade_closed_a_minute(made: list[Published]) -> None:
    bars = [rows_of(version.gold, "moving_averages") for version in made]
    newest = [max(row["bucket_start"] for row in rows if row["source"] == "finnhub") for rows in bars]
    assert newest[2] < newest[3] == walks.END - timedelta(minutes=1)


def test_a_source_that_is_silent_is_left_alone(made: list[Published]) -> None:
    """Its last signals wait for outcomes that only its own next trade can tell; a run of the other source makes nothing of them."""
    assert any(row["source"] == "replay" and row["return_60m"] is None for row in rows_of(made[-1].gold, "trading_signals"))
    with duckdb.connect(str(made[-1].warehouse), read_only=True) as connection:
        assert connection.execute("select distinct source from bronze.touched_trading_signals").fetchall() == [("finnhub",)]


def fired(version: Published) -> Counter[tuple[str, str]]:
    return Counter((row["rule"], row["direction"]) for row in rows_of(version.gold, "trading_signals"))


#: Of each rule the directions that it has.
DIRECTIONS = {"cross": ["buy", "sell"], "breakout": ["buy", "sell"], "volume": ["watch"]}
SIGNALS = {(rule["rule"], direction) for rule in market.rules() for direction in DIRECTIONS[rule["kind"]]}


def test_the_made_tape_has_signals_of_all_kinds_and_a_market_that_goes_all_ways(made: list[Published]) -> None:
    """Or the comparison would say little. Among them are means that were equal one bar before, and volumes that are just enough."""
    counts = fired(made[-1])
    assert counts.keys() == SIGNALS
    assert min(counts.values()) >= 20, counts
    signals = rows_of(made[-1].gold, "trading_signals")
    assert any(row["value_before"] == row["level_before"] is not None for row in signals)
    assert any(row["value"] == row["level"] for row in signals)
    (state,) = [row for row in rows_of(made[-1].gold, "market_overview") if row["symbol"] == "ALFA"]
    assert min(state[name] for name in ("advancers", "decliners", "unchanged")) >= 2
    (lone,) = [row for row in rows_of(made[-1].gold, "market_overview") if row["symbol"] == "LONE"]
    assert lone["last_price"] is lone["last_trade_at"] is lone["rank_change"] is None


def test_a_recorded_day(real_tape, tmp_path: Path) -> None:
    """Its morning, with one trade in twenty held back, then the rest of the day, then what was held back."""
    bronze = Bronze(tmp_path / "bronze")
    total = bronze.add_tape(real_tape("us-equity-20131007"))
    runs = [f"record_offset < {total // 2} and record_offset % 20 <> 7", f"record_offset >= {total // 2} and record_offset % 20 <> 7"]
    versions = publish(bronze, tmp_path / "home", tmp_path, [*runs, "record_offset % 20 = 7"])
    assert [version.differences() for version in versions] == [[], [], []]
    # No day before has told what is usual in a minute.
    counts = fired(versions[-1])
    assert counts.keys() == {(rule, direction) for rule, direction in SIGNALS if rule != "volume_of_the_minute"}
    assert min(counts.values()) >= 20, counts
    # The manifest's own watermark says the same, where there is one source.
    assert versions[-1].differences(watermarks=None) == []
    command = [sys.executable, indicators.__file__, str(versions[-1].gold), "--warehouse", str(versions[-1].warehouse)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("largest relative difference") == len(indicators.TABLES) + 1


def rows_of(gold: Path, table: str) -> list[dict[str, Any]]:
    entry = json.loads((gold / "manifest.json").read_text())["tables"][table]
    return [row for file in entry["files"] for row in pq.ParquetFile(gold / file).read().to_pylist()]


def changed(version: Published, to: Path, table: str, rows: list[dict[str, Any]]) -> Published:
    """A copy in which a table has other rows."""
    gold = Path(shutil.copytree(version.gold, to))
    manifest = json.loads((gold / "manifest.json").read_text())
    entry = manifest["tables"][table]
    schema = pq.ParquetFile(gold / entry["files"][0]).schema_arrow
    pq.write_table(pa.Table.from_pylist(rows, schema), gold / table / "changed.parquet")
    manifest["tables"][table] = entry | {"files": [f"{table}/changed.parquet"], "rows": len(rows)}
    (gold / "manifest.json").write_text(json.dumps(manifest))
    return Published(gold, version.watermarks, version.warehouse)


def name_of(table: str, row: dict[str, Any]) -> str:
    return indicators.named(tuple(row[column] for column in indicators.KEYS.get(table, indicators.BAR)))


def a_little_more(value: Any) -> Any:
    match value:
        case Decimal():
            return value + Decimal("0.00000001")
        case float():
            return value * (1 + 1e-6)
        case date():
            return value + timedelta(days=1)
        case str():
            return value + "?"
        case _:
            return value + 1


@pytest.mark.parametrize("table", indicators.TABLES)
def test_a_value_that_is_wrong_by_a_millionth_is_seen(made: list[Published], tmp_path: Path, table: str) -> None:
    """One in each column; so is a value for a null."""
    rows, chance, wrong = rows_of(made[-1].gold, table), random.Random(table), set()
    ours = rows if table == "market_overview" else [row for row in rows if "ALFA" in row.values()]
    for name in sorted(rows[0].keys() - set(indicators.KEYS.get(table, indicators.BAR))):
        known, unknown = [row for row in ours if row[name]], [row for row in ours if row[name] is None]
        if unknown:
            row = chance.choice(unknown)
            row[name] = chance.choice(known)[name]
            wrong.add((name_of(table, row), name))
        row = chance.choice(known)
        row[name] = a_little_more(row[name])
        wrong.add((name_of(table, row), name))
    said = changed(made[-1], tmp_path / "gold", table, rows).differences(only={table})
    seen = {of for of in wrong if any(difference.startswith(f"{table}: {of[0]} {of[1]}: ") for difference in said)}
    assert seen == wrong
    assert len({difference.split(" is published")[0] for difference in said}) == len(wrong), said


@pytest.mark.parametrize("table", indicators.TABLES)
def test_a_row_too_few_and_one_too_many_are_seen(made: list[Published], tmp_path: Path, table: str) -> None:
    rows = sorted(rows_of(made[-1].gold, table), key=lambda row: name_of(table, row))
    gone, twice, moved = (rows.pop(len(rows) // n) for n in (2, 3, 5))
    name = {"correlation_matrix": "window_end", "market_overview": "symbol"}.get(table, "bucket_start")
    rows += [twice, twice, moved | {name: "NONE" if name == "symbol" else moved[name] + timedelta(days=400)}]
    said = changed(made[-1], tmp_path / "gold", table, rows).differences(only={table})
    wanted = {f"{name_of(table, twice)} stands twice", f"{name_of(table, rows[-1])} has no place there"}
    wanted |= {f"{name_of(table, row)} is missing" for row in (gone, moved)}
    assert {difference.removeprefix(f"{table}: ") for difference in said} == wanted


def test_another_watermark_is_seen(made: list[Published]) -> None:
    """The bars that are there are those that this one closed."""
    for minutes, what in ((-1, "has no place there"), (1, "is missing")):
        marks = made[-1].watermarks | {"finnhub": made[-1].watermarks["finnhub"] + timedelta(minutes=minutes)}
        said = made[-1].differences(watermarks=marks, only={"moving_averages"})
        assert said
        assert all(what in difference for difference in said), said


def test_a_value_that_is_no_number_and_a_table_that_is_not_there_are_seen(made: list[Published], tmp_path: Path) -> None:
    rows = rows_of(made[-1].gold, "moving_averages")
    rows[0]["sma_5"] = float("nan")
    version = changed(made[-1], tmp_path / "gold", "moving_averages", rows)
    assert any("sma_5 has a value that is no number" in difference for difference in version.differences(only={"moving_averages"}))
    manifest = json.loads((version.gold / "manifest.json").read_text())
    del manifest["tables"]["ohlc_1d"]
    (version.gold / "manifest.json").write_text(json.dumps(manifest))
    assert version.differences(only={"ohlc_1d"}) == ["ohlc_1d: the manifest does not name it"]
    command = [sys.executable, indicators.__file__, str(version.gold)]
    command += [f"--watermark={source}={moment.isoformat()}" for source, moment in version.watermarks.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ohlc_1d: the manifest does not name it" in done.stdout
