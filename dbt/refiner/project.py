"""dbt, run in this process over the refiner's own database."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt.cli.main import dbtRunner
from dbt.version import __version__ as version

from .errors import RunFailed
from .lean import make_lean
from .origin import ROOT, fingerprint
from .parsed import Parsed

__all__ = ["Project", "version"]

#: What names the trace of a run to dbt, which puts it into its artifacts.
TRACE = "DBT_ENV_CUSTOM_ENV_TRACEPARENT"

#: What dbt parses, beside the project's own YAML.
FOLDERS = ("models", "macros", "seeds", "tests")


@dataclass(frozen=True)
class Table:
    """A table of Gold and how it is published, as its model says in `meta`: in files of a day, month or year by the
    time in `column`, or in one file. `key` is unique in it; its files are sorted by that. `made` is each_run, with new
    trades; each_load, with whatever is new in Silver; each_minute, when a minute is over."""

    name: str
    made: str
    per: str
    column: str
    key: tuple[str, ...]


class Project:
    """The parsed project. Parsing is done once; each run goes with the manifest."""

    def __init__(self, db: Path, work: Path, variables: dict[str, Any]) -> None:
        self.variables, self.sources = variables, stamps()
        make_lean()
        # dbt holds what it parsed for one profile: a name without its folder is the same in all.
        os.chdir(db.parent)
        os.environ.update(TICKMINT_DB=db.name, DBT_SEND_ANONYMOUS_USAGE_STATS="false")
        self.options = [
            "--project-dir", str(ROOT), "--profiles-dir", str(ROOT), "--target-path", str(work / "target"),
            # Its loggers cost a fifth of a run, and what goes wrong is in its results.
            "--log-path", str(work / "logs"), "--log-level", "none", "--log-level-file", "none",
            "--vars", json.dumps(variables),
        ]  # fmt: skip
        before = Parsed(work / "target", variables)
        before.bring()
        parsed = dbtRunner().invoke(["parse", *self.options])
        if not parsed.success:
            raise RunFailed(f"the dbt project cannot be parsed: {parsed.exception}", retryable=False, phase="project")
        before.keep()
        self.gold = sorted((table(node) for node in parsed.result.nodes.values() if is_gold(node)), key=lambda table: table.name)
        self.on_phase: Callable[[str], None] = lambda _: None
        self.runner = dbtRunner(manifest=parsed.result, callbacks=[self._heard])

    def fingerprint(self) -> str:
        """Of all that decides how a bar comes out of Silver's records."""
        return fingerprint(self.variables)

    def is_current(self) -> bool:
        """Whether what was parsed is what lies there."""
        return self.sources == stamps()

    def seed(self) -> None:
        self._invoke("seed")

    def build(self, models: list[str], *, anew: bool, tests: bool, on_phase: Callable[[str], None]) -> None:
        """Builds the models, and between Silver and Gold runs the `tests` that are cheap enough for each
        run. `on_phase` hears the phase of each node as it begins."""
        self.on_phase = on_phase
        refresh = ["--full-refresh"] if anew else []
        each_run = ["tag:each_run"] if tests else []
        try:
            self._invoke("build", "--select", *models, *each_run, "--indirect-selection", "empty", "--fail-fast", *refresh)
        finally:
            self.on_phase = lambda _: None

    def build_alone(self, model: str, **more: Any) -> None:
        """Builds one model with more variables, and tests nothing."""
        self._invoke("run", "--select", model, "--vars", json.dumps(self.variables | more))

    def test(self) -> None:
        """All data tests: over whole tables."""
        self._invoke("test", "--select", "test_type:data")

    def _heard(self, event: Any) -> None:
        if event.info.name == "NodeStart":
            self.on_phase(self.phase(event.data.node_info.unique_id))

    def _invoke(self, command: str, *arguments: str) -> None:
        # A run that is traced leaves its artifacts, which name the trace; they cost more than a small run.
        write = [] if os.environ.get(TRACE) else ["--no-write-json"]
        outcome = self.runner.invoke([command, *self.options, *write, *arguments])
        for result in outcome.result or []:
            if result.status == "warn":
                print(f"refiner: warning: {result.node.name}: {result.node.description or result.message}", file=sys.stderr)
        if outcome.success:
            return
        if outcome.exception:
            raise RunFailed(f"dbt {command}: {outcome.exception}", retryable=True)
        bad = [result for result in outcome.result if result.status in ("error", "fail", "runtime error")]
        said = "; ".join(f"{result.node.name}: {result.message}" for result in bad) or f"dbt {command} failed"
        # A test that fails says that the data are wrong, which no second try changes.
        wrong = any(result.status == "fail" for result in bad)
        raise RunFailed(said, retryable=not wrong, phase=self.phase(bad[0].node.unique_id) if bad else None)

    def phase(self, node: str) -> str:
        """The phase of a run that a node belongs to."""
        if node.startswith("test."):
            return "test"
        return "gold" if node.rsplit(".", 1)[-1] in {table.name for table in self.gold} else "silver"


def is_gold(node: Any) -> bool:
    return node.resource_type == "model" and node.fqn[1] == "gold"


def table(node: Any) -> Table:
    meta = node.config.meta
    return Table(node.name, meta["made"], meta["published_per"], meta["published_by"], tuple(meta["key"]))


def stamps() -> dict[Path, tuple[int, int]]:
    """What changes when somebody mends a model: of each file of the project its time and size."""
    files = [path for pattern in ("*.yml", *(f"{folder}/**/*" for folder in FOLDERS)) for path in ROOT.glob(pattern) if path.is_file()]
    return {path: (stat.st_mtime_ns, stat.st_size) for path in files if (stat := path.stat())}
