"""What the tests share: the double, and where the helpers of the other tests lie."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1] / "dbt"
sys.path[:0] = [str(HERE), str(HERE.parent / "warehouse"), str(PROJECT)]

from account import Double  # noqa: E402


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with Double(tmp_path_factory.mktemp("double") / "double.log") as double:
        yield double
