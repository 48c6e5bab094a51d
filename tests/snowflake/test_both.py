"""The same models give the same rows on DuckDB, in the real refiner, and on the double of Snowflake.

The double is DuckDB inside: see `double` for what that proves and what it does not.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import made
import pytest
from account import Account, Double
from bronze import Bronze
from compare import Row, differences, models, plain, query
from conftest import PROJECT
from deliveries import LONG, WAYS
from refiner.slots import IDENTITY, STREAMS
from refiner.warehouse import Warehouse

RUNS = 4

#: In so many runs a day is delivered.
DELIVERIES = 8 if LONG else 2

#: Models that keep books, in order.
WITH_BOOKS = ["stg_trades", "minute_prices", "rejected_trades", "ohlc_1m", "moving_averages"]

POSITIONS = """account,symbol,executed_at,quantity,price,fee,currency,note
main,AAPL,2026-03-06T15:00:00Z,10,100.5,1,USD,
main,AAPL,2026-03-09T15:00:00Z,-3,120.25,1,USD,
other,BINANCE:BTCUSDT,2026-01-15T15:00:00Z,-0.5,40000,,USD,short
"""


@dataclass
class Sides:
    """One Bronze, in a folder, and both warehouses over it."""

    duckdb: Warehouse
    snowflake: Account
    runs: list[list[dict[str, Any]]]
    bronze: Path
    run: int = 0

    def refine(self, slots: list[dict[str, Any]], *, anew: bool = False) -> None:
        self.load(slots, anew=anew)
        self.snowflake.dbt("run", *(["--full-refresh"] if anew else []))

    def load(self, slots: list[dict[str, Any]], *, anew: bool = False) -> None:
        """One of them has them in all tables, the other in Bronze."""
        run = self.duckdb.refine(slots, lambda _: None, anew=anew)["run"]
        self.begin(slots, run)
        self.snowflake.fill(self.duckdb.connection.execute("select * replace (executed_at::varchar as executed_at) from bronze.fills").fetchall())

    def begin(self, slots: list[dict[str, Any]], run: int = 0) -> None:
        """Runs have the same numbers on both sides until one of them dies."""
        self.run = max(run, self.run + 1)
        self.snowflake.load(slots, self.run)

    def rows(self, node: Any, names: list[str]) -> list[Row]:
        return [tuple(plain(value) for value in row) for row in self.snowflake.rows(query(node, names))]

    def differences(self, *, without: str = "") -> list[str]:
        """Of all models, in all columns but the one named."""
        found = []
        for node in models(self.snowflake.manifest):
            names = columns(node, without)
            times = [name if node.columns[name].data_type != "timestamptz" else f"epoch_us({name})" for name in names]
            left = self.duckdb.connection.execute(query(node, times)).fetchall()
            found += differences(f"{node.schema}.{node.alias}", left, self.rows(node, names))
        return found


def columns(node: Any, without: str) -> list[str]:
    return [name for name in node.columns if name != without]


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
    sides = Sides(warehouse, account, runs, folder / "bronze")
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
    dynamic = {name for name, *_, is_dynamic in sides.snowflake.rows("show objects in tickmint.gold limit 100") if is_dynamic == "Y"}
    assert dynamic == {"OHLC_5M", "OHLC_15M", "OHLC_1H", "OHLC_1D"}


def test_a_run_that_died_before_its_books_is_mended(sides: Sides, changed: Callable[..., Account]) -> None:
    """Each model's rows are committed, and then its books fail: see the macro `snowflake__mend_books`."""
    sides.load(sides.runs[3])
    before = counts_of(sides.snowflake)
    die(dying(changed), WITH_BOOKS)
    assert counts_of(sides.snowflake) > before, "the dead run has left rows"
    sides.begin([])
    sides.snowflake.dbt("run")
    assert not (found := sides.differences(without="silver_run")), "\n".join(found)
    sides.snowflake.dbt("test", "--select", "rows_add_up", "arrivals_are_kept")


def dying(changed: Callable[..., Account]) -> Account:
    return changed(
        "snowflake.sql",
        r'return\("begin;',
        """return(("select of_a_dead_run;" if "insert into bronze.ledger" in statements | join or "insert into bronze.runs_used" in statements | join else "") ~ "begin;""",
    )


def die(account: Account, models: list[str]) -> None:
    for model in models:
        with pytest.raises(AssertionError, match="(?i)of_a_dead_run"):
            account.dbt("run", "--select", model)


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


def delivered(folder: Path, tape: Path, ways: Iterable[str], pieces: int, *, generation: int) -> list[list[dict[str, Any]]]:
    """What comes in each run of a tape that is delivered in these ways at once, each as a feed of its own: nothing of a
    source depends on another one."""
    cuts = []
    for n, way in enumerate(ways):
        bronze = Bronze(folder)
        bronze.add_tape(tape, session=f"{way} {generation}")
        bronze.connection.execute("update trades set source = ?", [f"{way} {generation}"])
        WAYS[way](bronze)
        cuts.append(bronze.cut("trades", pieces, generation=generation + n))
    return [[cut[n] for cut in cuts] for n in range(pieces)]


def test_whatever_way_a_day_is_delivered(sides: Sides, changed: Callable[..., Account], tmp_path: Path) -> None:
    """In the end all models are what a full rebuild makes, and what they are on DuckDB. In between dbt dies before the
    books of some model and is started again; with TICKMINT_LONG=1 between any two of eight runs, else once."""
    chance = random.Random(7)
    tape = made.tape(tmp_path / "made.jsonl.gz", frames=1500 if LONG else 250, seed=14)
    mortal = dying(changed)
    for n, slots in enumerate(delivered(sides.bronze, tape, WAYS, DELIVERIES, generation=10)):
        sides.load(slots)
        if n:
            die(mortal, WITH_BOOKS[: chance.randint(1, len(WITH_BOOKS))])
            sides.snowflake.restart()
            sides.begin([])
        sides.snowflake.dbt("run")
    assert not (found := sides.differences(without="silver_run")), "incremental:\n" + "\n".join(found)
    nodes = models(sides.snowflake.manifest)
    incremental = [sides.rows(node, columns(node, "silver_run")) for node in nodes]
    sides.refine([], anew=True)
    for node, rows in zip(nodes, incremental, strict=True):
        assert not (found := differences(node.alias, rows, sides.rows(node, columns(node, "silver_run")))), "\n".join(found)
    assert not (found := sides.differences(without="silver_run")), "made anew:\n" + "\n".join(found)
    sources = sides.snowflake.rows("select count(distinct source) from gold.moving_averages")
    assert sources == [(1 + len(WAYS),)], "and each has bars that were compared"


def test_a_model_that_is_broken_on_one_side_is_seen(sides: Sides, changed: Callable[..., Account]) -> None:
    """Amounts that are wrong by one in the last of 16 decimals, on this side alone."""
    unit = "cast('0.0000000000000001' as decimal(17, 16))"
    broken = changed("snowflake.sql", re.escape(unit), f"{unit} + {unit}")
    broken.dbt("run", "--full-refresh", "--select", "ohlc_1m")
    assert [line.partition(":")[0] for line in sides.differences(without="silver_run")] == ["gold.ohlc_1m"] * 3


def test_a_watermark_would_be_seen(sides: Sides, changed: Callable[..., Account], tmp_path: Path) -> None:
    """The control: what most write, new is what is later than the latest before, loses what comes late.
    It leaves an account that is wrong, so it is the last one."""
    new = "where silver_run > {{ used }} and not price_update"
    late = "where event_time > (select max(event_time) from silver.stg_trades where silver_run <= {{ used }})"
    marked = changed("touched.sql", re.escape(new), late)
    tape = made.tape(tmp_path / "made.jsonl.gz", frames=100, seed=15)
    sides.load(*delivered(sides.bronze, tape, ["held back by hours"], 1, generation=20))
    marked.dbt("run", "--select", "stg_trades", "minute_prices", "rejected_trades", "ohlc_1m")
    assert any(re.match(r"gold.ohlc_1m: \d+ rows and \d+", line) for line in sides.differences())
