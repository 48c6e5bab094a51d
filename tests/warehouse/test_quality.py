"""data_quality: every record is in one row of it, outages are cut into hours, and it says that Gold stands still."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bronze import Bronze
from conftest import LONG
from refining import Refiner, audit_of

HOUR = timedelta(hours=1)
START = datetime(2026, 11, 23, 13, 30, tzinfo=UTC)
COUNTS = ("received", "silver", "rejected", "late", "time_suspect", "suspect_repeat")

Row = dict[str, Any]
Key = tuple[str, datetime]


def hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def quality(refiner: Refiner) -> dict[Key, Row]:
    """The table as it is published now, by (symbol, hour)."""
    files = refiner.manifest()["tables"]["data_quality"]["files"]
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        found = connection.execute("from read_parquet(?)", [[str(refiner.gold / file) for file in files]])
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    assert {row["source"] for row in rows} == {"finnhub"}
    by_key = {(row["symbol"], row["hour_start"]): row for row in rows}
    assert len(by_key) == len(rows) == refiner.manifest()["tables"]["data_quality"]["rows"]
    return by_key


def table(bronze: Bronze, stream: str) -> list[Row]:
    found = bronze.connection.execute(f"from {stream}")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def percentile(values: list[Fraction], share: Fraction) -> Fraction:
    """Interpolated, as SQL's percentile_cont."""
    values = sorted(values)
    place = (len(values) - 1) * share
    low = values[place.__floor__()]
    return low + (values[place.__ceil__()] - low) * (place - place.__floor__())


def milliseconds(length: timedelta) -> Fraction:
    return Fraction(length // timedelta(microseconds=1), 1000)


def is_good(trade: Row) -> bool:
    return trade["price"] > 0 and trade["symbol"] != ""


def of_trades(trades: list[Row]) -> dict[Key, Row]:
    """What the table must say of these trades, counted here."""
    placed: dict[Key, list[Row]] = defaultdict(list)
    for trade in trades:
        placed[trade["symbol"], hour(trade["received_at"])].append(trade)
    rows = {}
    for key, there in placed.items():
        good = [trade for trade in there if is_good(trade)]
        lags = [milliseconds(trade["received_at"] - trade["event_time"]) for trade in good]
        minute_over = [trade["event_time"].replace(second=0, microsecond=0) + timedelta(seconds=65) for trade in good]
        rows[key] = {
            "received": len(there),
            "silver": len(good),
            "rejected": len(there) - len(good),
            "late": sum(trade["received_at"] >= over for trade, over in zip(good, minute_over, strict=True)),
            "time_suspect": sum(trade["time_suspect"] for trade in good),
            "suspect_repeat": sum(trade["frame_repeat"] for trade in good),
            "last_received_at": max(trade["received_at"] for trade in there),
            "last_event_time": max((trade["event_time"] for trade in good if not trade["time_suspect"]), default=None),
            "lag_max_ms": max(lags, default=None),
            **{f"lag_p{n}_ms": percentile(lags, Fraction(n, 100)) if lags else None for n in (50, 95, 99)},
        }
    return rows


def gap_seconds(gaps: list[Row]) -> dict[Key, Fraction]:
    """Seconds without feed, counted second by second: the gaps of these tests begin and end at whole ones."""
    seconds: dict[Key, set[int]] = defaultdict(set)
    for gap in gaps:
        if gap["kind"] != "gap" or not gap["last_received_at"] or not gap["first_received_at"]:
            continue
        for symbol in gap["symbols"].split(","):
            for second in range(int(gap["last_received_at"].timestamp()), int(gap["first_received_at"].timestamp())):
                seconds[symbol, hour(datetime.fromtimestamp(second, UTC))].add(second)
    return {key: Fraction(len(found)) for key, found in seconds.items()}


def assert_same(found: dict[Key, Row], bronze: Bronze, upto: dict[str, int]) -> None:
    """Every row, every figure, for the first so many records of each stream."""
    trades, gaps, quarantine = (table(bronze, stream)[: upto[stream]] for stream in ("trades", "gaps", "quarantine"))
    wanted, without = of_trades(trades), gap_seconds(gaps)
    quarantined: dict[datetime, int] = defaultdict(int)
    for record in quarantine:
        quarantined[hour(record["received_at"])] += 1
    archived = {row["hour_start"]: row["archived"] for (symbol, _), row in found.items() if symbol == "" and row["archived"]}
    places = wanted.keys() | without.keys() | {("", at) for at in [*quarantined, *archived]}
    assert found.keys() == places
    for key, row in found.items():
        expected = wanted.get(key, dict.fromkeys(COUNTS, 0))
        for name in COUNTS:
            assert row[name] == expected[name], (key, name)
        for name in ("last_received_at", "last_event_time"):
            assert row[name] == expected.get(name), (key, name)
        for name in ("lag_p50_ms", "lag_p95_ms", "lag_p99_ms", "lag_max_ms"):
            lag = expected.get(name)
            assert row[name] == (None if lag is None else pytest.approx(float(lag), rel=1e-12, abs=1e-9)), (key, name)
        assert row["gap_seconds"] == without.get(key, 0), key
        assert row["quarantined"] == (quarantined.get(key[1], 0) if key[0] == "" else None), key
        assert (row["archived"] is None) == (key[0] != ""), key
        assert row["gold_failing_since"] is row["gold_failing_reason"] is None
    assert sum(archived.values()) == len(trades), "all lie in the slots of one archive hour, each once"


def fill(bronze: Bronze, chance: random.Random) -> None:
    """Trades of three symbols over four hours, some late, suspect, repeated or to be rejected, and outages that overlap."""
    for _ in range(400):
        at = START + timedelta(seconds=chance.randrange(4 * 3600), microseconds=chance.randrange(10**6))
        lag = chance.choice([timedelta(milliseconds=20), timedelta(microseconds=chance.randrange(10**8)), timedelta(minutes=90), timedelta(seconds=-1)])
        bronze.add(
            "trades", received_at=at, event_time=at - lag, symbol=chance.choice(["AAPL", "MSFT", "BINANCE:BTCUSDT", ""]),
            price=chance.choice(["100", "101.5", "0"]), time_suspect=chance.random() < 0.1, frame_repeat=chance.random() < 0.1,
        )  # fmt: skip
    for number in range(12):
        begin = START + timedelta(seconds=chance.randrange(4 * 3600))
        end = begin + timedelta(seconds=chance.choice([0, -30, chance.randrange(600), chance.randrange(3 * 3600)]))
        symbols = chance.choice(["AAPL,MSFT", "MSFT", "BINANCE:BTCUSDT,NEVER", "NEVER"])
        until = None if number == 3 else end
        bronze.add("gaps", symbols=symbols, last_received_at=begin, first_received_at=until, received_at=end)
        bronze.add("gaps", kind="session_end", frames=number, received_at=end)
    for _ in range(20):
        bronze.add("quarantine", received_at=START + timedelta(seconds=chance.randrange(4 * 3600)))


@pytest.mark.parametrize("seed", range(2 if LONG else 1))
def test_each_run_gives_the_counts_of_all_that_came(home: Path, bronze: Bronze, seed: int) -> None:
    """Trades, gaps and quarantine in runs of their own and together, against a count in Python; and all of it made anew."""
    chance = random.Random(f"quality {seed}")
    fill(bronze, chance)
    waiting = {"trades": bronze.cut("trades", 4), "gaps": bronze.cut("gaps", 3), "quarantine": bronze.cut("quarantine", 2)}
    order = [stream for stream, slots in waiting.items() for _ in slots]
    chance.shuffle(order)
    taken = {"trades": 0, "gaps": 0, "quarantine": 0}
    with Refiner(home) as refiner:
        for stream in order:
            slot = waiting[stream].pop(0)
            taken[stream] += slot["rows"]
            run = refiner.refine([slot])["run"]
            assert refiner.manifest()["run"] == run
            assert_same(quality(refiner), bronze, taken)
        found = quality(refiner)
        assert {key[0] for key in found} == {"AAPL", "MSFT", "BINANCE:BTCUSDT", "NEVER", ""}
        refiner.refine([], full_refresh=True)  # with all data tests
        assert quality(refiner) == found
    assert audit_of(home)["gold"]["faults"] == []


def test_a_verdict_that_is_taken_back_counts_in_the_hour_of_its_trade(home: Path, bronze: Bronze) -> None:
    """Late trades move the reference of the price band, hours after the trade that it is about was received."""
    for minute, price in ((0, "100"), (5, "300")):
        at = START + timedelta(minutes=minute)
        bronze.add("trades", event_time=at, received_at=at, price=price)
    for minute in range(1, 5):
        bronze.add("trades", event_time=START + timedelta(minutes=minute), received_at=START + 3 * HOUR, price="300")
    first, later = ("AAPL", hour(START)), ("AAPL", hour(START) + 3 * HOUR)
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 1)])
        assert [quality(refiner)[first][name] for name in COUNTS[:3]] == [2, 1, 1]
        refiner.refine([bronze.slot("trades", 2, 5)])
        found = quality(refiner)
        assert [found[first][name] for name in COUNTS[:3]] == [2, 2, 0]
        assert [found[later][name] for name in COUNTS[:3]] == [4, 2, 2]
        refiner.refine([], full_refresh=True)
        assert quality(refiner) == found


def test_slots_that_overlap_or_cannot_be_read_stand_in_archived(home: Path, bronze: Bronze) -> None:
    for _ in range(20):
        bronze.add("trades", received_at="2026-11-23 20:00:30+00")
    first, second, again = bronze.slot("trades", 0, 9), bronze.slot("trades", 10, 19), bronze.slot("trades", 0, 4, generation=2)
    key, whole = ("AAPL", datetime(2026, 11, 23, 20, tzinfo=UTC)), ("", datetime(2026, 11, 23, 20, tzinfo=UTC))
    content = Path(second["typed"]).read_bytes()
    Path(second["typed"]).unlink()
    with Refiner(home) as refiner:
        assert refiner.refine([first, again, second])["unread"]["slots"] == 1
        found = quality(refiner)
        assert (found[key]["received"], found[whole]["archived"]) == (10, 25)
        Path(second["typed"]).write_bytes(content)
        assert refiner.refine([])["unread"] is None
        found = quality(refiner)
        assert (found[key]["received"], found[whole]["archived"]) == (20, 25)


def test_it_says_since_when_and_why_gold_stands_still_and_goes_on_itself(home: Path, bronze: Bronze, project: Path) -> None:
    for _ in range(30):
        bronze.add("trades")
    model = project / "models/gold/ohlc_5m.sql"
    good = model.read_text()
    with Refiner(home, project=project) as refiner:
        refiner.refine([bronze.slot("trades", 0, 9)])
        model.write_text("select no_such")
    key = ("AAPL", datetime(2026, 11, 23, 15, tzinfo=UTC))
    since = datetime(2026, 11, 23, 15, 59, 59, tzinfo=UTC)
    told = {"since": since.isoformat(), "rounds": 1, "phase": "gold", "error": "it hung"}
    with Refiner(home, project=project) as refiner:
        before = refiner.manifest()
        failing = refiner.ask([bronze.slot("trades", 10, 19)], failing=told)["failing"]
        first = quality(refiner)
        assert_only_quality_is_new(refiner, before)
        assert first[key]["received"] == 20, "Silver goes on, and so does this table"
        hours = [row for (symbol, _), row in first.items() if symbol == "" and row["gold_failing_since"]]
        assert {(row["gold_failing_since"], row["gold_failing_reason"]) for row in hours} == {(since, f"gold: {failing['error']}")}
        assert "no_such" in failing["error"]
        assert sorted(row["hour_start"] for row in hours)[0] == hour(since)
        assert len(hours) == (hour(datetime.now(UTC)) - hour(since)) // HOUR + 1, "each hour since"
        assert not any(row["gold_failing_since"] for row in first.values() if row not in hours)
        second = refiner.ask([bronze.slot("trades", 20, 29)])["failing"]
        assert (second["since"], quality(refiner)[key]["received"]) == (failing["since"], 30)
        assert_only_quality_is_new(refiner, before)
        assert refiner.manifest()["replaced"].keys() > before.get("replaced", {}).keys(), "readers may be at the files of before"
        refiner.kill()
    model.write_text(good)
    with Refiner(home, project=project) as refiner:
        refiner.refine([])
        after = quality(refiner)
        assert not any(row["gold_failing_since"] or row["gold_failing_reason"] for row in after.values())
        assert (after.keys(), after[key]["received"]) == ({key, ("", key[1] + 5 * HOUR)}, 30), "an hour without anything has no row"
        refiner.refine([], full_refresh=True)
        assert quality(refiner) == after
    assert audit_of(home)["gold"] == {"bars": 1, "faults": [], "notes": []}


def assert_only_quality_is_new(refiner: Refiner, before: dict[str, Any]) -> None:
    manifest = refiner.manifest()
    changing = ("failing", "replaced", "tables")
    assert {name: value for name, value in manifest.items() if name not in changing} == {name: value for name, value in before.items() if name not in changing}
    tables = manifest["tables"] | {"data_quality": None}
    assert tables == before["tables"] | {"data_quality": None}
    assert manifest["tables"]["data_quality"] != before["tables"]["data_quality"]


def test_if_it_is_itself_what_fails_the_manifest_alone_says_so(home: Path, bronze: Bronze, project: Path) -> None:
    for _ in range(20):
        bronze.add("trades")
    with Refiner(home, project=project) as refiner:
        refiner.refine([bronze.slot("trades", 0, 9)])
        (project / "models/gold/data_quality.sql").write_text("select no_such")
    with Refiner(home, project=project) as refiner:
        before = refiner.manifest()
        refiner.ask([bronze.slot("trades", 10, 19)])
        assert refiner.manifest() == before | {"failing": refiner.manifest()["failing"]}
        assert "data_quality" in refiner.manifest()["failing"]["error"]
        assert "cannot say that Gold stands still" in refiner.log.read_text()
        refiner.kill()
    with Refiner(home) as refiner:
        refiner.refine([])
        assert quality(refiner)["AAPL", datetime(2026, 11, 23, 15, tzinfo=UTC)]["received"] == 20


@pytest.mark.parametrize(
    ("old", "new"),
    [("count(case when is_good then 1 end) as silver", "count(distinct case when is_good then event_time end) as silver"), ("sum(s.\"rows\") as archived", "max(s.\"rows\") as archived")],
)
def test_the_test_of_the_sums_would_see_a_wrong_count(home: Path, bronze: Bronze, project: Path, old: str, new: str) -> None:
    for _ in range(20):
        bronze.add("trades")
    model = project / "models/gold/data_quality.sql"
    text = model.read_text()
    assert text.count(old) == 1
    model.write_text(text.replace(old, new))
    with Refiner(home, project=project) as refiner:
        failed = refiner.ask(bronze.cut("trades", 2), full_refresh=True)
        assert (failed["event"], failed["phase"], failed["retryable"]) == ("failed", "test", False)
        assert "quality_adds_up" in failed["error"]
