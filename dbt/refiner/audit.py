"""`python -m refiner.audit --db FILE`: counts what Silver holds, as JSON. Waits while a refiner has the file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

#: How long a refiner that holds the file is waited for.
PATIENCE = 20.0

STREAMS = {"trades": ("trades", "rejected_trades"), "gaps": ("gaps",), "quarantine": ("quarantine",)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="refiner.audit", description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="the DuckDB file")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to wait for the lock (default %(default)s)")
    arguments = parser.parse_args()
    try:
        connection = open_patiently(arguments.db, arguments.patience)
    except (duckdb.Error, FileNotFoundError) as error:
        print(f"{arguments.db} cannot be opened: {error}", file=sys.stderr)
        return 1
    print(json.dumps(count(connection)))
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
    trades count as trades."""
    rows = connection.execute("select table_name from duckdb_tables() where schema_name = 'silver'").fetchall()
    there = {name for (name,) in rows}
    streams, sessions = {}, {}
    for stream, tables in STREAMS.items():
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
    return {"streams": streams, "sessions": sessions}


if __name__ == "__main__":
    sys.exit(main())
