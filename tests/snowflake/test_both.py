"""The same models give the same rows on DuckDB, in the real refiner, and on the double of Snowflake.

The double is DuckDB inside: see `double` for what that proves and what it does not.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import made
import pytest
from account import Account, Double
from bronze import Bronze
from compare import differences, models, plain, query
from conftest import PROJECT
from refiner.slots import IDENTITY, STREAMS
from refiner.warehouse import Warehouse

RUNS = 4

POSITIONS = """account,symbol,executed_at,quantity,price,fee,currency,note
main,AAPL,2026-03-06T15:00:00Z,10,100.5,1,USD,
main,AAPL,2026-03-09T15:00:00Z,-3,120.25,1,USD,
other,BINANCE:BTCUSDT,2026-01-15T15:00:00Z,-0.5,40000,,USD,short
"""


@dataclass
class Sides:
    """One Bronze, and both warehouses over it."""

    duckdb: Warehouse
    snowflake: Account
    runs: list[list[dict[str, Any]]]

    def refine(self, slots: list[dict[str, Any]], *, anew: bool = False) -> None:
        run = self.duckdb.refine(slots, lambda _: None, anew=anew)["run"]
        self.snowflake.load(slots, run)
        self.snowflake.fill(self.duckdb.connection.execute("select * replace (executed_at::varchar as executed_at) from bronze.fills").fetchall())
        self.snowflake.dbt("run", *(["--full-refresh"] if anew else []))

    def differences(self, *, without: str = "") -> list[str]:
        """Of all models, in all columns but the one named."""
        found = []
        for node in models(self.snowflake.manifest):
            names = [name for name in node.columns if name != without]
            times = [name if node.columns[name].data_type != "timestamptz" else f"epoch_us({name})" for name in names]
            left = self.duckdb.connection.execute(query(node, times)).fetchall()
            right = [tuple(plain(value) for value in row) for row in self.snowflake.rows(query(node, names))]
            found += differences(f"{node.schema}.{node.alias}", left, right)
        return found


def slots_of(bronze: Bronze, tape: Path) -> list[list[dict[str, Any]]]:
    """The first run has all streams, the others trades that touch old minutes; some trades come again, some break
    rules, and a verdict of the first run falls in the third, as prices come late that it is held against."""
    total = bronze.add_tape(made.tape(tape, frames=500))
    cuts = bronze.cut("trades", RUNS)
    again = bronze.slot("trades", total // 4, total // 2, generation=2)
    for price, size in [("0", "1"), ("5", "-1"), ("9999999999", "9999999999"), (None, "1")]:
        bronze.add("trades", session="odd", price=price, size=size)
    for minute in range(7):
        at = f"2026-11-23 15:{minute:02}:00+00"
        bronze.add("trades", session="odd", symbol="MSFT", price="100" if minute < 6 else "100000", event_time=at, received_at=at)
    odd = bronze.slot("trades", total, bronze.count("trades") - 1)
    start = bronze.count("trades")
    for minute in range(6):
        bronze.add("trades", session="late", symbol="MSFT", price="100000", event_time=f"2026-11-23 15:{minute:02}:30+00")
        bronze.add("trades", session="late", symbol="MSFT", price="100001", event_time=f"2026-11-23 15:{minute:02}:31+00")
    late = bronze.slot("trades", start, bronze.count("trades") - 1)
    for number in range(4):
        told = {"last_received_at": f"2026-11-23 14:{number}0:30+00", "first_received_at": f"2026-11-23 1{number + 3}:10:00.25+00"}
        bronze.add("gaps", reason=f"outage {number}", symbols="AAPL,BRK.B", frames=number, **told)
        bronze.add("quarantine", detail=f"fault {number}")
    gaps, quarantine = bronze.cut("gaps", 2), bronze.cut("quarantine", 2)
    return [[cuts[0], odd, gaps[0], quarantine[0]], [cuts[1], again, gaps[1]], [cuts[2], late, quarantine[1]], [cuts[3]]]


@pytest.fixture(scope="module")
def sides(double: Double, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder = tmp_path_factory.mktemp("both")
    runs = slots_of(Bronze(folder / "bronze"), folder / "made.jsonl.gz")
    positions = folder / "positions.csv"
    positions.write_text(POSITIONS)
    warehouse = Warehouse(folder / "duckdb" / "warehouse.duckdb", folder / "gold", {"positions": str(positions)})
    account = Account(double, "TICKMINT", PROJECT, folder)
    account.dbt("seed")
    sides = Sides(warehouse, account, runs)
    sides.refine(runs[0])
    yield sides
    account.close()
    warehouse.close()


@pytest.fixture
def changed(sides: Sides, tmp_path: Path) -> Callable[[str, str], Account]:
    """The account under a copy of the project in which a macro file is changed."""

    def change(file: str, find: str, put: str) -> Account:
        project = shutil.copytree(PROJECT, tmp_path / "dbt")
        path = project / "macros" / file
        before = path.read_text()
        assert re.search(find, before), f"{find} is not in {file}"
        path.write_text(re.sub(find, put, before))
        return sides.snowflake.with_project(project)

    return change


def test_each_run_gives_the_same_rows(sides: Sides) -> None:
    """The first run, two incremental ones, and all of it made anew."""
    assert not (found := sides.differences()), "first run:\n" + "\n".join(found)
    rejected = sides.snowflake.rows("select count(*) from silver.rejected_trades where rule = 'price_out_of_band' and symbol = 'MSFT'")
    assert rejected == [(1,)]
    for slots in sides.runs[1:3]:
        sides.refine(slots)
        assert not (found := sides.differences()), "incremental:\n" + "\n".join(found)
    assert not sides.snowflake.rows("select * from silver.rejected_trades where price = 100000"), "the verdict stands"
    counts = {node.alias: len(sides.snowflake.rows(query(node, ["1"]))) for node in models(sides.snowflake.manifest)}
    assert all(counts.values()), f"nothing was compared in some: {counts}"
    sides.refine([], anew=True)
    assert not (found := sides.differences()), "made anew:\n" + "\n".join(found)


def test_a_run_that_died_before_its_books_is_mended(sides: Sides, changed: Callable[..., Account]) -> None:
    """Each model's rows are committed, and then its books fail: see the macro `snowflake__mend_books`."""
    run = sides.duckdb.refine(sides.runs[3], lambda _: None, anew=False)["run"]
    sides.snowflake.load(sides.runs[3], run)
    before = counts_of(sides.snowflake)
    dying = changed(
        "snowflake.sql",
        r'return\("begin;',
        """return(("select of_a_dead_run;" if "insert into bronze.ledger" in statements | join or "insert into bronze.runs_used" in statements | join else "") ~ "begin;""",
    )
    for model in ["stg_trades", "minute_prices", "rejected_trades", "ohlc_1m", "moving_averages"]:
        with pytest.raises(AssertionError, match="(?i)of_a_dead_run"):
            dying.dbt("run", "--select", model)
    assert counts_of(sides.snowflake) > before, "the dead run has left rows"
    sides.snowflake.load([], run + 1)
    sides.snowflake.dbt("run")
    assert not (found := sides.differences(without="silver_run")), "\n".join(found)
    sides.snowflake.dbt("test", "--select", "rows_add_up", "arrivals_are_kept")


def counts_of(account: Account) -> int:
    return account.rows("select count(*) from silver.stg_trades")[0][0]


def test_all_tests_of_the_project_pass(sides: Sides) -> None:
    """On real tables, and dbt's unit tests in the double's dialect."""
    results = sides.snowflake.dbt("test").results
    assert {result.node.resource_type for result in results} == {"test", "unit_test"}


def test_bronze_has_the_columns_of_the_objects(sides: Sides) -> None:
    """What `make_bronze` says of them is what the refiner says on DuckDB."""
    for stream, columns in STREAMS.items():
        wanted = [column.split()[0] for column in f"{IDENTITY}, {columns}".split(", ")]
        found = [name.lower() for name, *_ in sides.snowflake.rows(f"describe table typed_{stream}")]
        assert found == ["stream", "partition", "generation", "start", *wanted]


def test_a_model_that_is_broken_on_one_side_is_seen(sides: Sides, changed: Callable[..., Account]) -> None:
    """Amounts that are wrong by one in the last of 16 decimals, on this side alone."""
    unit = "cast('0.0000000000000001' as decimal(17, 16))"
    broken = changed("snowflake.sql", re.escape(unit), f"{unit} + {unit}")
    broken.dbt("run", "--full-refresh", "--select", "ohlc_1m")
    assert [line.partition(":")[0] for line in sides.differences()] == ["gold.ohlc_1m"] * 3
