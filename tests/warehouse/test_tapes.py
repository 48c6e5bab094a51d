"""Recorded days through the real refiner, held against the oracle; the oracle against LEAN's own bars."""

from __future__ import annotations

import random
from pathlib import Path

import lean
import pytest
from bronze import Bronze
from conftest import LONG, RULES, assert_same, oracle
from refining import Refiner


STOCKS, BUSY, CRYPTO = ("us-equity-20131007", 388_417), ("us-equity-20131008", 654_140), ("crypto-btcusdt-20240809", 19_904)


@pytest.mark.parametrize(
    ("name", "trades", "table"), [(*STOCKS, "cts_utp"), (*CRYPTO, "lean"), *([(*STOCKS, "lean"), (*BUSY, "cts_utp"), (*CRYPTO, "cts_utp")] if LONG else [])]
)
def test_a_recorded_day(home: Path, bronze: Bronze, real_tape, expected, name: str, trades: int, table: str) -> None:
    """In 40 slots, shuffled, so that most trades come late; then some again; then all anew."""
    tape = real_tape(name)
    assert bronze.add_tape(tape) == trades
    slots = bronze.cut("trades", 40)
    random.Random(3).shuffle(slots)
    with Refiner(home, sale_conditions=table) as refiner:
        for n in range(0, 40, 8):
            refiner.refine(slots[n : n + 8])
        again = bronze.slot("trades", 1000, 5999, generation=2)
        assert refiner.refine([again])["rows"]["silver.trades"] == trades
        assert refiner.audit()["streams"]["trades"] == {"rows": trades, "distinct": trades, "kept": trades}
        assert_same(refiner.bars(), expected(tape, table))
        before = refiner.bars()
        refiner.refine([], full_refresh=True)
        assert refiner.audit()["streams"]["trades"] == {"rows": trades, "distinct": trades, "kept": trades}
        assert refiner.bars() == before


def test_no_trade_of_a_busy_day_is_merged_with_its_like(home: Path, bronze: Bronze, real_tape) -> None:
    """Many trades of a frame are equal in time, price and size. Here the day comes at once, and then some of it again."""
    name, trades = BUSY
    assert bronze.add_tape(real_tape(name)) == trades
    (equal,) = bronze.connection.execute(
        "select count(*) - count(distinct (symbol, price, size, event_time, conditions)) from trades"
    ).fetchone()
    assert equal > 10_000
    with Refiner(home) as refiner:
        done = refiner.refine([*bronze.cut("trades", 3), bronze.slot("trades", 1000, 5999, generation=2)])
        assert done["rows"]["silver.trades"] == trades
        assert refiner.audit()["streams"]["trades"] == {"rows": trades, "distinct": trades, "kept": trades}


@pytest.mark.parametrize(("day", "share"), [("20131007", 0.9935), ("20131008", 0.9942)])
def test_the_rule_meets_leans_own_bars(real_tape, capsys: pytest.CaptureFixture[str], day: str, share: float) -> None:
    """The rule was found on the first of the days; the second one judges it."""
    tape = real_tape(f"us-equity-{day}")
    published = tape.with_name(f"us-equity-{day}.bars.csv.gz")
    assert lean.compare(oracle.bars(str(tape), RULES["lean"]), tape, published) >= share
    said = capsys.readouterr().out
    print(said)
    assert "NOT EXPLAINED" not in said
    assert "not found" not in said


def test_the_comparison_with_lean_would_see_another_rule(real_tape) -> None:
    tape = real_tape("us-equity-20131007")
    published = tape.with_name("us-equity-20131007.bars.csv.gz")

    def regular_only(codes: list[str] | None, session: str) -> tuple[bool, bool, bool]:
        price, _, volume = RULES["lean"](codes, session)
        return price and "15" not in (codes or []), price and "15" not in (codes or []), volume

    assert lean.compare(oracle.bars(str(tape), regular_only), tape, published) < lean.LEAST
    assert lean.compare(oracle.bars(str(tape), RULES["cts_utp"]), tape, published) < 0.8
