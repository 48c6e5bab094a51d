"""What the tests share. The real refiner process runs in each of them; nothing is mocked."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracle")]

import bars as oracle  # noqa: E402
import made  # noqa: E402
from bronze import Bronze  # noqa: E402
from deliveries import LONG as LONG  # noqa: E402
from refining import PROJECT  # noqa: E402

RULES = {"cts_utp": oracle.cts_utp, "lean": oracle.lean}
FIELDS = 7  # open, high, low, close, volume, notional, trades


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder for a warehouse. It has one path in all tests, and what dbt has parsed stays in it:
    parsing takes longer than most tests."""
    path = tmp_path_factory.getbasetemp() / "home"
    path.mkdir(exist_ok=True)
    for child in path.iterdir():
        if child.name == "dbt":
            continue
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    return path


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, to be broken. It too has one path in all tests, and dbt parses what was changed."""
    path = tmp_path_factory.getbasetemp() / "project"
    if path.exists():
        shutil.rmtree(path)
    return Path(shutil.copytree(PROJECT, path, ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def bronze(tmp_path: Path) -> Bronze:
    return Bronze(tmp_path / "bronze")


@pytest.fixture(scope="session")
def made_tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.tape(tmp_path_factory.mktemp("made") / "made.jsonl.gz")


@pytest.fixture(scope="session")
def real_tape() -> Callable[[str], Path]:
    """A recorded tape by its name. They lie beside the repository and are not part of it."""
    folder = Path(os.environ.get("TICKMINT_TAPES", HERE.parents[1] / "../shared/tapes")).resolve()

    def find(name: str) -> Path:
        path = folder / f"{name}.jsonl.gz"
        if not path.exists():
            pytest.skip(f"no recorded tape {path} (TICKMINT_TAPES names another folder)")
        return path

    return find


@pytest.fixture(scope="session")
def expected() -> Callable[[Path, str], dict[tuple, tuple]]:
    """The bars of a tape by the oracle."""
    known: dict[tuple[Path, str], dict[tuple, tuple]] = {}

    def bars(tape: Path, table: str = "cts_utp") -> dict[tuple, tuple]:
        if (tape, table) not in known:
            known[tape, table] = {key: tuple(bar) for key, bar in oracle.bars(str(tape), RULES[table]).items()}
        return known[tape, table]

    return bars


def assert_same(found: dict[tuple, tuple], wanted: dict[tuple, tuple]) -> None:
    """Every bar, every field, exactly; vwap as the ratio of two of them."""
    assert found.keys() == wanted.keys()
    wrong = {key: (bar[:FIELDS], wanted[key]) for key, bar in found.items() if bar[:FIELDS] != wanted[key]}
    assert not wrong, f"{len(wrong)} bars differ, such as {next(iter(wrong.items()))}"
    for key, bar in found.items():
        volume, notional = wanted[key][4:6]
        assert bar[-1] == (pytest.approx(float(notional / volume), rel=1e-9) if volume else None), key
