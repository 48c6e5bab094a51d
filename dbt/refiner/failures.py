"""The book of rounds that failed one after another: at most one row, from the first of them until a good one.

It stands in the warehouse, so a restart of either process forgets neither since when Gold stands still nor why.
"""

from __future__ import annotations

from datetime import UTC
from typing import Any

import duckdb

TABLE = """create table if not exists bronze.failures (began timestamptz not null, last timestamptz not null,
  rounds bigint not null, phase varchar not null, error varchar not null)"""

Connection = duckdb.DuckDBPyConnection
Failing = dict[str, Any]


def note(connection: Connection, phase: str, error: str) -> None:
    """A round failed: the series begins, or goes on."""
    if tell(connection):
        connection.execute("update bronze.failures set last = now(), rounds = rounds + 1, phase = ?, error = ?", [phase, error])
    else:
        connection.execute("insert into bronze.failures values (now(), now(), 1, ?, ?)", [phase, error])


def adopt(connection: Connection, told: Failing | None) -> None:
    """What the daemon knows of the series: a process that was killed, or never came up, could not write it down."""
    if not told:
        return
    at = [told["since"], told["rounds"]]
    if tell(connection):
        connection.execute("update bronze.failures set began = least(began, ?::timestamptz), rounds = greatest(rounds, ?)", at)
    else:
        connection.execute("insert into bronze.failures values (?, now(), ?, ?, ?)", [*at, told["phase"], told["error"]])


def clear(connection: Connection) -> None:
    connection.execute("delete from bronze.failures")


def tell(connection: Connection) -> Failing | None:
    """Since when (UTC), how many rounds in a row, and of the last of them where and why; None if it did not fail."""
    found = connection.execute("select began, rounds, phase, error from bronze.failures").fetchone()
    if not found:
        return None
    began, rounds, phase, error = found
    return {"since": began.astimezone(UTC).isoformat(), "rounds": rounds, "phase": phase, "error": error}
