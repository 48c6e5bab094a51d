"""The rules of Silver: each bites, the seed decides, and the price band does not know in which order trades came.

What the band says is computed here once more, from all trades at once.
"""

from __future__ import annotations

import csv
import random
import shutil
import signal
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bronze import SESSION, Bronze
from conftest import FIELDS, HERE, LONG
from refining import PROJECT, Refiner, audit_of

BEGIN = datetime(2026, 11, 23, 15, tzinfo=UTC)
MINUTES, HOURS = 5, 6


@dataclass(frozen=True)
class Trade:
    frame: int
    symbol: str
    at: datetime
    price: Decimal

    @property
    def minute(self) -> datetime:
        return self.at.replace(second=0, microsecond=0)


def out_of_band(trades: list[Trade], band: str = "0.5") -> set[int]:
    """The frames of the trades whose price is too far from its reference."""
    prices: dict[str, dict[datetime, list[Decimal]]] = defaultdict(lambda: defaultdict(list))
    for trade in trades:
        prices[trade.symbol][trade.minute].append(trade.price)
    medians = {symbol: {minute: median(those) for minute, those in minutes.items()} for symbol, minutes in prices.items()}
    factor, bad = 1 + Decimal(band), set()
    for trade in trades:
        earlier = [minute for minute in medians[trade.symbol] if trade.minute - timedelta(hours=HOURS) <= minute < trade.minute]
        if not earlier:
            continue
        reference = median([medians[trade.symbol][minute] for minute in sorted(earlier)[-MINUTES:]])
        if trade.price > reference * factor or trade.price * factor < reference:
            bad.add(trade.frame)
    return bad


def median(values: list[Decimal]) -> Decimal:
    """The lower one of two."""
    return sorted(values)[(len(values) - 1) // 2]


def bars_of(trades: list[Trade]) -> dict[tuple, tuple]:
    """The bars of trades of one unit each that all move everything."""
    minutes: dict[tuple, list[Trade]] = defaultdict(list)
    for trade in sorted(trades, key=lambda trade: (trade.at, trade.frame)):
        minutes[trade.symbol, "continuous", int(trade.minute.timestamp() * 1000)].append(trade)
    return {
        key: (those[0].price, max(t.price for t in those), min(t.price for t in those), those[-1].price)
        + (Decimal(len(those)), sum(t.price for t in those), len(those))
        for key, those in minutes.items()
    }


def assert_judged(refiner: Refiner, trades: list[Trade]) -> set[int]:
    """The bars are those of what is good of these trades, and of nothing else. Returns what is bad."""
    bad = out_of_band(trades)
    found = {key: bar[:FIELDS] for key, bar in refiner.bars().items()}
    wanted = bars_of([trade for trade in trades if trade.frame not in bad])
    assert found == wanted, f"{len(set(found.items()) ^ set(wanted.items()))} bars differ"
    return bad


def add(bronze: Bronze, trades: list[Trade]) -> None:
    bronze.connection.executemany(
        f"insert into trades select '{SESSION}', $1, 0, $1, $2, 'finnhub', $3, $4, 1, $5, $5::timestamptz + interval '20 ms', "
        "null, false, false, false",
        [[trade.frame, place, trade.symbol, trade.price, trade.at] for place, trade in enumerate(trades, bronze.count("trades"))],
    )


def tape(*prices: tuple[float, str], begin: int = 1, symbol: str = "X:A") -> list[Trade]:
    """Trades at so many minutes after the beginning."""
    return [
        Trade(begin + number, symbol, BEGIN + timedelta(minutes=minute), Decimal(price)) for number, (minute, price) in enumerate(prices)
    ]


def rows(refiner: Refiner, query: str) -> list[tuple[Any, ...]]:
    """Asks the file after the process has ended."""
    with duckdb.connect(str(refiner.db), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        return connection.execute(query).fetchall()


def verdicts(refiner: Refiner) -> dict[int, str]:
    return dict(rows(refiner, "select frame, rule from silver.rejected_trades order by frame"))


def changed(folder: Path, *, variables: dict[str, str] | None = None, **rules: dict[str, str] | None) -> Path:
    """A copy of the project with other rules: `rule={column: value}`, None to leave its row out."""
    project = folder / "dbt"
    if not project.exists():
        shutil.copytree(PROJECT, project)
    seed = project / "seeds" / "trade_rules.csv"
    with (PROJECT / "seeds" / "trade_rules.csv").open() as file:
        reader = csv.DictReader(file)
        table = {row["rule"]: row for row in reader}
    for rule, values in rules.items():
        if values is None:
            del table[rule]
        else:
            assert values.keys() <= set(reader.fieldnames)
            table.setdefault(rule, dict.fromkeys(reader.fieldnames, "") | {"rule": rule, "priority": "1"}).update(values)
    with seed.open("w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())
    text = (PROJECT / "dbt_project.yml").read_text()
    for name, value in (variables or {}).items():
        assert f"  {name}: " in text
        text = "\n".join(f"  {name}: {value}" if line.startswith(f"  {name}: ") else line for line in text.splitlines()) + "\n"
    (project / "dbt_project.yml").write_text(text)
    return project


def test_the_seed_decides_and_a_change_of_it_judges_all_trades_anew(home: Path, bronze: Bronze, tmp_path: Path) -> None:
    minute = "2026-11-23 15:0{}:00+00"
    usual = {"symbol": "X:A", "size": "10", "event_time": minute.format(0)}
    trades = [
        {}, {"price": "5"}, {"size": "0.5"}, {"price": "1000", "size": "100"}, {"event_time": "2020-01-01 00:00:00+00"}, {"symbol": "X:B"},
        {"price": "0", "size": "0", "price_update": True}, {"event_time": minute.format(1), "price": "149"},
        {"event_time": minute.format(1), "price": "151"}, {"event_time": minute.format(1), "price": "66"},
        {"price": "5", "size": "0.5"},
    ]  # fmt: skip
    for values in trades:
        bronze.add("trades", **usual | values)
    slot = bronze.slot("trades", 0, len(trades) - 1)
    with Refiner(home) as refiner:
        refiner.refine([slot])
        before = refiner.bars()
    at_first = {9: "price_out_of_band", 10: "price_out_of_band"}
    assert verdicts(refiner) == at_first

    stricter = changed(
        tmp_path, variables={"known_symbols": "['X:A', 'X:C']"}, price_not_positive={"low": "5"}, size_negative={"low": "1", "priority": "65"},
        amount_out_of_range={"high": "1e5"}, time_out_of_range={"low": "2020-01-02"}, price_out_of_band={"high": "0.6"},
    )  # fmt: skip
    with Refiner(home, project=stricter) as refiner:
        assert refiner.refine([])["rows"]["silver.rejected_trades"] == 6
        assert refiner.bars() != before
        assert refiner.audit()["streams"]["trades"]["kept"] == len(trades)
    assert verdicts(refiner) == {
        2: "price_not_positive", 3: "size_negative", 4: "amount_out_of_range", 5: "time_out_of_range", 6: "symbol_unknown",
        11: "size_negative",
    }  # fmt: skip

    off = changed(tmp_path, price_out_of_band={"enabled": "false"})
    with Refiner(home, project=off) as refiner:
        refiner.refine([])
        assert sum(bar[6] for bar in refiner.bars().values()) == len(trades) - 1
    assert verdicts(refiner) == {}

    with Refiner(home) as refiner:
        refiner.refine([])
        assert refiner.bars() == before
    assert verdicts(refiner) == at_first
    assert audit_of(home)["gold"]["faults"] == []


def test_what_the_warehouse_cannot_hold_is_rejected_whatever_the_seed_says(home: Path, bronze: Bronze, tmp_path: Path) -> None:
    from test_silver import REJECTED

    for values in REJECTED.values():
        bronze.add("trades", **values)
    total = bronze.count("trades")
    slot = bronze.slot("trades", 0, total - 1)
    off = changed(tmp_path, **{rule: {"enabled": "false"} for rule in [*REJECTED, "symbol_unknown", "price_out_of_band"]})
    with Refiner(home, project=off) as refiner:
        refiner.refine([slot])
    assert list(verdicts(refiner).values()) == list(REJECTED)
    wide = changed(tmp_path, time_out_of_range={"low": "0001-01-01", "high": "9999-12-31"}, amount_out_of_range={"high": "1e16"})
    with Refiner(home, project=wide) as refiner:
        assert refiner.refine([])["rows"]["silver.trades"] == 0


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"price_out_of_band": {"high": "half"}}, "high of price_out_of_band is 'half', must be a number"),
        ({"time_out_of_range": {"low": "1.1.1970"}}, "low of time_out_of_range is '1.1.1970', must be a date"),
        ({"size_missing": None}, "it must have each of"),
        ({"price_odd": {"enabled": "true"}}, "and no other"),
    ],
)
def test_a_seed_that_makes_no_sense_is_told_with_the_place(home: Path, bronze: Bronze, tmp_path: Path, rules: dict[str, Any], said: str) -> None:
    bronze.add("trades")
    with Refiner(home, project=changed(tmp_path, **rules)) as refiner:
        failed = refiner.ask([bronze.slot("trades", 0, 0)])
        assert failed["event"] == "failed"
        assert "seed trade_rules: " in failed["error"]
        assert said in failed["error"]


def test_the_flags_tell_how_late_and_how_far(home: Path, bronze: Bronze) -> None:
    """Seconds to the microsecond; the clock of the feed may run ahead."""
    for received, suspect in (("15:00:59.999999", False), ("15:01:04.999999", False), ("15:01:05", False), ("16:30:00.25", True), ("14:59:00", True)):
        at = {"event_time": "2026-11-23 15:00:10.001+00", "received_at": f"2026-11-23 {received}+00"}
        bronze.add("trades", **at, time_suspect=suspect, frame_repeat=suspect)
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 4)])
    found = rows(refiner, "select lag_seconds, late, late_seconds, time_suspect, suspect_repeat from silver.trades order by frame")
    assert found == [
        (Decimal("49.998999"), False, None, False, False), (Decimal("54.998999"), False, None, False, False),
        (Decimal("54.999000"), True, Decimal("5.000000"), False, False), (Decimal("5390.249000"), True, Decimal("5340.250000"), True, True),
        (Decimal("-70.001000"), False, None, True, True),
    ]  # fmt: skip


def test_a_late_trade_takes_verdicts_back_and_makes_others(home: Path, bronze: Bronze) -> None:
    """500 looks bad after three minutes about 100, until the minutes between are there; then the last 100 does."""
    first = tape((0, "100"), (1, "101"), (2, "102"), (9, "500"), (9.5, "102"), (10, "501"))
    late = tape((4, "400"), (5, "450"), (6, "480"), (7, "490"), begin=10)
    night = tape((10 + 60 * HOURS + 1, "9000"), (10 + 60 * HOURS + 2, "100"), begin=20)
    add(bronze, first + late + night)
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 5)])
        assert assert_judged(refiner, first) == {4, 6}
        before = refiner.bars()
        refiner.refine([bronze.slot("trades", 6, 9)])
        assert assert_judged(refiner, first + late) == {5, 10, 11, 12}
        changes = {key[2] for key, bar in refiner.bars().items() if before.get(key) != bar}
        assert {datetime.fromtimestamp(at / 1000, UTC).minute for at in changes} == {7, 9, 10}
        refiner.refine([bronze.slot("trades", 10, 11)])
        bad = assert_judged(refiner, first + late + night)
        assert bad == {5, 10, 11, 12, 21}, "after a night there is no reference"
        refiner.refine([], full_refresh=True)
        assert assert_judged(refiner, first + late + night) == bad
    assert verdicts(refiner) == dict.fromkeys(sorted(bad), "price_out_of_band")
    assert audit_of(home)["gold"]["faults"] == []


def test_a_price_update_is_not_judged_and_judges_nothing(home: Path, bronze: Bronze) -> None:
    for minute, price, update in ((0, "100", False), (1, "900", True), (2, "900", True), (3, "100", False), (3, "900", True)):
        bronze.add("trades", event_time=f"2026-11-23 15:0{minute}:00+00", price=price, size="0" if update else "1", price_update=update)
    with Refiner(home) as refiner:
        assert refiner.refine([bronze.slot("trades", 0, 4)])["rows"]["silver.rejected_trades"] == 0


def market(chance: random.Random, frames: int) -> list[Trade]:
    """Random walks with bad prints, jumps that stay, quiet hours and nights, in no order at all."""
    trades = []
    for symbol in ("X:A", "X:B", "X:C"):
        at, price = BEGIN, Decimal(chance.randint(10, 1000))
        while len(trades) < frames * (1 + "ABC".index(symbol[-1])) // 3:
            at += timedelta(seconds=chance.choice([5, 30, 60, 90, 300, 3600 * chance.choice([1, 5, 6, 7])] if chance.random() < 0.1 else [1, 20, 40]))
            price = (price * Decimal(chance.choice(["0.5", "1.9"] if chance.random() < 0.03 else ["0.99", "1.01"]))).quantize(Decimal("1e-8"))
            printed = (price * Decimal(chance.choice(["0.1", "0.6", "1.6", "30"]))).quantize(Decimal("1e-8")) if chance.random() < 0.1 else price
            trades.append(Trade(len(trades) + 1, symbol, at, printed))
    chance.shuffle(trades)
    return trades


def deliver(refiner: Refiner, bronze: Bronze, chance: random.Random, trades: list[Trade]) -> set[int]:
    """In runs of any size, held against what must come out after each of them."""
    add(bronze, trades)
    done, seen = 0, []
    while done < len(trades):
        number = min(chance.randint(1, max(2, len(trades) // 4)), len(trades) - done)
        refiner.refine([bronze.slot("trades", done, done + number - 1)])
        done += number
        seen.append(assert_judged(refiner, trades[:done]))
    assert any(before - after for before, after in zip(seen, seen[1:], strict=False)), "no verdict was ever taken back: a weak test"
    return seen[-1]


@pytest.mark.parametrize("seed", range(3 if LONG else 1))
def test_any_order_in_any_runs_gives_the_same_verdicts(home: Path, bronze: Bronze, seed: int) -> None:
    chance = random.Random(f"band {seed}")
    trades = market(chance, chance.randint(100, 600))
    with Refiner(home) as refiner:
        bad = deliver(refiner, bronze, chance, trades)
        bars = refiner.bars()
        refiner.refine([], full_refresh=True)
        assert refiner.bars() == bars
    assert verdicts(refiner) == dict.fromkeys(sorted(bad), "price_out_of_band")
    assert len(bad) > 5
    assert audit_of(home)["gold"]["faults"] == []


@pytest.mark.parametrize(
    ("file", "text", "wrong"),
    [
        # A trade is judged when it comes, by what has come before: no verdict ever changes.
        ("macros/verdicts.sql", "place + {{ n }} as place", "place + {{ 0 * n }} as place"),
        # Verdicts change, and the bars are not told.
        ("macros/touched.sql", "select symbol, source, bucket_start from bronze.verdicts_changed where run >", "select symbol, source, bucket_start from bronze.verdicts_changed where run < 0 and run >"),
        # Verdicts are made, and never taken back.
        ("macros/verdicts.sql", '"delete " ~ gone', '"delete " ~ gone ~ " and false"'),
    ],
)  # fmt: skip
def test_the_check_would_see(home: Path, bronze: Bronze, tmp_path: Path, file: str, text: str, wrong: str) -> None:
    project = Path(shutil.copytree(PROJECT, tmp_path / "dbt"))
    assert text in (project / file).read_text(), f"{file} has changed: mend this control"
    (project / file).write_text((project / file).read_text().replace(text, wrong))
    chance = random.Random("control")
    refiner = Refiner(home, project=project)
    try:
        with pytest.raises(AssertionError, match="bars differ|rows_add_up"):
            deliver(refiner, bronze, chance, market(chance, 300))
    finally:
        refiner.kill()


POINTS = ("trades_committed", "prices_committed", "verdicts_written", "verdicts_committed", "gold_written", "days_published")
if not LONG:
    POINTS = ("prices_committed", "verdicts_committed")


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(home: Path, bronze: Bronze, point: str) -> None:
    """The next run takes up what was not judged, with nothing new in its hands, and with more."""
    first = tape((0, "100"), (1, "101"), (2, "102"), (3, "500"))
    late = tape((2.5, "480"), (2.6, "490"), (1.5, "470"), (1.6, "480"), begin=10)
    more = tape((4, "100"), (0.1, "450"), (0.2, "450"), begin=20)
    add(bronze, first + late + more)
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 3)])
        assert assert_judged(refiner, first) == {4}
    dying = Refiner(home, program=[str(HERE / "dying.py"), point])
    dying.send(cmd="refine", slots=[bronze.slot("trades", 4, 7)])
    assert dying.child.wait(120) == -signal.SIGKILL, f"{point} was not reached: {dying.log.read_text()[-2000:]}"
    dying.kill()
    assert_judged(dying, first)
    with Refiner(home) as refiner:
        refiner.refine([])
        assert 4 not in assert_judged(refiner, first + late)
        refiner.refine([bronze.slot("trades", 8, 10)])
        bad = assert_judged(refiner, first + late + more)
    assert set(verdicts(refiner)) == bad
    assert audit_of(home)["gold"]["faults"] == []


def test_what_nobody_should_send_stops_nothing(home: Path, bronze: Bronze) -> None:
    """Not in the first load, nor in a later one, nor where all is made anew."""
    for _ in range(2):
        bronze.add("trades")
        bronze.add("trades", symbol=None)
        bronze.add("trades", price="-1")
        bronze.add("trades", event_time=None)
        bronze.add("trades", event_time="0001-01-01 00:00:00+00")
        bronze.add("trades", conditions="the least time")
    # No difference of this one and another can be taken.
    bronze.connection.execute("update trades set event_time = make_timestamptz(-9223372022399999999) where conditions = 'the least time'")
    with Refiner(home) as refiner:
        for slot in bronze.cut("trades", 2):
            rows = refiner.refine([slot])["rows"]
        assert (rows["silver.trades"], rows["silver.rejected_trades"]) == (2, 10)
        assert refiner.refine([], full_refresh=True)["rows"] == rows
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        rules = dict(connection.execute("select rule, count(*) from silver.rejected_trades group by rule").fetchall())
    assert rules == {"symbol_missing": 2, "price_not_positive": 2, "time_missing": 2, "time_out_of_range": 4}
