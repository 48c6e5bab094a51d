"""kill -9 of the refiner at every named point, and a daemon that goes away in any phase.

A reader that follows the manifest sees the version before or the one after, whole; whoever comes next
takes what is missing, nothing is loaded twice, and the end is that of a run without a crash. The controls
break the program in a copy and must be caught by the same check.
"""

from __future__ import annotations

import random
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import made
import pytest
from bronze import Bronze
from conftest import HERE, LONG, RULES, assert_same, oracle
from dying import POINTS
from refining import PROJECT, Refiner, published
from test_deliveries import assert_same_gold, tables

#: Where the new version stands already when the process dies.
PUBLISHED = ("manifest_published", "before_answer")

Bars = dict[tuple, tuple]


@dataclass
class World:
    """A warehouse that has taken the first slots of a tape, and what it must hold before and after the rest."""

    folder: Path
    total: int
    slots: list[dict[str, Any]]
    before: Bars
    after: Bars


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder, path = tmp_path_factory.mktemp("world"), tmp_path_factory.getbasetemp() / "home"
    tape = made.tape(folder / "made.jsonl.gz", frames=1200, seed=5)
    bronze = Bronze(folder / "bronze")
    total = bronze.add_tape(tape)
    slots = bronze.cut("trades", 8)
    # A repeat of what is archived already, in a slot of its own: a resend that the archiver did not know.
    slots.append(bronze.slot("trades", slots[2]["start"], slots[5]["end"], generation=2))
    after = {key: tuple(bar) for key, bar in oracle.bars(str(tape), RULES["cts_utp"]).items()}
    with Refiner(path) as refiner:
        refiner.refine(slots[:4])
        before = refiner.bars()
    shutil.copytree(path, folder / "warehouse")
    assert before.keys() <= after.keys()
    assert {key: bar[:-1] for key, bar in before.items()} != after, "the rest must change something"
    return World(folder / "warehouse", total, slots, before, after)


@pytest.fixture
def there(world: World, home: Path) -> Path:
    """A copy of the world's warehouse."""
    return Path(shutil.copytree(world.folder, home, dirs_exist_ok=True))


@contextmanager
def reader(gold: Path) -> Iterator[list[Bars]]:
    """Reads what stands published, over and over, as a dashboard does. All that it saw, each once."""
    seen: list[Bars] = []
    faults: list[BaseException] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                bars = published(gold)
            except BaseException as error:  # noqa: BLE001 - it is raised again below
                faults.append(error)
                return
            if not seen or seen[-1] != bars:
                seen.append(bars)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
    assert not faults, f"a reader failed: {faults[0]!r}"


def crash(world: World, folder: Path, point: str, project: Path = PROJECT) -> None:
    """Dies at `point` with the rest of the slots in hand; then another takes over."""
    dying = Refiner(folder, project=project, program=[str(HERE / "dying.py"), point])
    with reader(dying.gold) as seen:
        dying.send(cmd="refine", slots=world.slots[4:])
        assert dying.child.wait(120) == -signal.SIGKILL, f"{point} was not reached: {dying.log.read_text()[-2000:]}"
    now = published(dying.gold)
    for bars in [*seen, now]:
        assert bars == world.before or same(bars, world.after), "a reader saw neither the old version nor the new one"
    assert (now == world.before) != (point in PUBLISHED), "the wrong version stands"
    assert_whole(dying.gold)
    recover(world, folder, project)


def assert_whole(gold: Path) -> None:
    """All tables of the version that stands are of one run: what bars say, the coarser ones and the indicators say."""
    with tables(gold) as connection:
        off = connection.execute(
            """
            select 'the days do not hold what the minutes do' from (select sum(volume), sum(notional), sum(trades) from ohlc_1m
              except select sum(volume), sum(notional), sum(trades) from ohlc_1d)
            union all select 'indicators of bars that there are not' from (select symbol, source, session, bucket_start, close from moving_averages
              except select symbol, source, session, bucket_start, close from ohlc_1m)
            union all select 'an indicator of a bar is missing' from (select symbol, source, session, bucket_start from moving_averages
              except select symbol, source, session, bucket_start from volume_indicators)
            """
        ).fetchall()
    assert not off, off


def same(found: Bars, wanted: Bars) -> bool:
    try:
        assert_same(found, wanted)
    except AssertionError:
        return False
    return True


def recover(world: World, folder: Path, project: Path = PROJECT) -> None:
    """Sends what the warehouse says that it lacks, as the daemon does, and looks at the end."""
    with Refiner(folder, project=project) as refiner:
        refiner.refine(missing(refiner.hello["tails"], world.slots))
        assert refiner.audit()["streams"]["trades"] == {"rows": world.total, "distinct": world.total, "kept": world.total}
        assert_same(refiner.bars(), world.after)
        assert_whole(refiner.gold)
        manifest = refiner.manifest()
        assert refiner.refine(world.slots)["run"] == manifest["run"], "what is known costs no run"
        assert refiner.manifest() == manifest
        files = {str(path.relative_to(refiner.gold)) for path in refiner.gold.rglob("*") if path.is_file()}
        named = {"manifest.json", *(file for table in manifest["tables"].values() for file in table["files"]), *manifest["replaced"]}
        assert files == named, "what a dead run left behind is swept"


def missing(tails: dict[str, Any], slots: list[dict[str, Any]]) -> list[dict[str, Any]]:
    tail = tails.get("trades/0", {"generation": 0, "end": -1})
    return [slot for slot in slots if (slot["generation"], slot["start"]) > (tail["generation"], tail["end"])]


#: In the short form the lives of `test_killed_at_one_point_after_another` come to the other points.
ALONE = POINTS if LONG else ("silver_merged", "indicators_written", "gold_committed", "manifest_published")


@pytest.mark.parametrize("point", ALONE)
def test_killed_at(world: World, there: Path, point: str) -> None:
    crash(world, there, point)


@pytest.mark.parametrize("phase", ["load", "silver", "gold", "publish"] if LONG else ["silver", "publish"])
def test_the_daemon_goes_away_in_phase(world: World, there: Path, phase: str) -> None:
    refiner = Refiner(there)
    with reader(refiner.gold) as seen:
        refiner.send(cmd="refine", slots=world.slots[4:])
        while refiner.event()["phase"] != phase:
            pass
        # What the kernel does when the daemon is killed: both ends of both pipes are closed.
        refiner.child.stdin.close()
        refiner.child.stdout.close()
        refiner.child.wait(60)
    for bars in [*seen, published(refiner.gold)]:
        assert bars == world.before or same(bars, world.after)
    recover(world, there)


def test_killed_again_and_again(world: World, there: Path) -> None:
    """At moments that nobody has chosen, until one comes through."""
    chance = random.Random(20261123)
    for _ in range(4):
        refiner = Refiner(there)
        with reader(refiner.gold) as seen:
            refiner.send(cmd="refine", slots=missing(refiner.hello["tails"], world.slots))
            threading.Event().wait(chance.uniform(0, 0.8))
            refiner.kill()
        assert all(bars == world.before or same(bars, world.after) for bars in seen)
    recover(world, there)


@pytest.mark.parametrize("kills", [50 if LONG else len(POINTS)])
def test_killed_at_one_point_after_another(tmp_path: Path, home: Path, kills: int) -> None:
    """A life a point, with more slots each time; in the end it is the Gold of a full rebuild."""
    chance = random.Random(20261126)
    tape = made.tape(tmp_path / "made.jsonl.gz", frames=100 * kills, seed=8)
    bronze = Bronze(tmp_path / "bronze")
    total = bronze.add_tape(tape)
    slots = bronze.cut("trades", kills + 1)
    points = [point for _ in range(kills // len(POINTS) + 1) for point in chance.sample(list(POINTS), len(POINTS))][:kills]
    died = 0
    for life, point in enumerate(points):
        dying = Refiner(home, program=[str(HERE / "dying.py"), point])
        with reader(dying.gold) if (home / "gold" / "manifest.json").exists() else nullcontext([]):
            dying.send(cmd="refine", slots=missing(dying.hello["tails"], slots[: life + 1]))
            # A made minute is seldom the newest, so not every life comes to what is made when a minute is over.
            while dying.child.poll() is None and dying.may_say()["event"] not in ("done", "failed"):
                pass
        died += dying.child.poll() == -signal.SIGKILL
        dying.kill()
        if (home / "gold" / "manifest.json").exists():
            assert_whole(home / "gold")
    assert died >= kills * 0.8, f"only {died} of {kills} died at their point"
    with Refiner(home) as refiner:
        refiner.refine(missing(refiner.hello["tails"], slots))
        assert refiner.audit()["streams"]["trades"] == {"rows": total, "distinct": total, "kept": total}
        assert_whole(refiner.gold)
        incremental = Path(shutil.copytree(home / "gold", tmp_path / "incremental"))
        refiner.refine([], full_refresh=True)
    assert_same_gold(incremental, home / "gold")


def broken(folder: Path, file: str, text: str, wrong: str) -> Path:
    """A copy of the project with one thing wrong."""
    project = Path(shutil.copytree(PROJECT, folder / "dbt"))
    path = project / file
    assert text in path.read_text(), f"{file} has changed: mend this control"
    path.write_text(path.read_text().replace(text, wrong))
    return project


CONTROLS = {
    "one file name for all versions": (
        "days_published", "refiner/publish.py", 'f"{table.name}/r{run}-{changed}.parquet"', 'f"{table.name}/r1-{changed}.parquet"', "reader|version",
    ),
    "the manifest before its files": (
        "day_half_written", "refiner/publish.py", "            if self.write(connection, file, table, changed):\n",
        "            self.write_manifest({**self.manifest(), 'tables': {'ohlc_1m': {'files': [*files.values(), file], 'rows': 0}}})\n"
        "            if self.write(connection, file, table, changed):\n", "reader|version",
    ),
    "the ledger is not of the transaction": (
        "silver_merged", "dbt_project.yml", '"{{ keep_books() }}"', '["{{ keep_load() }}", {sql: "{{ keep_ledger() }}", transaction: false}]', "rows_add_up|trades",
    ),
    "a record that comes again is another one": (
        "slots_stored", "dbt_project.yml", "+incremental_strategy: merge", "+incremental_strategy: append", "twice|unique|rows|distinct",
    ),
    "what was built and not published is forgotten": (
        "gold_committed", "refiner/warehouse.py", "and self.unpublished()", "and False", "bars|keys",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", CONTROLS)
def test_the_check_would_see(world: World, tmp_path: Path, fault: str) -> None:
    point, file, text, wrong, words = CONTROLS[fault]
    project = broken(tmp_path, file, text, wrong)
    there = Path(shutil.copytree(world.folder, tmp_path / "warehouse", ignore=shutil.ignore_patterns("dbt")))
    with pytest.raises(AssertionError, match=words):
        crash(world, there, point, project)
