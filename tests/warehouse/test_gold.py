"""Candles: a bar is a merge of its trades in any order, and dbt's own unit tests of the model."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import made
import pytest
from bronze import SESSION, Bronze
from conftest import LONG, RULES, assert_same, oracle
from refining import PROJECT, Refiner, audit_of

SEEDS = range(4 if LONG else 1)


def expected_of(tape: Path, table: str = "cts_utp") -> dict[tuple, tuple]:
    return {key: tuple(bar) for key, bar in oracle.bars(str(tape), RULES[table]).items()}


def split(chance: random.Random, bronze: Bronze, total: int) -> list[list[dict[str, Any]]]:
    """Everything once in slots of any size, some of it again in slots of another generation, in any order,
    in any number of runs."""
    cuts = sorted(chance.sample(range(1, total), chance.randint(3, 24)))
    slots = [bronze.slot("trades", a, b - 1) for a, b in zip([0, *cuts], [*cuts, total], strict=True)]
    for generation in range(2, chance.randint(2, 5)):
        start = chance.randrange(total)
        slots.append(bronze.slot("trades", start, chance.randrange(start, total), generation=generation))
    chance.shuffle(slots)
    runs: list[list[dict[str, Any]]] = []
    while slots:
        number = chance.randint(1, len(slots))
        runs.append(slots[:number])
        del slots[:number]
    return runs


@pytest.mark.parametrize(("seed", "table"), [*((seed, "cts_utp") for seed in SEEDS), (4, "lean")])
def test_any_order_in_any_runs_gives_the_same_bars(home: Path, tmp_path: Path, bronze: Bronze, seed: int, table: str) -> None:
    """Late trades, repeats across slots and runs, sessions in any order: the bars of the tape, always."""
    chance = random.Random(f"merge {seed}")
    tape = made.tape(tmp_path / "made.jsonl.gz", frames=chance.randint(30, 500), seed=seed)
    total = bronze.add_tape(tape)
    runs = split(chance, bronze, total)
    with Refiner(home, sale_conditions=table) as refiner:
        for slots in runs:
            refiner.refine(slots)
        assert refiner.audit()["streams"]["trades"] == {"rows": total, "distinct": total, "kept": total}
        bars = refiner.bars()
        assert_same(bars, expected_of(tape, table))
    audit = audit_of(home, table)
    assert audit["gold"] == {"bars": len(bars), "faults": [], "notes": []}
    assert audit["taken"]["trades"] >= total, "some came in two slots"


def test_the_merge_check_would_see_one_trade_too_few_or_too_many(home: Path, tmp_path: Path, bronze: Bronze) -> None:
    tape = made.tape(tmp_path / "made.jsonl.gz", frames=60, seed=9)
    total = bronze.add_tape(tape)
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, total - 1, rows="size > 0 and record_offset > 0")])
        with pytest.raises(AssertionError):
            assert_same(refiner.bars(), expected_of(tape))
        refiner.refine([bronze.slot("trades", 0, total - 1, generation=2)])
        assert_same(refiner.bars(), expected_of(tape))
        bronze.connection.execute("update trades set session = replace(session, '01', '02')")
        refiner.refine([bronze.slot("trades", 0, 0, generation=3, rows="record_offset = (select min(record_offset) from trades where size > 0)")])
        with pytest.raises(AssertionError):
            assert_same(refiner.bars(), expected_of(tape))


def test_a_late_trade_corrects_exactly_its_bar(home: Path, bronze: Bronze) -> None:
    for minute in range(3):
        for second, price in ((10, "100"), (50, "101")):
            bronze.add("trades", event_time=f"2026-11-23 15:0{minute}:{second}+00", price=price)
    slot = bronze.slot("trades", 0, 5)
    bronze.add("trades", event_time="2026-11-23 15:01:05+00", received_at="2026-11-23 19:00:00+00", price="99")
    bronze.add("trades", event_time="2026-11-23 15:01:59.999+00", received_at="2026-11-23 19:00:00+00", price="103")
    with Refiner(home) as refiner:
        refiner.refine([slot])
        before = refiner.bars()
        refiner.refine([bronze.slot("trades", 6, 7)])
        after = refiner.bars()
    changed = [key for key in after if after[key] != before[key]]
    assert len(changed) == 1
    assert before[changed[0]][:5] == tuple(map(Decimal, (100, 101, 100, 101, 20)))
    assert after[changed[0]][:5] == tuple(map(Decimal, (99, 103, 99, 103, 40)))


def test_ties_go_by_session_frame_and_index(home: Path, bronze: Bronze) -> None:
    """Open and close among trades of one millisecond: not the order of arrival, nor of slots."""
    other = "0199d1f0-7c00-7000-8000-000000000002"
    assert other > SESSION
    for session, frame, idx, price in ((other, 1, 0, "4"), (SESSION, 9, 1, "3"), (SESSION, 9, 0, "2"), (SESSION, 2, 5, "1")):
        bronze.add("trades", session=session, frame=frame, idx=idx, price=price)
    with Refiner(home) as refiner:
        for offset in range(4):
            refiner.refine([bronze.slot("trades", offset, offset)])
        ((bar,),) = [list(refiner.bars().values())]
    assert bar[:4] == tuple(map(Decimal, (1, 4, 1, 4)))


def unit_tests(home: Path, project: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """dbt's unit tests, by dbt's own command, over the tables that a refiner has made."""
    with Refiner(home) as refiner:
        refiner.refine([])
    command = [sys.executable, "-m", "dbt.cli.main", "test", "--select", "test_type:unit", "--no-use-colors"]
    command += ["--project-dir", str(project), "--profiles-dir", str(project)]
    command += ["--target-path", str(home / "dbt" / "unit"), "--log-path", str(home / "dbt" / "logs")]
    environment = {**os.environ, "TICKMINT_DB": str(home / "warehouse.duckdb"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_dbt_unit_tests(home: Path) -> None:
    outcome = unit_tests(home)
    print(outcome.stdout)
    assert outcome.returncode == 0, outcome.stdout
    assert "PASS=9 " in outcome.stdout, outcome.stdout


#: The test, the file of a model or macro that it is of, and what breaks it.
WRONG = [
    ("sale_conditions_decide_what_moves", "models/gold/ohlc_1m.sql", "price, case when moves_open_close", "price, case when moves_high_low"),
    ("a_cross_wants_a_bar_before_that_was_not_beyond", "macros/signals.sql", "value_before - level_before <= ", "value_before - level_before < 0 * "),
    ("breadth_counts_who_has_a_change", "models/gold/market_overview.sql", "change > 0", "change >= 0"),
    ("a_trade_is_late_by_its_minute_and_suspect_as_the_validator_says", "macros/trades.sql", ".received_at') }} >= ", ".received_at') }} > "),
]


def test_a_unit_test_would_see_a_wrong_model(home: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(PROJECT, tmp_path / "dbt"))
    for _, file, right, wrong in WRONG:
        text = (project / file).read_text()
        assert right in text
        (project / file).write_text(text.replace(right, wrong))
    outcome = unit_tests(home, project)
    assert outcome.returncode == 1, outcome.stdout
    assert [name for name, *_ in WRONG if not re.search(rf"FAIL \d+ \w+::{name}", outcome.stdout)] == [], outcome.stdout
