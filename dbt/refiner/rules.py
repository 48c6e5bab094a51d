"""By which rules the tables of the file were made: the fingerprint (see origin.py), from when all of Gold was made and
published by them until other ones are put in their place. In between there is none: what stands then is of both, and is
made anew, by whichever rules come next."""

from __future__ import annotations

import duckdb

Connection = duckdb.DuckDBPyConnection


def hold(connection: Connection, fingerprint: str) -> bool:
    """Whether all that stands was made by these."""
    return connection.execute("select count(*) > 0 from bronze.rules where fingerprint = ?", [fingerprint]).fetchone()[0]


def leave(connection: Connection) -> None:
    """To be called before the first table is changed."""
    connection.execute("delete from bronze.rules")


def keep(connection: Connection, fingerprint: str) -> None:
    """To be called when Gold is published."""
    connection.begin()
    connection.execute("delete from bronze.rules")
    connection.execute("insert into bronze.rules values (?)", [fingerprint])
    connection.commit()
