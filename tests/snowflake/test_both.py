"""The same models give the same rows on DuckDB, in the real refiner, and on the double of Snowflake.

The double is DuckDB inside: see `double` for what that proves and what it does not.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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

RUNS = 3


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with Double(tmp_path_factory.mktemp("double") / "double.log") as double:
        yield double


@dataclass
class Sides:
    """One Bronze, and both warehouses over it."""

    duckdb: Warehouse
    snowflake: Account
    runs: list[list[dict[str, Any]]]

    def refine(self, slots: list[dict[str, Any]], *, anew: bool = False) -> None:
        run = self.duckdb.refine(slots, lambda _: None, anew=anew)["run"]
        self.snowflake.load(slots, run)
        self.snowflake.dbt("run", *(["--full-refresh"] if anew else []))

    def differences(self) -> list[str]:
        found = []
        for node in models(self.snowflake.manifest):
            columns = ", ".join(
                f"epoch_us({name})" if column.data_type == "timestamptz" else name for name, column in node.columns.items()
            )
            left = self.duckdb.connection.execute(f"select {columns} from {node.schema}.{node.alias}").fetchall()
            right = [tuple(plain(value) for value in row) for row in self.snowflake.rows(query(node))]
            found += differences(f"{node.schema}.{node.alias}", left, right)
        return found


def slots_of(bronze: Bronze, tape: Path) -> list[list[dict[str, Any]]]:
    """Three runs: the first with all streams, the others with trades that touch old minutes, and some again."""
    total = bronze.add_tape(made.tape(tape, frames=900))
    for number in range(4):
        bronze.add("gaps", reason=f"outage {number}", symbols="AAPL,BRK.B", frames=number)
        bronze.add("quarantine", detail=f"fault {number}")
    for price, size in [("0", "1"), ("5", "-1"), ("9999999999", "9999999999"), (None, "1")]:
        bronze.add("trades", price=price, size=size)
    cuts = bronze.cut("trades", RUNS)
    again = bronze.slot("trades", total // 4, total // 2, generation=2)
    gaps, quarantine = bronze.cut("gaps", 2), bronze.cut("quarantine", 2)
    return [[cuts[0], gaps[0], quarantine[0]], [cuts[1], again, gaps[1]], [cuts[2], quarantine[1]]]


@pytest.fixture(scope="module")
def sides(double: Double, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder = tmp_path_factory.mktemp("both")
    runs = slots_of(Bronze(folder / "bronze"), folder / "made.jsonl.gz")
    warehouse = Warehouse(folder / "duckdb" / "warehouse.duckdb", folder / "gold", {})
    account = Account(double, "TICKMINT", PROJECT, folder)
    account.dbt("seed")
    yield Sides(warehouse, account, runs)
    account.close()
    warehouse.close()


def test_each_run_gives_the_same_rows(sides: Sides) -> None:
    """The first run, two incremental ones, and all of it made anew."""
    for number, slots in enumerate(sides.runs):
        sides.refine(slots)
        assert not (found := sides.differences()), f"run {number + 1}:\n" + "\n".join(found)
    incremental = {node.alias: len(sides.snowflake.rows(query(node))) for node in models(sides.snowflake.manifest)}
    assert all(incremental.values()), f"nothing was compared in some: {incremental}"
    sides.refine([], anew=True)
    assert not (found := sides.differences()), "made anew:\n" + "\n".join(found)


def test_all_tests_of_the_project_pass(sides: Sides) -> None:
    results = sides.snowflake.dbt("test").results
    kinds = {result.node.resource_type for result in results}
    assert kinds == {"test", "unit_test"}, kinds
