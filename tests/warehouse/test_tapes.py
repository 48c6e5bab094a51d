"""Recorded days through the real refiner, held against the oracle and against LEAN's own bars."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from bronze import Bronze
from conftest import HERE, assert_same
from refining import Refiner

COMPARE = HERE.parent / "oracle" / "compare.py"


@pytest.mark.parametrize("table", ["cts_utp", "lean"])
@pytest.mark.parametrize(("name", "trades"), [("us-equity-20131007", 388_417), ("crypto-btcusdt-20240809", 19_904)])
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
        assert refiner.audit()["streams"]["trades"] == {"rows": trades, "distinct": trades}
        assert_same(refiner.bars(), expected(tape, table))
        before = refiner.bars()
        refiner.refine([], full_refresh=True)
        assert refiner.audit()["streams"]["trades"] == {"rows": trades, "distinct": trades}
        assert refiner.bars() == before
        compared = [sys.executable, str(COMPARE), str(refiner.gold), str(tape), table]
        published = tape.with_name(f"{name}.bars.csv.gz")
        if table == "lean" and published.exists():
            compared.append(str(published))
        outcome = subprocess.run(compared, capture_output=True, text=True, check=False)
        print(outcome.stdout)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
