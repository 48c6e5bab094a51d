"""`python -m refiner`: the process at the daemon's pipe. Ends when its standard input closes."""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .warehouse import Warehouse

VERSION = 1

#: A run that is at work when the daemon dies may finish within this; then the process ends without it.
GRACE = 2.0

#: dbt's threads and the pulse speak too, a line at a time.
SAYING = threading.Lock()

Commands = queue.SimpleQueue  # its `put` may be called by a signal handler


def main() -> int:
    arguments = parse()
    # Standard output is the protocol's alone: whatever dbt prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    commands = Commands()
    signal.signal(signal.SIGTERM, lambda *_: commands.put({"cmd": "stop"}))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is for the daemon, which then says stop
    threading.Thread(target=read, args=(commands,), daemon=True, name="commands").start()

    from .errors import RunFailed
    from .warehouse import Warehouse  # imports dbt: a second or two

    try:
        warehouse = Warehouse(arguments.db.resolve(), arguments.gold.resolve(), json.loads(arguments.vars))
    except RunFailed as error:
        fail(answers, 0, error.phase or "start", str(error), retryable=error.retryable, failing=error.failing)
        return 1
    try:
        say(answers, event="hello", version=VERSION, pid=os.getpid(), **warehouse.greeting())
        while (command := commands.get()).get("cmd") != "stop":
            obey(warehouse, answers, command)
    except BrokenPipeError:
        pass  # nobody listens any more
    warehouse.close()
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="refiner", description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="the DuckDB file")
    parser.add_argument("--gold", type=Path, required=True, help="where Gold is published")
    parser.add_argument("--vars", default="{}", help="dbt variables, as JSON")
    return parser.parse_args()


def read(commands: Commands) -> None:
    """Reads in a thread of its own, so that the end of the daemon ends a run in progress too."""
    stopping = False
    for line in sys.stdin:
        try:
            command = json.loads(line)
            assert isinstance(command, dict), "not an object"
        except (ValueError, AssertionError) as error:
            command = {"cmd": "unreadable", "error": f"{error}: {line.strip()[:200]}"}
        stopping = command.get("cmd") == "stop"
        commands.put(command)
    commands.put({"cmd": "stop"})
    if not stopping:
        time.sleep(GRACE)
        os._exit(0)


def obey(warehouse: Warehouse, answers: IO[str], command: dict[str, Any]) -> None:
    number = command.get("id", 0)
    match command.get("cmd"):
        case "refine":
            refine(warehouse, answers, number, command)
            warehouse.rest()
        case "audit":
            say(answers, event="audited", id=number, **warehouse.audit())
        case "unreadable":
            fail(answers, number, "protocol", command["error"], retryable=False)
        case other:
            fail(answers, number, "protocol", f"unknown command {other!r}", retryable=False)


def refine(warehouse: Warehouse, answers: IO[str], number: int, command: dict[str, Any]) -> None:
    from . import failures
    from .errors import RunFailed
    from .pulse import Pulse

    began, cpu, phase = time.monotonic(), time.process_time(), "load"
    told = set()
    name_trace(command.get("traceparent"))

    def progress(name: str) -> None:
        nonlocal phase
        phase = name
        again = {"again": True} if name in told else {}
        told.add(name)
        say(answers, event="progress", id=number, phase=name, **again)

    def beat() -> None:
        say(answers, event="progress", id=number, phase=phase, again=True)

    try:
        failures.adopt(warehouse.connection, command.get("failing"))
        with Pulse(beat):
            warehouse.bucket.enter(command.get("s3"))
            outcome = warehouse.refine(command["slots"], progress, anew=bool(command.get("full_refresh")))
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the daemon must hear of it
        where = f" [trace {trace}]" if (trace := command.get("traceparent")) else ""
        retryable = True
        if isinstance(error, RunFailed):
            phase, retryable = error.phase or phase, error.retryable
        print(f"refiner: {phase}: {error!r}{where}", file=sys.stderr)
        fail(answers, number, phase, str(error), retryable=retryable, failing=warehouse.failed(phase, str(error)))
        return
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
    say(answers, event="done", id=number, seconds=round(seconds, 3), cpu_seconds=round(cpu_seconds, 3), **outcome)


def name_trace(traceparent: str | None) -> None:
    """Has dbt name the trace of this run in its artifacts: `metadata.env.TRACEPARENT` of run_results.json."""
    from dbt_common.events.functions import reset_metadata_vars

    from .project import TRACE

    os.environ.pop(TRACE, None)
    if traceparent:
        os.environ[TRACE] = traceparent
    reset_metadata_vars()  # dbt reads them once a process


def fail(answers: IO[str], number: int, phase: str, error: str, *, retryable: bool, failing: dict[str, Any] | None = None) -> None:
    say(answers, event="failed", id=number, phase=phase, error=error, retryable=retryable, failing=failing)


def say(answers: IO[str], **message: Any) -> None:
    with SAYING:
        answers.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    sys.exit(main())
