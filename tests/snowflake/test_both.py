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

#: Positions that are opened, added to, closed, and crossed; one has no price.
POSITIONS = """account,symbol,executed_at,quantity,price,fee,currency
main,AAPL,2026-01-10T15:00:00-05:00,10,90.5,1,USD
main,AAPL,2026-03-06T15:00:00-05:00,5.5,101,1,USD
main,BINANCE:BTCUSDT,2026-03-07T02:00:00Z,-0.12345678,50000,0.3,USDT
ira,BRK.B,2026-03-09T10:00:00-04:00,3,450,,
main,AAPL,2026-10-30T10:00:00-04:00,-20,120,2,USD
ira,BRK.B,2026-10-31T10:00:00-04:00,-3,470,,
ira,NEVER,2026-10-31T10:00:00-04:00,7,1,,
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
        self.snowflake.hold(self.duckdb.connection.execute("select columns(*)::varchar from bronze.fills").fetchall())
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
    """The first run has all streams, the others trades that touch old minutes; some trades come again."""
    total = bronze.add_tape(made.tape(tape, frames=900))
    for number in range(4):
        told = {"last_received_at": f"2026-11-23 14:{number}0:30+00", "first_received_at": f"2026-11-23 1{number + 3}:10:00.25+00"}
        bronze.add("gaps", reason=f"outage {number}", symbols="AAPL,BRK.B", frames=number, **told)
        bronze.add("quarantine", detail=f"fault {number}")
    for price, size in [("0", "1"), ("5", "-1"), ("9999999999", "9999999999"), (None, "1")]:
        bronze.add("trades", price=price, size=size)
    cuts = bronze.cut("trades", RUNS)
    again = bronze.slot("trades", total // 4, total // 2, generation=2)
    gaps, quarantine = bronze.cut("gaps", 2), bronze.cut("quarantine", 2)
    # The last cut holds what is rejected.
    return [[cuts[3], gaps[0], quarantine[0]], [cuts[1], again, gaps[1]], [cuts[2], quarantine[1]], [cuts[0]]]


@pytest.fixture(scope="module")
def sides(double: Double, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder = tmp_path_factory.mktemp("both")
    runs = slots_of(Bronze(folder / "bronze"), folder / "made.jsonl.gz")
    (folder / "positions.csv").write_text(POSITIONS)
    warehouse = Warehouse(folder / "duckdb" / "warehouse.duckdb", folder / "gold", {"positions": str(folder / "positions.csv")})
    account = Account(double, "TICKMINT", PROJECT, folder)
    account.dbt("seed")
    yield Sides(warehouse, account, runs)
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
    for number, slots in enumerate(sides.runs[:3]):
        sides.refine(slots)
        assert not (found := sides.differences()), f"run {number + 1}:\n" + "\n".join(found)
    counts = {node.alias: len(sides.snowflake.rows(query(node, ["1"]))) for node in models(sides.snowflake.manifest)}
    assert all(counts.values()), f"nothing was compared in some: {counts}"
    sides.refine([], anew=True)
    assert not (found := sides.differences()), "made anew:\n" + "\n".join(found)


def test_a_run_that_died_before_its_books_is_mended(sides: Sides, changed: Callable[..., Account]) -> None:
    """Each model's rows are committed, and then its books fail: see the macro `snowflake__mend_books`."""
    run = sides.duckdb.refine(sides.runs[3], lambda _: None, anew=False)["run"]
    sides.snowflake.load(sides.runs[3], run)
    before = counts_of(sides.snowflake)
    dying = changed("snowflake.sql", r'return\("begin;', 'return(("select of_a_dead_run;" if "ledger" in statements[0] or "runs_used" in statements | join else "") ~ "begin;')
    for model in ["stg_trades", "minute_prices", "rejected_trades", "ohlc_1m", "moving_averages"]:
        with pytest.raises(AssertionError, match="of_a_dead_run"):
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
    """Amounts that lose their last four digits, as a plain product would on a real account; on this side alone."""
    broken = changed("snowflake.sql", r"\(19, 0\)\)\n    \* cast\(cast", "(19, 0)) * 1.000000000001\n    * cast(cast")
    broken.dbt("run", "--full-refresh", "--select", "ohlc_1m")
    assert [line.partition(":")[0] for line in sides.differences()] == ["gold.ohlc_1m"] * 3
