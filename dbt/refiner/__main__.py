"""`python -m refiner`: the process at the daemon's pipe. Ends when its standard input closes."""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

VERSION = 1


def main() -> int:
    arguments = parse()
    # Standard output is the protocol's alone: whatever dbt prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    commands = read_commands()

    from .warehouse import Warehouse  # imports dbt: a second or two

    warehouse = Warehouse(arguments.db, arguments.gold, json.loads(arguments.vars))
    say(answers, event="hello", version=VERSION, pid=os.getpid(), **warehouse.greeting())
    while (command := commands.get()) is not None:
        match command.get("cmd"):
            case "refine":
                refine(warehouse, answers, command)
            case "audit":
                say(answers, event="audited", id=command["id"], **warehouse.audit())
            case "stop":
                break
            case other:
                say(answers, event="failed", id=command.get("id", 0), phase="protocol", error=f"unknown command {other!r}", retryable=False)
    warehouse.close()
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="refiner", description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="the DuckDB file")
    parser.add_argument("--gold", type=Path, required=True, help="where Gold is published")
    parser.add_argument("--vars", default="{}", help="dbt variables, as JSON")
    return parser.parse_args()


def refine(warehouse: Any, answers: IO[str], command: dict[str, Any]) -> None:
    began, cpu = time.monotonic(), time.process_time()
    phase, traceparent = "load", command.get("traceparent")
    name_trace(traceparent)

    def progress(name: str) -> None:
        nonlocal phase
        phase = name
        say(answers, event="progress", id=command["id"], phase=name)

    try:
        outcome = warehouse.refine(command["slots"], progress)
    except Exception as error:  # noqa: BLE001 - whatever it is, the daemon must hear of it
        print(f"refiner: {phase}: {error!r}" + (f" traceparent={traceparent}" if traceparent else ""), file=sys.stderr)
        say(answers, event="failed", id=command["id"], phase=phase, error=str(error), retryable=True)
        return
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
    say(answers, event="done", id=command["id"], seconds=round(seconds, 3), cpu_seconds=round(cpu_seconds, 3), **outcome)


def name_trace(traceparent: str | None) -> None:
    """Has dbt name the trace of this run in its artifacts: `metadata.env.TRACEPARENT` of run_results.json."""
    from dbt_common.events.functions import reset_metadata_vars

    name = "DBT_ENV_CUSTOM_ENV_TRACEPARENT"
    os.environ.pop(name, None)
    if traceparent:
        os.environ[name] = traceparent
    reset_metadata_vars()  # dbt reads them once a process


def read_commands() -> queue.Queue[dict[str, Any] | None]:
    """Reads in a thread of its own, so that the end of the daemon ends a run in progress too."""
    commands: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        stopping = False
        for line in sys.stdin:
            command = json.loads(line)
            stopping |= command.get("cmd") == "stop"
            commands.put(command)
        commands.put(None)
        if not stopping:
            # The daemon is gone. Nothing half done is visible: rows and ledgers commit together,
            # and Gold is published by rename.
            time.sleep(2)
            os._exit(0)

    threading.Thread(target=read, daemon=True, name="commands").start()
    return commands


def say(answers: IO[str], **message: Any) -> None:
    answers.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    sys.exit(main())
