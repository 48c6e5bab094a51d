"""What the audit of a warehouse sees, each time with one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bronze import Bronze
from refining import Refiner, audit_of


@pytest.fixture
def refined(home: Path, bronze: Bronze, made_tape: Path) -> Path:
    """A warehouse with all of the made tape in four slots, and some records that are no trades."""
    bronze.add_tape(made_tape)
    for _ in range(3):
        bronze.add("quarantine")
    bronze.add("gaps")
    with Refiner(home) as refiner:
        refiner.refine([*bronze.cut("trades", 4), bronze.poisoned("quarantine", 0, 2, 1), bronze.slot("gaps", 0, 0)])
    return home


@contextmanager
def changed(home: Path, *statements: str) -> Iterator[None]:
    """The database with something changed in it."""
    path = home / "warehouse.duckdb"
    kept = path.read_bytes()
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            (rows,) = connection.execute(statement).fetchone()
            assert rows, f"{statement} changes nothing"
    yield
    path.write_bytes(kept)


@contextmanager
def replaced(path: Path, content: bytes | None) -> Iterator[None]:
    kept = path.read_bytes()
    path.write_bytes(content) if content is not None else path.unlink()
    yield
    path.write_bytes(kept)


def test_the_books_of_silver_and_the_bars_of_gold(refined: Path, bronze: Bronze) -> None:
    total = bronze.count("trades")
    audit = audit_of(refined)
    assert audit["taken"] == {"trades": total, "gaps": 1, "quarantine": 3}
    assert audit["streams"]["quarantine"]["rows"] == 3, "poison included"
    assert audit["chains"] == {
        "gaps/0": {"generation": 1, "end": 0, "slots": 1, "rows": 1},
        "quarantine/0": {"generation": 1, "end": 2, "slots": 1, "rows": 3},
        "trades/0": {"generation": 1, "end": total - 1, "slots": 4, "rows": total},
    }
    manifest = json.loads((refined / "gold" / "manifest.json").read_text())
    bars = manifest["tables"]["ohlc_1m"]["rows"]
    assert audit["gold"] == {"bars": bars, "faults": [], "notes": []}

    second = "delete from bronze.slots where stream = 'trades' and start = (select min(start) from bronze.slots where stream = 'trades' and start > 0)"
    with changed(refined, second):
        chain = audit_of(refined)["chains"]["trades/0"]
        assert (chain["slots"], chain["end"], chain["rows"] < total) == (3, total - 1, True), "a hole below the tail"
    with changed(refined, "delete from silver.stg_trades where frame = 7", "update bronze.loads set kept = 0"):
        audit = audit_of(refined)
        assert audit["streams"]["trades"]["rows"] < audit["taken"]["trades"] == total, "left out by a load that says so itself"
    with changed(refined, "delete from bronze.ledger where model = 'stg_trades'"):
        assert audit_of(refined)["taken"]["trades"] == 0, "its model has not taken them: it is behind"

    def gold() -> dict[str, Any]:
        return audit_of(refined)["gold"]

    def assert_seen(*words: str) -> None:
        faults = gold()["faults"]
        assert len(faults) == len(words), faults
        assert all(word in fault for word, fault in zip(words, faults, strict=True)), faults

    regular = "(select min(rowid) from silver.stg_trades where conditions = '1' and not price_update)"
    with changed(refined, f"update silver.stg_trades set size = size + 1 where rowid = {regular}"):
        assert_seen("is not what Silver's trades give")
    with changed(refined, "update gold.ohlc_1m set high = high + 1 where symbol = 'AAPL'"):
        assert_seen("not alike in Gold as published and in the database")
    with changed(refined, "delete from gold.ohlc_1m where symbol = 'AAPL'"):
        assert_seen("not alike in Gold as published and in the database")

    path = refined / "gold" / "manifest.json"
    for file in manifest["tables"]["ohlc_1m"]["files"][:1]:
        content = (refined / "gold" / file).read_bytes()
        for damage in (None, content[: len(content) // 2], b""):
            with replaced(refined / "gold" / file, damage):
                assert_seen("is named by the manifest and cannot be read")
        twice = {**manifest, "tables": {"ohlc_1m": {"files": [*manifest["tables"]["ohlc_1m"]["files"], file], "rows": bars}}}
        with replaced(path, json.dumps(twice).encode()):
            assert_seen(f"the manifest says {bars}", "bars of Gold stand twice", "not alike in Gold as published", "is not what Silver's trades give")
    fewer = {"ohlc_1m": {**manifest["tables"]["ohlc_1m"], "rows": bars - 1}}
    with replaced(path, json.dumps({**manifest, "tables": fewer}).encode()):
        assert_seen(f"hold {bars} rows")
    for damage in (b"{", b"[]", b"{}"):
        with replaced(path, damage):
            assert_seen("is damaged")
            assert gold()["bars"] is None


def test_gold_that_another_run_or_other_rules_made_is_not_held_against_silver(refined: Path) -> None:
    def assert_noted(*words: str, sale_conditions: str = "cts_utp") -> None:
        gold = audit_of(refined, sale_conditions)["gold"]
        assert (gold["faults"], len(gold["notes"])) == ([], 1), gold
        assert all(word in gold["notes"][0] for word in words), gold

    assert_noted("other rules", sale_conditions="lean")
    with changed(refined, "insert into bronze.runs select max(run) + 1, now() from bronze.runs", "delete from silver.stg_trades"):
        assert_noted("it is of run 1, and run 2 was not published")
    with changed(refined, "update bronze.warehouse set id = 'another'"):
        assert_noted("another database")
    with replaced(refined / "gold" / "manifest.json", None):
        assert_noted("manifest.json is not there yet")


def test_a_file_in_which_nothing_was_made_yet_can_be_audited(home: Path) -> None:
    with duckdb.connect(str(home / "warehouse.duckdb")):
        pass
    audit = audit_of(home)
    assert audit["gold"] == {"bars": None, "faults": [], "notes": []}
    assert (audit["chains"], audit["taken"]) == ({}, {})
