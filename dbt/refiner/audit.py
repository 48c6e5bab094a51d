"""`python -m refiner.audit --db FILE [--gold FOLDER]`: counts what the warehouse holds, as JSON.

Waits while a refiner has the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

from .gold import Gold
from .slots import MODELS

#: How long a refiner that holds the file is waited for.
PATIENCE = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="refiner.audit", description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="the DuckDB file")
    parser.add_argument("--gold", type=Path, help="where Gold is published, to audit that too")
    parser.add_argument("--vars", default="{}", help="the dbt variables that Gold is made with, as JSON")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to wait for the lock (default %(default)s)")
    arguments = parser.parse_args()
    try:
        connection = open_patiently(arguments.db, arguments.patience)
    except (duckdb.Error, FileNotFoundError) as error:
        print(f"{arguments.db} cannot be opened: {error}", file=sys.stderr)
        return 1
    counts = count(connection)
    if arguments.gold:
        counts["gold"] = Gold(connection, arguments.gold, json.loads(arguments.vars)).audit()
    print(json.dumps(counts))
    return 0


def open_patiently(path: Path, patience: float) -> duckdb.DuckDBPyConnection:
    if not path.exists():
        raise FileNotFoundError("there is no such file")
    until = time.monotonic() + patience
    while True:
        try:
            return duckdb.connect(str(path), read_only=True)
        except duckdb.IOException as error:
            if "lock" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.25)


def count(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """By stream, rows, distinct identities, and rows that the loads kept; the first two by session. Rejected
    trades count as trades: they are rows of `stg_trades`."""
    rows = connection.execute("select table_name from duckdb_tables() where schema_name = 'silver'").fetchall()
    there = {name for (name,) in rows}
    streams, sessions = {}, {}
    for stream, tables in MODELS.items():
        parts = [f"select session, frame, idx from silver.{table}" for table in tables if table in there]
        found = connection.execute(
            f"select session, count(*), count(distinct (frame, idx)) from ({' union all '.join(parts)}) group by session order by session"
        ).fetchall() if parts else []  # fmt: skip
        (kept,) = connection.execute(
            "select coalesce(sum(kept), 0)::bigint from bronze.loads where list_contains(?, model)", [list(tables)]
        ).fetchone() if parts else (0,)  # fmt: skip
        streams[stream] = {"rows": sum(row[1] for row in found), "distinct": sum(row[2] for row in found), "kept": kept}
        for session, number, distinct in found:
            sessions.setdefault(session, {})[stream] = {"rows": number, "distinct": distinct}
    known = connection.execute("select count(*) > 0 from duckdb_tables() where schema_name = 'bronze' and table_name = 'slots'").fetchone()[0]
    return {"streams": streams, "sessions": sessions, "taken": taken(connection) if known else {}, "chains": chains(connection) if known else {}}


def taken(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """By stream, the records of the slots that all of its models have in their ledgers: so many rows there must be.
    Poison is in the ledger of `quarantine`, whichever stream it came from."""
    found = {}
    for stream, models in MODELS.items():
        (found[stream],) = connection.execute(
            """
            select coalesce(sum(case when stream = $stream then coalesce(typed_rows, 0) else 0 end
              + case when $stream = 'quarantine' then poison else 0 end), 0)::bigint
            from bronze.slots
            join (
              select stream, partition, generation, start from bronze.ledger
              where list_contains($models, model) group by all having count(distinct model) = $number
            ) using (stream, partition, generation, start)
            """,
            {"stream": stream, "models": list(models), "number": len(models)},
        ).fetchone()
    return found


def chains(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, int]]:
    """Of each chain, the last slot, and how many slots and records there are up to it."""
    rows = connection.execute(
        """
        select stream || '/' || partition, max_by((generation, "end"), (generation, start)), count(*), sum(rows)::bigint
        from bronze.slots group by stream, partition order by stream, partition
        """
    ).fetchall()
    return {chain: {"generation": at[0], "end": at[1], "slots": slots, "rows": records} for chain, at, slots, records in rows}


if __name__ == "__main__":
    sys.exit(main())
