"""A day delivered in five ways: whatever the way, Gold is in the end what a full rebuild makes of the same Bronze.

With TICKMINT_LONG=1 it is two whole days of the stock market, in more runs and forty restarts; else a morning.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import made
import pytest
from bronze import Bronze
from conftest import LONG
from deliveries import WAYS, with_frames_repeated
from refining import PROJECT, Refiner

RUNS = 12 if LONG else 3
RESTARTS = 40 if LONG else 4
TAPES = ["us-equity-20131007", "us-equity-20131008"] if LONG else ["us-equity-20131007"]

#: The size of what differences near zero are differences of: prices, returns, products of returns.
FLOORS = {"correlation": 1e-3, "mean_a": 1e-4, "mean_b": 1e-4, "covariance": 1e-8}
FLOORS |= dict.fromkeys(["macd", "macd_signal", "macd_histogram", "value", "level", "value_before", "level_before"], 1e-3)

Slot = dict[str, Any]


@contextmanager
def tables(gold: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The published tables of Gold, as views by their names."""
    manifest = json.loads((gold / "manifest.json").read_text())
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name, table in manifest["tables"].items():
            files = [str(gold / file) for file in table["files"]]
            if files:
                connection.execute(f"create table {name} as from read_parquet({files})")
        yield connection


def assert_same_gold(found: Path, wanted: Path) -> dict[str, int]:
    """Every row of every table: what is exact exactly, ratios to 1e-9. Returns the rows by table."""
    with tables(wanted) as connection:
        names = [name for (name,) in connection.execute("select table_name from duckdb_tables() order by 1").fetchall()]
        manifest = json.loads((found / "manifest.json").read_text())
        assert names == sorted(name for name, table in manifest["tables"].items() if table["files"])
        rows = {}
        for name in names:
            files = [str(found / file) for file in manifest["tables"][name]["files"]]
            connection.execute(f"create table incremental as from read_parquet({files})")
            columns = connection.execute("select column_name, data_type from duckdb_columns() where table_name = ?", [name]).fetchall()
            exact = [column for column, kind in columns if kind != "DOUBLE"]
            same = " and ".join(f"a.{column} is not distinct from b.{column}" for column in exact)
            ratios = [column for column, kind in columns if kind == "DOUBLE"]
            differing = connection.execute(
                f"""
                select * from (
                  (select 'only incremental', * from (select {", ".join(exact)} from incremental except all select {", ".join(exact)} from {name})) union all
                  (select 'only rebuilt', * from (select {", ".join(exact)} from {name} except all select {", ".join(exact)} from incremental)))
                limit 5
                """
            ).fetchall()
            assert not differing, f"{name}: {differing}"
            for ratio in ratios:
                # Differences of near equals are held against the size of what they are differences of.
                floor = FLOORS.get(ratio, 0)
                (off,) = connection.execute(
                    f"""
                    select count(*) from incremental a join {name} b on {same}
                    where (a.{ratio} is null) <> (b.{ratio} is null)
                      or abs(a.{ratio} - b.{ratio}) > 1e-9 * greatest(abs(b.{ratio}), {floor})
                    """
                ).fetchone()
                assert off == 0, f"{name}.{ratio}: {off} rows differ"
            (rows[name],) = connection.execute("select count(*) from incremental").fetchone()
            connection.execute("drop table incremental")
        return rows


def deliver(home: Path, slots: list[Slot], *, restarts: int, project: Path = PROJECT) -> None:
    """Gives the refiner the slots in runs; it is ended and started again so many times, killed every other time."""
    chance = random.Random(7)
    lives, runs = restarts + 1, max(RUNS, restarts + 1)
    share = [slots[len(slots) * n // runs : len(slots) * (n + 1) // runs] for n in range(runs)]
    for life in range(lives):
        with Refiner(home, project=project) as refiner:
            for part in share[runs * life // lives : runs * (life + 1) // lives]:
                refiner.refine(part)
            if life < restarts and chance.random() < 0.5:
                refiner.kill()


def story(home: Path, tmp_path: Path, bronze: Bronze, way: str, project: Path = PROJECT) -> dict[str, int]:
    WAYS[way](bronze)
    total = bronze.count("trades")
    deliver(home, bronze.cut("trades", 60), restarts=RESTARTS if way == "many restarts" else 0, project=project)
    incremental = Path(shutil.copytree(home / "gold", tmp_path / "incremental"))
    with Refiner(home, project=project) as refiner:
        assert refiner.audit()["streams"]["trades"] == {"rows": total, "distinct": total, "kept": total}
        refiner.refine([], full_refresh=True)
    return assert_same_gold(incremental, home / "gold")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tape", TAPES)
def test_gold_is_what_a_full_rebuild_makes(home: Path, tmp_path: Path, bronze: Bronze, real_tape: Callable[[str], Path], way: str, tape: str) -> None:
    bronze.add_tape(real_tape(tape))
    if not LONG:
        bronze.connection.execute("delete from trades where event_time >= timestamptz '2013-10-07 14:45:00+00'")
    rows = story(home, tmp_path, bronze, way)
    print(way, rows)
    assert all(rows[name] > 0 for name in ("ohlc_1m", "ohlc_1d", "moving_averages", "volume_indicators", "trading_signals", "market_overview"))


@pytest.mark.parametrize("way", ["held back by hours", "frames repeated"] if LONG else ["held back by hours"])
def test_of_a_made_tape_too(home: Path, tmp_path: Path, bronze: Bronze, way: str) -> None:
    """Every sale condition, both clock changes, holidays; several symbols."""
    bronze.add_tape(made.tape(tmp_path / "made.jsonl.gz", frames=2000, seed=11))
    assert story(home, tmp_path, bronze, way)["correlation_matrix"] > 0


def test_a_repeated_frame_is_flagged_and_counts(home: Path, bronze: Bronze, tmp_path: Path) -> None:
    before = bronze.add_tape(made.tape(tmp_path / "made.jsonl.gz", frames=400, seed=12))
    with_frames_repeated(bronze)
    repeated = bronze.count("trades") - before
    assert repeated > 0
    with Refiner(home) as refiner:
        refiner.refine(bronze.cut("trades", 3))
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute("select count(*) filter (where suspect_repeat) from silver.stg_trades").fetchone() == (repeated,)


def test_a_source_that_was_suspect_so_far_closes_its_bars_too(home: Path, tmp_path: Path, bronze: Bronze) -> None:
    """Its first bars are older than what the other source has come to, and close with its first good time."""
    bronze.add("trades", event_time="2026-11-23 15:00:30+00")
    bronze.add("trades", event_time="2026-11-20 15:00:30+00", source="replay", time_suspect=True)
    bronze.add("trades", event_time="2026-11-23 15:01:30+00")
    bronze.add("trades", event_time="2026-11-20 15:02:30+00", source="replay")
    with Refiner(home) as refiner:
        for first, last in ((0, 0), (1, 2), (3, 3)):
            refiner.refine([bronze.slot("trades", first, last)])
        incremental = Path(shutil.copytree(refiner.gold, tmp_path / "incremental"))
        refiner.refine([], full_refresh=True)
    assert assert_same_gold(incremental, home / "gold")["moving_averages"] == 2


@pytest.mark.parametrize("way", ["held back by hours"])
def test_a_watermark_would_be_seen(home: Path, tmp_path: Path, bronze: Bronze, way: str) -> None:
    """The control: what most write, new is what is later than the latest before, loses what comes late."""
    project = Path(shutil.copytree(PROJECT, tmp_path / "dbt"))
    path = project / "macros" / "touched.sql"
    text = path.read_text()
    new = "from {{ ref('trades') }} where silver_run > {{ used }} and not price_update"
    assert new in text
    path.write_text(text.replace(new, "from {{ ref('trades') }} where event_time > (select coalesce(max(event_time), '1970-01-01'::timestamptz) from silver.stg_trades where silver_run <= {{ used }})"))
    bronze.add_tape(made.tape(tmp_path / "made.jsonl.gz", frames=1500, seed=13))
    with pytest.raises(AssertionError, match=r"^(market_overview|moving_averages): \[\('only"):
        story(home, tmp_path, bronze, way, project)


def test_a_run_that_closes_no_minute_is_in_the_overview_too(home: Path, tmp_path: Path, bronze: Bronze) -> None:
    """And a time in the future, which is suspect, is nowhere the newest."""
    for second, price in (("00:10", "100"), ("01:10", "101"), ("01:40", "103")):
        bronze.add("trades", event_time=f"2026-11-23 15:{second}+00", price=price)
    bronze.add("trades", event_time="2027-01-04 15:00:00+00", price="999", time_suspect=True)
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 1)])
        refiner.refine([bronze.slot("trades", 2, 2)])
        refiner.refine([bronze.slot("trades", 3, 3)])
        incremental = Path(shutil.copytree(home / "gold", tmp_path / "incremental"))
        refiner.refine([], full_refresh=True)
    assert assert_same_gold(incremental, home / "gold")["market_overview"] == 1
    with tables(home / "gold") as connection:
        overview = connection.execute("select trading_date::varchar, last_price, trades, last_trade_at::varchar, last_trade_age_seconds from market_overview").fetchone()
    assert overview == ("2026-11-23", 103, 3, "2026-11-23 15:01:40+00", 0)
