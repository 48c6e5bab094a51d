"""Recorded days through the real refiner, held against the oracle; the oracle against LEAN's own bars."""

from __future__ import annotations

import random
from pathlib import Path

import lean
import pytest
from bronze import Bronze
from conftest import LONG, RULES, assert_same, oracle
from refining import Refiner


STOCKS, CRYPTO = ("us-equity-20131007", 388_417), ("crypto-btcusdt-20240809", 19_904)


@pytest.mark.parametrize(
    ("name", "trades", "table"), [(*STOCKS, "cts_utp"), (*CRYPTO, "lean"), *([(*STOCKS, "lean"), (*CRYPTO, "cts_utp")] if LONG else [])]
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
