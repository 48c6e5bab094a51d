"""The trading calendar: the seed is its generator's and NYSE's, and the sessions of candles go by it."""

from __future__ import annotations

import csv
import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nyse
import pytest
from bronze import Bronze
from conftest import oracle
from refining import PROJECT, Refiner

SEED = PROJECT / "seeds" / "trading_calendar.csv"
INSTANTS = ("pre_open", "regular_open", "regular_close", "post_close")
HALF_DAY = "US,2026-11-27,2026-11-27T09:00:00+00:00,2026-11-27T14:30:00+00:00,2026-11-27T18:00:00+00:00,2026-11-27T22:00:00+00:00\n"


def check(seed: Path = SEED) -> subprocess.CompletedProcess[str]:
    """The generator's own check; it wants packages that are fetched once."""
    command = [sys.executable, str(PROJECT.parent / "scripts" / "calendar"), "--check", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode == 3 and os.environ.get("TICKMINT_REQUIRE_PARTS") != "1":
        pytest.skip(done.stderr.strip().splitlines()[-1])
    return done


def test_the_seed_is_what_the_generator_makes_and_reaches_ahead() -> None:
    done = check()
    assert done.returncode == 0, done.stderr


def test_the_check_would_see_another_day_and_an_early_end(tmp_path: Path) -> None:
    seed = tmp_path / "seed.csv"
    text = SEED.read_text()
    soon = datetime.date.today() + datetime.timedelta(days=50)
    head = [line for line in text.splitlines(keepends=True) if not line.startswith("US,") or line.split(",")[1] <= soon.isoformat()]
    for wrong, said in (
        (text.replace(HALF_DAY, HALF_DAY.replace("18:00", "21:00")), "1 days differ, the first of them 2026-11-27"),
        (text.replace(HALF_DAY, ""), "1 days differ, the first of them 2026-11-27"),
        (text.replace(HALF_DAY, HALF_DAY * 2), "is not what this script makes"),
        ("".join(head), "days from now (at least 60 are wanted)"),
    ):
        seed.write_text(wrong)
        done = check(seed)
        assert done.returncode == 1 and said in done.stderr, done.stderr


def differing(lines: list[str]) -> list[datetime.date]:
    """The dates from 2010 to the end of a calendar on which it is not NYSE's by rule."""
    there = {row["trading_date"]: [datetime.datetime.fromisoformat(row[name]) for name in INSTANTS] for row in csv.DictReader(lines)}
    wrong, date = [], datetime.date(2010, 1, 1)
    while date.isoformat() <= max(there):
        midnight = datetime.datetime(date.year, date.month, date.day, tzinfo=nyse.NEW_YORK)
        hours = [(midnight + datetime.timedelta(minutes=minute)).astimezone(datetime.UTC) for minute in nyse.hours(date) or ()]
        if there.get(date.isoformat(), []) != hours:
            wrong.append(date)
        date += nyse.DAY
    return wrong


def test_the_seed_is_what_the_rules_of_nyse_say() -> None:
    lines = SEED.read_text().splitlines(keepends=True)
    assert len(lines) > 4500
    assert differing(lines) == []
    assert differing([line for line in lines if line != HALF_DAY]) == [datetime.date(2026, 11, 27)]
    assert differing([line.replace("T13:30:00", "T14:30:00") if line.startswith("US,2026-07-01") else line for line in lines]) == [
        datetime.date(2026, 7, 1)
    ]


def test_the_days_of_the_unit_tests_are_of_the_seed() -> None:
    assert set((PROJECT / "tests" / "fixtures" / "trading_days.csv").read_text().splitlines()) < set(SEED.read_text().splitlines())


def add_days(bronze: Bronze) -> None:
    """A share each half hour and a coin each six: about both clock changes of 2026, and about Thanksgiving."""
    for first in ("2026-03-06", "2026-10-30", "2026-11-25"):
        begin = datetime.datetime.fromisoformat(first).replace(tzinfo=datetime.UTC)
        for half_hours in range(4 * 48):
            at = (begin + datetime.timedelta(minutes=30 * half_hours)).isoformat()
            bronze.add("trades", event_time=at)
            if half_hours % 12 == 0:
                bronze.add("trades", event_time=at, symbol="BINANCE:BTCUSDT")


def by_day(bars: dict[tuple, tuple]) -> dict[str, dict[str, int]]:
    """How many bars of the share each session has, by date of New York."""
    days: dict[str, dict[str, int]] = {}
    for symbol, session, minute in bars:
        if symbol == "AAPL":
            date = datetime.datetime.fromtimestamp(minute / 1000, nyse.NEW_YORK).date().isoformat()
            counts = days.setdefault(date, {})
            counts[session] = counts.get(session, 0) + 1
    return days


def wrong_minutes(bars: dict[tuple, tuple]) -> set[str]:
    return {
        f"{datetime.datetime.fromtimestamp(minute / 1000, datetime.UTC):%Y-%m-%d %H:%M}"
        for symbol, session, minute in bars
        if session != oracle.market_session(symbol, minute)
    }


def test_sessions_over_holiday_half_day_and_clock_changes(home: Path, bronze: Bronze) -> None:
    add_days(bronze)
    bronze.add("trades", event_time="2009-12-31 15:00:00+00", symbol="BINANCE:BTCUSDT")
    total = bronze.count("trades")
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, total - 1)])
        bars = refiner.bars()
    assert len(bars) == total
    assert wrong_minutes(bars) == set()
    days = by_day(bars)
    for day in ("2026-03-06", "2026-10-30", "2026-11-25"):
        assert days[day] == {"closed": 16, "pre": 11, "regular": 13, "post": 8}
    assert days["2026-11-26"] == {"closed": 48}
    assert days["2026-11-27"] == {"closed": 22, "pre": 11, "regular": 7, "post": 8}
    assert days["2026-03-08"] == {"closed": 46} and days["2026-11-01"] == {"closed": 50}, "a day of 23 hours, and one of 25"
    assert "warning" not in refiner.log.read_text()


def of_calendar(folder: Path, lines: list[str]) -> Path:
    """The project with another calendar."""
    project = Path(shutil.copytree(PROJECT, folder / "dbt"))
    (project / "seeds" / "trading_calendar.csv").write_text("".join(lines))
    return project


def test_another_calendar_is_seen_and_its_end_is_told(home: Path, tmp_path: Path, bronze: Bronze) -> None:
    """The comparison would see a half-day that is missing. A calendar that ends too soon says so in the log, and Gold goes on."""
    add_days(bronze)
    bronze.add("trades", event_time="2009-12-31 15:00:00+00")
    total = bronze.count("trades")
    until = (datetime.date.today() + datetime.timedelta(days=29)).isoformat()
    lines = SEED.read_text().splitlines(keepends=True)
    short = [line for line in lines if line != HALF_DAY and (not line.startswith("US,") or line.split(",")[1] < until)]
    with Refiner(home, project=of_calendar(tmp_path, short)) as refiner:
        refiner.refine([bronze.slot("trades", 0, total - 1)])
        half_day = {f"2026-11-27 {hour:02}:{minute}" for hour in range(9, 22) for minute in ("00", "30")}
        assert wrong_minutes(refiner.bars()) == half_day | {"2009-12-31 15:00"}
    said = refiner.log.read_text()
    assert "warning: calendar_reaches_ahead: the trading calendar ends in less than 30 days" in said
    assert "warning: calendar_covers_the_trades: some trades are of dates before or after the trading calendar" in said


def test_a_calendar_that_is_not_sound_stops_gold(home: Path, tmp_path: Path, bronze: Bronze) -> None:
    """Sessions that do not follow one another, an end beyond the trading date, a day that stands twice."""
    bronze.add("trades")
    lines = SEED.read_text().splitlines(keepends=True)
    lines = [line.replace("-06-30T20:00", "-06-30T13:00") for line in lines] + [lines[-1]]
    lines = [line.replace("-27T22:00", "-28T05:00") if line == HALF_DAY else line for line in lines]
    with Refiner(home, project=of_calendar(tmp_path, lines)) as refiner:
        answer = refiner.ask([bronze.slot("trades", 0, 0)])
    assert answer["event"] == "failed" and not answer["retryable"], answer
    assert "calendar_is_sound: Got" in answer["error"] and "unique_together_trading_calendar" in answer["error"], answer
