"""Publishes Gold as Parquet that anybody can read while the next run is being made.

One file a table and day, named by its run; `manifest.json` last, by rename. A reader that follows the
manifest sees one version or the next, never half of one.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb

#: Files of older versions are kept for so many runs, for readers that are slow.
KEEP_RUNS = 5


def published_run(gold: Path) -> int:
    """The run that stands in the manifest; 0 before the first."""
    return read_manifest(gold).get("run", 0)


def read_manifest(gold: Path) -> dict[str, Any]:
    try:
        return json.loads((gold / "manifest.json").read_text())
    except FileNotFoundError:
        return {}


def publish(connection: duckdb.DuckDBPyConnection, gold: Path, run: int) -> None:
    """Writes the days that runs since the published one have touched, then the manifest."""
    manifest = read_manifest(gold)
    before = manifest.get("tables", {}).get("ohlc_1m", {})
    files = {Path(file).parent.name: file for file in before.get("files", [])}
    folder = gold / "ohlc_1m"
    for day in touched_days(connection, manifest.get("run", 0)):
        name = f"day={day.isoformat()}"
        (folder / name).mkdir(parents=True, exist_ok=True)
        file = f"ohlc_1m/{name}/r{run}.parquet"
        write(connection, gold / file, day)
        files[name] = file
    kept = [files[name] for name in sorted(files)]
    (rows,) = connection.execute("select count(*) from gold.ohlc_1m").fetchone()
    (watermark,) = connection.execute("select max(event_time) from silver.trades").fetchone()
    write_manifest(
        gold,
        {
            "run": run,
            "watermark": watermark.isoformat() if watermark else None,
            "published_at": datetime.now(UTC).isoformat(),
            "tables": {"ohlc_1m": {"files": kept, "rows": rows}},
        },
    )
    sweep(folder, set(kept), run)


def touched_days(connection: duckdb.DuckDBPyConnection, since: int) -> list[date]:
    rows = connection.execute("select distinct cast(event_time as date) from silver.trades where silver_run > ? order by 1", [since])
    return [row[0] for row in rows.fetchall()]


def write(connection: duckdb.DuckDBPyConnection, path: Path, day: date) -> None:
    temporary = path.with_suffix(".tmp")
    query = f"""select * from gold.ohlc_1m where cast(bucket_start as date) = date '{day.isoformat()}'
                order by symbol, source, bucket_start, session"""
    connection.execute(f"copy ({query}) to '{temporary}' (format parquet, compression zstd)")
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def write_manifest(gold: Path, manifest: dict[str, Any]) -> None:
    temporary = gold / "manifest.json.tmp"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    sync(temporary)
    os.replace(temporary, gold / "manifest.json")
    sync(gold)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, kept: set[str], run: int) -> None:
    """Removes what no manifest of the last runs can name."""
    for path in folder.glob("*/r*.parquet"):
        version = int(path.stem[1:])
        if version <= run - KEEP_RUNS and str(path.relative_to(folder.parent)) not in kept:
            path.unlink(missing_ok=True)
