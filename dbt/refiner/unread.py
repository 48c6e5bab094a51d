"""Slots with an object that cannot be read: they wait, and the models go on without them.

An object that is gone or rotten is tried again each round, and the daemon is told of it each round, until
it can be read; then the models take its slot. What says nothing of one object (a bucket that does not
answer) is an error of the whole round as before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import duckdb

#: How long a round reads again what could not be read, in seconds: there may be a whole folder of it.
PATIENCE = 5.0

Connection = duckdb.DuckDBPyConnection


def rows_of(typed: list[str], connection: Connection) -> tuple[dict[str, int], dict[str, str]]:
    """The number of rows by object, from the footers; and what is said of the objects that cannot be read."""
    try:
        return footers(typed, connection), {}
    except duckdb.Error:
        pass
    counts, errors = {}, {}
    for one in typed:
        try:
            counts |= footers([one], connection)
        except duckdb.Error as error:
            errors[one] = said(error, one)
    return counts, errors


def footers(typed: list[str], connection: Connection) -> dict[str, int]:
    if not typed:
        return {}
    return dict(connection.execute("select file_name, num_rows from parquet_file_metadata(?)", [typed]).fetchall())


def read(connection: Connection, typed: str) -> int:
    """The number of rows, after reading all of them: a footer may be whole where a page is not."""
    return connection.execute("select count(*), bit_xor(hash(columns(*))) from read_parquet(?)", [typed]).fetchone()[0]


def said(error: Exception, path: str) -> str:
    """The error in one line, with the object. Raises it if it says nothing of the object."""
    in_bucket = path.startswith("s3://") and isinstance(error, duckdb.IOException)
    if isinstance(error, duckdb.OutOfMemoryException) or in_bucket and getattr(error, "status_code", None) != 404:
        raise error
    return f"{path}: {str(error).partition(chr(10))[0]}"


def add(connection: Connection, at: list[Any], error: str, raw: str | None, offsets: list[int]) -> None:
    connection.execute("insert into bronze.unread values (?, ?, ?, ?, ?, ?, ?, now())", [*at, error, raw, offsets])


def again(connection: Connection, at: list[Any], error: str) -> None:
    connection.execute(
        "update bronze.unread set error = ?, tried = now() where stream = ? and partition = ? and generation = ? and start = ?",
        [error, *at],
    )


def remove(connection: Connection, at: list[Any]) -> None:
    connection.execute("delete from bronze.unread where stream = ? and partition = ? and generation = ? and start = ?", at)


def due(connection: Connection) -> Iterator[tuple[list[Any], str, int, int, str | None, list[int]]]:
    """What is tried again in this round, the one that has waited longest first: place, object, rows, how many of them are
    poison, and the poison that is still to be read."""
    rows = connection.execute(
        "select stream, partition, generation, start, typed, rows, poison, raw, offsets "
        "from bronze.unread join bronze.slots using (stream, partition, generation, start) order by tried"
    ).fetchall()
    until = time.monotonic() + PATIENCE
    for stream, partition, generation, start, *rest in rows:
        if time.monotonic() > until:
            return
        yield [stream, partition, generation, start], *rest


def tell(connection: Connection) -> dict[str, Any] | None:
    """How many slots wait, and the error of the first of them; None if none does."""
    slots, error = connection.execute(
        "select count(*), arg_min(error, (stream, partition, generation, start)) from bronze.unread"
    ).fetchone()
    return {"slots": slots, "error": error} if slots else None
