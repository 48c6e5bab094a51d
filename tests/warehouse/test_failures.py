"""A broken model, a test that fails, a project that cannot be parsed: Gold stays as it is, and since when and why is
said in the answer, in the greeting of the next process and in the manifest, until a round goes well."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bronze import Bronze
from refining import PROJECT, Refiner, edit

sys.path.insert(0, str(PROJECT))

from refiner.pulse import Pulse  # noqa: E402

GOLD = "models/gold/ohlc_1m.sql"


def files(refiner: Refiner) -> dict[str, bytes]:
    return {str(path.relative_to(refiner.gold)): path.read_bytes() for path in refiner.gold.rglob("*.parquet")}


def assert_stands(refiner: Refiner, before: dict[str, Any], files_before: dict[str, bytes], failing: dict[str, Any]) -> None:
    """Readers have the version of before, and are told why there is no newer one; data_quality alone goes on."""
    noted = {key: failing[key] for key in ("since", "phase", "error")}
    assert without_quality(refiner.manifest()) == without_quality(before | {"failing": noted})
    assert files_before.items() <= files(refiner).items()
    assert refiner.manifest()["tables"]["data_quality"] != before["tables"]["data_quality"]


def without_quality(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest | {"tables": manifest["tables"] | {"data_quality": None}, "replaced": None}


def break_model(project: Path) -> None:
    edit(project, GOLD, "group by symbol, source, session, bucket_start\n)", "group by symbol, source, session, bucket_start, no_such)")


def mend_model(project: Path) -> None:
    edit(project, GOLD, "group by symbol, source, session, bucket_start, no_such)", "group by symbol, source, session, bucket_start\n)")


def break_test(project: Path) -> None:
    (project / "tests/never.sql").write_text("{{ config(tags=['each_run']) }} select 1 as wrong")


def mend_test(project: Path) -> None:
    (project / "tests/never.sql").unlink()


def break_grammar(project: Path) -> None:
    (project / "models/gold/torn.sql").write_text("select {{ 1")


def mend_grammar(project: Path) -> None:
    (project / "models/gold/torn.sql").unlink()


@pytest.mark.parametrize(
    ("damage", "mend", "phase", "why", "retryable"),
    [(break_model, mend_model, "gold", "no_such", True), (break_test, mend_test, "test", "never", False)],
)
def test_what_fails_leaves_gold_as_it_is_and_is_told_until_it_is_mended(
    home: Path, bronze: Bronze, project: Path, damage: Any, mend: Any, phase: str, why: str, retryable: bool
) -> None:
    for _ in range(30):
        bronze.add("trades")
    with Refiner(home, project=project) as refiner:
        assert refiner.hello["failing"] is None
        refiner.refine([bronze.slot("trades", 0, 9)])
        before, files_before = refiner.manifest(), files(refiner)
        assert not before.get("failing")
    damage(project)
    begin = datetime.now(UTC)
    with Refiner(home, project=project) as refiner:
        first = refiner.ask([bronze.slot("trades", 10, 19)])
        assert (first["event"], first["phase"], first["retryable"]) == ("failed", phase, retryable)
        failing = first["failing"]
        assert (failing["rounds"], failing["phase"], failing["error"]) == (1, phase, first["error"])
        assert why in failing["error"]
        since = failing["since"]
        assert begin <= datetime.fromisoformat(since) <= datetime.now(UTC)
        assert since.endswith("+00:00")
        assert_stands(refiner, before, files_before, failing)
        refiner.kill()
    with Refiner(home, project=project) as refiner:
        assert refiner.hello["failing"] == failing, "a kill forgets nothing"
        second = refiner.ask([])["failing"]
        assert (second["since"], second["rounds"]) == (since, 2)
        assert_stands(refiner, before, files_before, second)
        mend(project)
        assert refiner.refine([])["rows"]["silver.trades"] == 20, "without a new process"
        assert not refiner.manifest().get("failing")
        assert refiner.manifest()["run"] > before["run"]
        ((bar,),) = [list(refiner.bars().values())]
        assert bar[6] == 20
    with Refiner(home, project=project) as refiner:
        assert refiner.hello["failing"] is None


def test_a_project_that_cannot_be_parsed_is_told_from_the_start(home: Path, bronze: Bronze, project: Path) -> None:
    bronze.add("trades")
    break_grammar(project)
    said = []
    for rounds in (1, 2):
        with pytest.raises(AssertionError, match=rf"'phase': 'project'.*cannot be parsed.*'rounds': {rounds}") as failed:
            Refiner(home, project=project)
        said.append(str(failed.value))
    since = said[0].split("'since': '")[1].split("'")[0]
    assert f"'since': '{since}'" in said[1]
    assert not (home / "gold" / "manifest.json").exists(), "there is no version to say it of"
    mend_grammar(project)
    with Refiner(home, project=project) as refiner:
        assert (refiner.hello["failing"]["since"], refiner.hello["failing"]["rounds"]) == (since, 2)
        refiner.refine([bronze.slot("trades", 0, 0)])
        assert not refiner.manifest().get("failing")
    break_grammar(project)
    with pytest.raises(AssertionError, match="cannot be parsed"):
        Refiner(home, project=project)
    with Refiner(home) as refiner:
        assert refiner.manifest()["failing"]["phase"] == "project"
        run = refiner.manifest()["run"]
        assert refiner.refine([])["run"] == run, "there was nothing to publish"
        assert refiner.manifest()["failing"] is None


def test_a_folder_that_another_project_has_worked_in_reads_nothing_of_it(home: Path, bronze: Bronze, project: Path) -> None:
    """The two have the same files; of the first nothing is left but what dbt had parsed."""
    bronze.add("trades")
    slot = bronze.slot("trades", 0, 0)
    moved = project.with_name("moved")
    shutil.copytree(project, moved)
    with Refiner(home, project=project) as refiner:
        refiner.refine([slot])
    shutil.rmtree(project)
    refiner.db.unlink()
    with Refiner(home, project=moved) as refiner:
        assert refiner.refine([slot])["rows"]["silver.trades"] == 1


def test_what_the_daemon_alone_has_seen_is_written_down(home: Path, bronze: Bronze, project: Path) -> None:
    bronze.add("trades")
    slot = bronze.slot("trades", 0, 0)
    told = {"since": "2026-11-23T15:00:00.123456Z", "rounds": 4, "phase": "gold", "error": "it hung"}
    break_model(project)
    with Refiner(home, project=project) as refiner:
        failing = refiner.ask([slot], failing=told)["failing"]
        assert (failing["since"], failing["rounds"], failing["phase"]) == ("2026-11-23T15:00:00.123456+00:00", 5, "gold")
        assert "no_such" in failing["error"]
        failing = refiner.ask([slot], failing=told | {"since": "2026-11-23T16:00:00Z", "rounds": 9})["failing"]
        assert (failing["since"], failing["rounds"]) == ("2026-11-23T15:00:00.123456+00:00", 10), "the earlier beginning"
        refiner.kill()
    with Refiner(home) as refiner:
        assert refiner.hello["failing"] == failing
        refiner.refine([slot], failing=failing)
    with Refiner(home) as refiner:
        assert refiner.hello["failing"] is None


def test_a_refused_slot_is_a_failure_too_and_over_with_the_next_good_round(home: Path, bronze: Bronze) -> None:
    for _ in range(10):
        bronze.add("trades")
    slot = bronze.slot("trades", 0, 4)
    with Refiner(home) as refiner:
        run = refiner.refine([slot])["run"]
        assert refiner.ask([{**slot, "end": 8}])["failing"]["phase"] == "load"
        assert refiner.manifest()["failing"]["phase"] == "load"
        assert refiner.refine([])["run"] > run, "data_quality has to say that it is over"
        assert refiner.manifest().get("failing") is None
        assert refiner.ask([{**slot, "end": 8}])["failing"]["rounds"] == 1


def test_a_run_at_work_beats_and_one_that_waits_does_not() -> None:
    beats = []
    with Pulse(lambda: beats.append(1)):
        time.sleep(1.7)
        assert not beats
        until = time.monotonic() + 1.7
        while time.monotonic() < until:
            pass
    assert len(beats) in (2, 3, 4)


def test_a_model_of_silver_that_breaks_its_contract_takes_nothing(home: Path, bronze: Bronze, project: Path) -> None:
    """Its table stays when it is changed, so each run holds it against the contract."""
    bronze.add("trades", conditions="1")
    bronze.add("trades", conditions="1")
    first, second = bronze.cut("trades", 2)
    with Refiner(home, project=project) as refiner:
        refiner.refine([first])
    edit(project, "models/silver/stg_trades.sql", "  conditions,\n", "")
    with Refiner(home, project=project) as refiner:
        failed = refiner.ask([second])
    assert (failed["event"], failed["phase"]) == ("failed", "silver")
    assert "contract" in failed["error"]


def test_a_calendar_that_was_wrong_for_a_round_leaves_no_bar_behind(home: Path, bronze: Bronze, project: Path) -> None:
    """The seed is loaded and Gold made by it before a test says that it is wrong; then it is put back as it was."""
    for _ in range(15):
        bronze.add("trades")
    calendar = project / "seeds/trading_calendar.csv"
    right = calendar.read_text()
    (day,) = [line for line in right.splitlines() if line.startswith("US,2026-11-23,")]
    wrong = day.replace("T14:30", "T16:00").replace("T09:00", "T04:00")
    assert wrong.count("T04:00") == wrong.count("T16:00") == 1, "the minute 15:00 is before the open; a session begins before its day"
    with Refiner(home, project=project) as refiner:
        refiner.refine([bronze.slot("trades", 0, 4)])
        assert {session for _, session, _ in refiner.bars()} == {"regular"}
    calendar.write_text(right.replace(day, wrong))
    with Refiner(home, project=project) as refiner:
        refused = refiner.ask([bronze.slot("trades", 5, 9)])
        assert (refused["event"], refused["phase"]) == ("failed", "test")
        assert "calendar_is_sound" in refused["error"]
        refiner.kill()
        with duckdb.connect(str(refiner.db), read_only=True) as connection:
            assert connection.execute("select distinct session from gold.ohlc_1m").fetchall() == [("pre",)]
    calendar.write_text(right)
    with Refiner(home, project=project) as refiner:
        refiner.refine([bronze.slot("trades", 10, 14)])
        assert {session for _, session, _ in refiner.bars()} == {"regular"}
        assert refiner.manifest()["tables"]["ohlc_1m"]["rows"] == 1
