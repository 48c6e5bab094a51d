"""The real refiner process, spoken to over its pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import duckdb

PROJECT = Path(os.environ.get("TICKMINT_DBT", Path(__file__).resolve().parents[2] / "dbt"))


class Refiner:
    """A running process. Use it as a context: it is told to stop at the end, and must exit with 0."""

    def __init__(
        self, folder: Path, *, sale_conditions: str = "cts_utp", project: Path = PROJECT, program: list[str] | None = None, **variables: str
    ) -> None:
        self.db, self.gold = folder / "warehouse.duckdb", folder / "gold"
        self.log = folder / "refiner.log"
        folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            self.child = subprocess.Popen(
                [sys.executable, *(program or ["-m", "refiner"]), "--db", str(self.db), "--gold", str(self.gold)]
                + ["--vars", json.dumps({"sale_conditions": sale_conditions, **variables})],
                cwd=project,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.next_id = 0
        self.phases: list[str] = []
        self.hello = self.event()
        assert self.hello["event"] == "hello", self.hello

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.child.poll() is None and kind is None:
            assert self.stop() == 0, self.log.read_text()
        self.kill()

    def event(self) -> dict[str, Any]:
        line = self.child.stdout.readline()
        assert line, f"the refiner ended ({self.child.wait(10)}):\n{self.log.read_text()[-4000:]}"
        return json.loads(line)

    def may_say(self) -> dict[str, Any]:
        """As `event`, of a process that may die: then its last word is an event `died`."""
        line = self.child.stdout.readline()
        if not line:
            self.child.wait(30)
        return json.loads(line) if line else {"event": "died"}

    def send(self, **command: Any) -> int:
        self.next_id += 1
        self.say(json.dumps({"id": self.next_id, **command}))
        return self.next_id

    def say(self, line: str) -> None:
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next event that is no progress."""
        while (event := self.event())["event"] == "progress":
            if not event.get("again"):
                self.phases.append(event["phase"])
        return event

    def ask(self, slots: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        self.phases = []
        self.send(cmd="refine", traceparent=None, slots=slots, **more)
        return self.answer()

    def refine(self, slots: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        answer = self.ask(slots, **more)
        assert answer["event"] == "done", f"{answer}\n{self.log.read_text()[-4000:]}"
        return answer

    def audit(self) -> dict[str, Any]:
        self.send(cmd="audit")
        return self.answer()

    def bars(self) -> dict[tuple, tuple]:
        return published(self.gold)

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.gold / "manifest.json").read_text())

    def stop(self) -> int:
        self.say('{"cmd":"stop"}')
        return self.child.wait(30)

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait(30)
        for pipe in (self.child.stdin, self.child.stdout):
            with suppress(BrokenPipeError):
                pipe.close()


def run_audit(db: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "refiner.audit", "--db", str(db), *more]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def audit_of(home: Path, sale_conditions: str = "cts_utp") -> dict[str, Any]:
    """What the audit says of a warehouse that nobody has open, Gold included."""
    variables = json.dumps({"sale_conditions": sale_conditions})
    done = run_audit(home / "warehouse.duckdb", "--gold", str(home / "gold"), "--vars", variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def edit(project: Path, file: str, old: str, new: str) -> None:
    """Replaces a text of a copy of the project, which must stand there once."""
    path = project / file
    text = path.read_text()
    assert text.count(old) == 1, text
    path.write_text(text.replace(old, new))


def published(gold: Path) -> dict[tuple, tuple]:
    """The bars of the version that stands now: (symbol, session, minute in ms) to the rest of the row."""
    table = json.loads((gold / "manifest.json").read_text())["tables"]["ohlc_1m"]
    if not table["files"]:
        return {}
    with duckdb.connect() as connection:
        rows = connection.execute(
            """select symbol, session, epoch_ms(bucket_start), open, high, low, close, volume, notional, trades, vwap
               from read_parquet(?)""",
            [[str(gold / file) for file in table["files"]]],
        ).fetchall()
    assert len(rows) == table["rows"], "the manifest's count is not that of its files"
    assert len({row[:3] for row in rows}) == len(rows), "a bar stands twice"
    return {row[:3]: row[3:] for row in rows}
