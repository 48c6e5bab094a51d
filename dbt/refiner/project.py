"""dbt, run in this process over the refiner's own database."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbt.cli.main import dbtRunner
from dbt.version import __version__ as version

from .errors import Refused, RunFailed
from .origin import ROOT, fingerprint

__all__ = ["Project", "version"]

#: What names the trace of a run to dbt, which puts it into its artifacts.
TRACE = "DBT_ENV_CUSTOM_ENV_TRACEPARENT"


class Project:
    """The parsed project. Parsing is done once; each run goes with the manifest."""

    def __init__(self, db: Path, work: Path, variables: dict[str, Any]) -> None:
        self.variables = variables
        os.environ.update(TICKMINT_DB=str(db), DBT_SEND_ANONYMOUS_USAGE_STATS="false")
        self.options = [
            "--project-dir", str(ROOT), "--profiles-dir", str(ROOT), "--target-path", str(work / "target"),
            "--log-path", str(work / "logs"), "--log-level", "error", "--log-level-file", "warn", "--no-use-colors",
            "--vars", json.dumps(variables),
        ]  # fmt: skip
        parsed = dbtRunner().invoke(["parse", *self.options])
        if not parsed.success:
            raise Refused(f"the dbt project cannot be parsed: {parsed.exception}")
        self.on_phase: Callable[[str], None] = lambda _: None
        self.runner = dbtRunner(manifest=parsed.result, callbacks=[self._heard])

    def fingerprint(self) -> str:
        """Of all that decides how a bar comes out of Silver's records."""
        return fingerprint(self.variables)

    def seed(self) -> None:
        self._invoke("seed")

    def build(self, models: list[str], *, anew: bool, on_phase: Callable[[str], None]) -> None:
        """Builds the models, and between Silver and Gold runs the tests that are cheap enough for each
        run. `on_phase` hears the phase of each node as it begins."""
        self.on_phase = on_phase
        refresh = ["--full-refresh"] if anew else []
        try:
            self._invoke("build", "--select", *models, "tag:each_run", "--indirect-selection", "empty", "--fail-fast", *refresh)
        finally:
            self.on_phase = lambda _: None

    def test(self) -> None:
        """All data tests: over whole tables."""
        self._invoke("test", "--select", "test_type:data")

    def _heard(self, event: Any) -> None:
        if event.info.name == "NodeStart":
            self.on_phase(phase(event.data.node_info.unique_id))

    def _invoke(self, command: str, *arguments: str) -> None:
        # A run that is traced leaves its artifacts, which name the trace; they cost more than a small run.
        write = [] if os.environ.get(TRACE) else ["--no-write-json"]
        outcome = self.runner.invoke([command, *arguments, *write, *self.options])
        if outcome.success:
            return
        if outcome.exception:
            raise RunFailed(f"dbt {command}: {outcome.exception}", retryable=True)
        bad = [result for result in outcome.result if result.status in ("error", "fail", "runtime error")]
        said = "; ".join(f"{result.node.name}: {result.message}" for result in bad) or f"dbt {command} failed"
        # A test that fails says that the data are wrong, which no second try changes.
        wrong = any(result.status == "fail" for result in bad)
        raise RunFailed(said, retryable=not wrong, phase=phase(bad[0].node.unique_id) if bad else None)


def phase(node: str) -> str:
    """The phase of a run that a node belongs to."""
    return "test" if node.startswith("test.") else "gold" if node.endswith(".ohlc_1m") else "silver"
