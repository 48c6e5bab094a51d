"""What goes through the pipe, and how the process ends."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from bronze import Bronze
from refining import PROJECT, Refiner, edit, run_audit

sys.path.insert(0, str(PROJECT))

from refiner import s3  # noqa: E402


@pytest.mark.parametrize(("limit", "waits"), [("16_000_000", True), ("0", False)])
def test_a_checkpoint_is_made_when_the_round_is_answered(home: Path, project: Path, bronze: Bronze, limit: str, *, waits: bool) -> None:
    edit(project, "refiner/warehouse.py", "LOG, BACKSTOP = 16_000_000,", f"LOG, BACKSTOP = {limit},")
    for _ in range(10):
        bronze.add("trades")
    with Refiner(home, project=project) as refiner:
        refiner.refine([bronze.slot("trades", 0, 9)])
        refiner.audit()  # is done after all that the round left to do
        log = refiner.db.with_name(refiner.db.name + ".wal")
        assert (log.exists() and log.stat().st_size > 0) is waits


def test_a_round_from_hello_to_done(home: Path, bronze: Bronze) -> None:
    for _ in range(10):
        bronze.add("trades")
    with Refiner(home) as refiner:
        hello = refiner.hello
        assert (hello["version"], hello["run"], hello["tails"]) == (1, 0, {})
        assert hello["pid"] == refiner.child.pid
        assert (hello["duckdb"], hello["dbt"]) == ("1.5.5", "1.11.16")
        done = refiner.refine([bronze.slot("trades", 0, 4)])
        assert (done["id"], done["run"], done["slots"]) == (1, 1, 1)
        rows = done["rows"]
        assert (rows["silver.trades"], rows["silver.rejected_trades"], rows["silver.quarantine"], rows["silver.gaps"]) == (5, 0, 0, 0)
        assert (rows["gold.ohlc_1m"], rows["gold.ohlc_1d"], rows["gold.moving_averages"]) == (1, 1, 0), "the only minute is not closed"
        assert done["seconds"] > 0
        assert done["cpu_seconds"] > 0
        assert (refiner.phases[:2], refiner.phases[-1]) == (["load", "silver"], "publish")
        assert sorted(refiner.phases[2:-1]) == ["gold", "test"], "dbt decides which of these comes first"
        assert refiner.refine([bronze.slot("trades", 5, 9)])["run"] == 2
        manifest = refiner.manifest()
        assert (manifest["run"], manifest["watermark"]) == (2, "2026-11-23T15:00:00+00:00")
        assert manifest["tails"] == {"trades/0": {"generation": 1, "end": 9}}
    with Refiner(home) as refiner:
        assert (refiner.hello["run"], refiner.hello["tails"]) == (2, {"trades/0": {"generation": 1, "end": 9}})


def test_nothing_new_costs_no_run(home: Path, bronze: Bronze) -> None:
    bronze.add("trades")
    slot = bronze.slot("trades", 0, 0)
    empty = {**slot, "start": 1, "end": 50, "rows": 0, "typed": None, "kind": "gap"}
    end = {**slot, "start": 51, "end": 50, "rows": 0, "typed": None, "kind": "end"}
    with Refiner(home) as refiner:
        refiner.refine([])  # makes the tables, and so the first version
        run = refiner.refine([slot])["run"]
        for again in ([], [slot], [slot, slot], [empty], [end], []):
            assert refiner.refine(again)["run"] == run
            assert refiner.phases == ["load"]
    with Refiner(home) as refiner:
        assert refiner.hello["tails"] == {"trades/0": {"generation": 1, "end": 50}}
        assert refiner.refine([])["run"] == run


def test_the_tail_is_the_end_of_the_newest_generation(home: Path, bronze: Bronze) -> None:
    for _ in range(30):
        bronze.add("trades")
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 29), bronze.slot("trades", 0, 9, generation=2)])
    with Refiner(home) as refiner:
        assert refiner.hello["tails"] == {"trades/0": {"generation": 2, "end": 9}}


def test_a_slot_never_changes(home: Path, bronze: Bronze) -> None:
    for _ in range(20):
        bronze.add("trades")
    slot, other = bronze.slot("trades", 0, 4), bronze.slot("trades", 5, 9)
    with Refiner(home) as refiner:
        refiner.refine([slot])
        for change in ({"end": 8}, {"rows": 6}, {"kind": "gap"}, {"typed": other["typed"]}):
            failed = refiner.ask([other, {**slot, **change}])
            assert (failed["event"], failed["phase"], failed["retryable"]) == ("failed", "load", False)
            assert "['trades', 0, 1, 0]" in failed["error"]
            assert Path(slot["typed"]).name in failed["error"]
            assert Path(str(next(iter(change.values())))).name in failed["error"]
        assert refiner.refine([])["rows"]["silver.trades"] == 5, "nothing of a refused batch is taken"
        assert refiner.refine([other])["rows"]["silver.trades"] == 10


def test_an_object_may_lie_elsewhere_later(home: Path, bronze: Bronze) -> None:
    bronze.add("trades")
    slot = bronze.slot("trades", 0, 0)
    with Refiner(home) as refiner:
        refiner.refine([slot])
        moved = home / "moved" / Path(slot["typed"]).name
        moved.parent.mkdir()
        moved.write_bytes(Path(slot["typed"]).read_bytes())
        assert refiner.refine([{**slot, "typed": str(moved)}])["rows"]["silver.trades"] == 1


def test_a_slot_whose_object_holds_other_rows_than_it_says_is_refused(home: Path, bronze: Bronze) -> None:
    for _ in range(6):
        bronze.add("trades")
    whole, poisoned = bronze.slot("trades", 0, 2), bronze.poisoned("trades", 3, 5, 4)
    with Refiner(home) as refiner:
        for slot, said in ((whole, 2), (whole, 4), (poisoned, 2), (poisoned, 4)):
            failed = refiner.ask([{**slot, "rows": said}])
            assert (failed["event"], failed["phase"], failed["retryable"]) == ("failed", "load", False), (said, failed)
            assert f"is said to have {said} rows" in failed["error"]
        failed = refiner.ask([{**whole, "typed": None}])
        assert (failed["event"], failed["retryable"]) == ("failed", False)
        assert refiner.refine([whole, poisoned])["rows"]["silver.trades"] == 5


def gone(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def rotten(path: Path) -> None:
    """Its footer is whole, and its pages are not."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) // 4) + content[4 + len(content) // 4 :])


@pytest.mark.parametrize("damage", [gone, cut, rotten])
def test_an_object_that_cannot_be_read_is_told_and_waits_and_the_others_go_on(home: Path, bronze: Bronze, damage: Callable[[Path], None]) -> None:
    for number in range(90):
        bronze.add("trades", price=str(number + 1))
    bronze.add("gaps")
    first, bad, last = (bronze.slot("trades", at, at + 29) for at in (0, 30, 60))
    path = Path(bad["typed"])
    content = path.read_bytes()
    damage(path)
    with Refiner(home) as refiner:
        for sent in ([bad], [first, bad, last, bronze.slot("gaps", 0, 0)], [], [bad]):
            done = refiner.refine(sent)
            assert (done["unread"]["slots"], path.name in done["unread"]["error"]) == (1, True), done
        assert (done["rows"]["silver.trades"], done["rows"]["silver.gaps"]) == (60, 1)
        ((bar,),) = [list(refiner.bars().values())]
        assert bar[6] == 60
    with Refiner(home) as refiner:
        assert refiner.hello["tails"]["trades/0"] == {"generation": 1, "end": 89}, "the daemon does not send it again"
        assert refiner.refine([])["unread"]["slots"] == 1
        path.write_bytes(content)
        done = refiner.refine([])
        assert (done["unread"], done["rows"]["silver.trades"]) == (None, 90)
        ((bar,),) = [list(refiner.bars().values())]
        assert bar[6] == 90
        assert refiner.audit()["streams"]["trades"] == {"rows": 90, "distinct": 90, "kept": 90}
        run = done["run"]
        assert refiner.refine([bad])["run"] == run, "it is taken once"


def test_a_round_with_nothing_of_trades_but_an_object_that_cannot_be_read_is_a_good_one(home: Path, bronze: Bronze) -> None:
    for number in range(60):
        bronze.add("trades", price=str(number + 1))
    bronze.add("gaps")
    first, bad = (bronze.slot("trades", at, at + 29) for at in (0, 30))
    with Refiner(home) as refiner:
        refiner.refine([first])
        rotten(Path(bad["typed"]))
        done = refiner.refine([bronze.slot("gaps", 0, 0), bad])
        assert (done["unread"]["slots"], done["rows"]["silver.trades"], done["rows"]["silver.gaps"]) == (1, 30, 1)
        assert refiner.refine([])["run"] == done["run"]


def test_a_slot_with_poison_whose_typed_object_is_rotten_is_taken_when_it_is_mended(home: Path, bronze: Bronze) -> None:
    for _ in range(60):
        bronze.add("trades")
    slot = bronze.poisoned("trades", 0, 59, 1)
    path = Path(slot["typed"])
    content = path.read_bytes()
    rotten(path)
    with Refiner(home) as refiner:
        assert refiner.refine([slot])["unread"]["slots"] == 1
        path.write_bytes(content)
        done = refiner.refine([])
        assert (done["unread"], done["rows"]["silver.trades"], done["rows"]["silver.quarantine"]) == (None, 59, 1)


def test_a_whole_folder_that_is_away_is_taken_when_it_is_there_again(home: Path, bronze: Bronze) -> None:
    for _ in range(40):
        bronze.add("trades")
    slots, away = bronze.cut("trades", 20), home / "away"
    bronze.folder.rename(away)
    with Refiner(home) as refiner:
        done = refiner.refine(slots)
        assert (done["unread"]["slots"], done["rows"]["silver.trades"]) == (20, 0)
        assert Path(slots[0]["typed"]).name in done["unread"]["error"]
        away.rename(bronze.folder)
        done = refiner.refine([])
        assert (done["unread"], done["rows"]["silver.trades"]) == (None, 40)


def test_poison_whose_raw_object_is_away_waits_with_its_slot(home: Path, bronze: Bronze) -> None:
    for _ in range(6):
        bronze.add("trades")
    slot, other = bronze.poisoned("trades", 0, 3, 1), bronze.slot("trades", 4, 5)
    away = Path(slot["poison"]["raw"]).rename(home / "away")
    with Refiner(home) as refiner:
        done = refiner.refine([slot, other])
        assert (done["unread"]["slots"], done["rows"]["silver.trades"], done["rows"]["silver.quarantine"]) == (1, 2, 0)
        assert Path(slot["poison"]["raw"]).name in done["unread"]["error"]
    with Refiner(home) as refiner:
        assert refiner.refine([])["unread"]["slots"] == 1
        away.rename(slot["poison"]["raw"])
        done = refiner.refine([])
        assert (done["unread"], done["rows"]["silver.trades"], done["rows"]["silver.quarantine"]) == (None, 5, 1)


def test_an_object_that_goes_between_load_and_build_leaves_gold_as_it_was(home: Path, bronze: Bronze) -> None:
    for _ in range(4):
        bronze.add("trades")
    first, slot = bronze.slot("trades", 0, 1), bronze.slot("trades", 2, 3)
    with Refiner(home) as refiner:
        refiner.refine([first])
        before, bars = refiner.manifest(), refiner.bars()
        refiner.send(cmd="refine", slots=[slot])
        assert refiner.event()["phase"] == "load"
        while (event := refiner.event())["event"] == "progress" and event["phase"] != "silver":
            pass
        away = Path(slot["typed"]).rename(home / "away")
        answer = refiner.answer()
        assert answer["event"] == "done"
        if answer["unread"]:  # else it was read in time
            assert Path(slot["typed"]).name in answer["unread"]["error"]
            assert (refiner.manifest()["tables"], refiner.bars()) == (before["tables"], bars)
        away.rename(slot["typed"])
        assert refiner.refine([])["rows"]["silver.trades"] == 4, "it was stored, so it is built without being sent again"


def test_a_damaged_manifest_is_published_anew(home: Path, bronze: Bronze) -> None:
    bronze.add("trades")
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 0)])
        before, bars = refiner.manifest(), refiner.bars()
    for damage in ("{", "[]", "", None):
        path = home / "gold" / "manifest.json"
        path.unlink() if damage is None else path.write_text(damage)
        with Refiner(home) as refiner:
            refiner.refine([])
            assert (refiner.bars(), refiner.manifest()["origin"]) == (bars, before["origin"]), damage


def test_a_damaged_warehouse_is_told_with_its_cure(home: Path) -> None:
    (home / "warehouse.duckdb").write_bytes(b"no database" * 1000)
    with pytest.raises(AssertionError, match=r"warehouse.duckdb cannot be opened .* move it away"):
        Refiner(home)
    (home / "warehouse.duckdb").unlink()
    with Refiner(home) as refiner:
        assert refiner.hello["tails"] == {}


def test_rubbish_on_the_pipe_is_answered(home: Path, bronze: Bronze) -> None:
    bronze.add("trades")
    with Refiner(home) as refiner:
        for line in ("{", "[]", '{"cmd":"dance","id":7}', '{"id":8}'):
            refiner.say(line)
            failed = refiner.answer()
            assert (failed["event"], failed["phase"], failed["retryable"]) == ("failed", "protocol", False)
        failed = refiner.ask([{"stream": "trades"}])
        assert (failed["event"], failed["phase"]) == ("failed", "load")
        failed = refiner.ask([{**bronze.slot("trades", 0, 0), "stream": "quotes"}])
        assert "quotes" in failed["error"]
        assert refiner.refine([bronze.slot("trades", 0, 0)])["rows"]["silver.trades"] == 1


def test_what_the_daemon_lets_it_into_a_bucket_with() -> None:
    access = {
        "key_id": "id", "secret": "it's", "session_token": None, "region": "eu-central-1", "endpoint": None, "path_style": False,
    }  # fmt: skip
    usual = {"TYPE": "s3", "KEY_ID": "id", "SECRET": "it's", "URL_STYLE": "vhost", "REGION": "eu-central-1"}
    assert s3.options(access) == usual
    minio = access | {"session_token": "t", "endpoint": "http://127.0.0.1:9000/", "path_style": True}
    wanted = {"SESSION_TOKEN": "t", "ENDPOINT": "127.0.0.1:9000", "USE_SSL": "false", "URL_STYLE": "path"}
    assert s3.options(minio) == usual | wanted
    with duckdb.connect() as connection:
        bucket = s3.Bucket(connection)
        for expires in ("t", "u"):
            bucket.enter(minio | {"session_token": expires})
        ((secret,),) = connection.execute("select secret_string from duckdb_secrets()").fetchall()
        assert "127.0.0.1:9000" in secret and "it's" not in secret


def test_the_audit_counts_by_stream_and_session(home: Path, bronze: Bronze) -> None:
    other = "0199d1f0-7c00-7000-8000-000000000002"
    for session in (None, None, other):
        bronze.add("trades", **({"session": session} if session else {}))
    bronze.add("trades", price="-1")
    bronze.add("gaps")
    with Refiner(home) as refiner:
        assert refiner.audit()["streams"]["trades"] == {"rows": 0, "distinct": 0, "kept": 0}
        refiner.refine([bronze.slot("trades", 0, 3), bronze.slot("gaps", 0, 0)])
        audit = refiner.audit()
        assert audit.pop("event") == "audited"
        audit.pop("id")
        assert audit["streams"] == {
            "trades": {"rows": 4, "distinct": 4, "kept": 4}, "gaps": {"rows": 1, "distinct": 1, "kept": 1},
            "quarantine": {"rows": 0, "distinct": 0, "kept": 0},
        }  # fmt: skip
        assert audit["sessions"][other] == {"trades": {"rows": 1, "distinct": 1}}
        locked = run_audit(refiner.db, "--patience", "0.5")
        assert locked.returncode == 1
        assert "lock" in locked.stderr
    assert json.loads(run_audit(refiner.db).stdout) == audit
    missing = run_audit(home / "none.duckdb")
    assert (missing.returncode, "no such file" in missing.stderr) == (1, True)


@pytest.mark.parametrize("how", ["stop", "eof", "sigterm"])
def test_it_ends_in_good_order(home: Path, how: str) -> None:
    refiner = Refiner(home)
    if how == "stop":
        refiner.say('{"cmd":"stop"}')
    elif how == "eof":
        refiner.child.stdin.close()
    else:
        refiner.child.send_signal(signal.SIGTERM)
    assert refiner.child.wait(10) == 0


@pytest.mark.parametrize("how", ["stop", "sigterm"])
def test_a_run_at_work_is_finished_first(home: Path, bronze: Bronze, how: str) -> None:
    bronze.add("trades")
    refiner = Refiner(home)
    refiner.send(cmd="refine", slots=[bronze.slot("trades", 0, 0)])
    assert refiner.event()["phase"] == "load"
    if how == "stop":
        refiner.say('{"cmd":"stop"}')
    else:
        refiner.child.send_signal(signal.SIGTERM)
    assert refiner.answer()["event"] == "done"
    assert refiner.child.wait(10) == 0


def test_it_does_not_outlive_its_parent(home: Path, bronze: Bronze, made_tape: Path) -> None:
    bronze.add_tape(made_tape)
    refiner = Refiner(home)
    slots = bronze.cut("trades", 400)
    refiner.send(cmd="refine", slots=slots)
    refiner.event()
    refiner.child.stdin.close()
    refiner.child.stdout.close()
    refiner.child.wait(30)
    with Refiner(home) as refiner:
        refiner.refine(slots)  # how far it got depends on the machine; it is told all of it again
        assert refiner.audit()["streams"]["trades"]["rows"] == bronze.count("trades")


def test_a_file_of_another_layout_is_refused_with_the_cure(home: Path) -> None:
    import duckdb

    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute("create schema bronze; create table bronze.slots (x integer)")
    with pytest.raises(AssertionError, match="remove the file"):
        Refiner(home)


def test_the_work_of_dbt_stays_out_of_the_repository(home: Path, bronze: Bronze) -> None:
    bronze.add("trades")
    before = {path for path in PROJECT.rglob("*") if "__pycache__" not in path.parts}
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 0)])
    assert {path for path in PROJECT.rglob("*") if "__pycache__" not in path.parts} == before
    assert (home / "dbt" / "target").is_dir()
