"""Publishes Gold as Parquet that anybody can read while the next run is being made.

One file a table and day (UTC), named by the run that wrote it; `manifest.json` last, by rename. A reader
that follows the manifest sees one version or the next, never half of one. A file that a newer one
replaces stays for a while, for readers that are at it; the manifest remembers which those are.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

#: A replaced file is removed when so many newer runs stand, and so many seconds are over.
KEEP_RUNS = 3
KEEP_SECONDS = 30

DAY = re.compile(r"r\d+-(\d{4}-\d\d-\d\d)\.parquet$")


class Publisher:
    """The folder of Gold. `origin` tells what made it: another one means that no file can stay."""

    def __init__(self, gold: Path, origin: dict[str, str]) -> None:
        self.gold, self.origin = gold, origin
        self.folder = gold / "ohlc_1m"
        self.folder.mkdir(parents=True, exist_ok=True)

    def manifest(self) -> dict[str, Any]:
        path = self.gold / "manifest.json"
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            # As if there were none: Gold is published anew.
            print(f"refiner: {path} is damaged ({error}); Gold is published anew", file=sys.stderr)
            return {}
        return found if isinstance(found, dict) else {}

    def run(self) -> int:
        """The run that stands; 0 before the first."""
        return self.manifest().get("run", 0)

    def is_of_this_origin(self) -> bool:
        return self.manifest().get("origin") == self.origin

    def publish(self, connection: duckdb.DuckDBPyConnection, run: int, tails: dict[str, Any], *, anew: bool) -> None:
        """Writes the days that runs since the published one have touched, or all, then the manifest."""
        before = self.manifest()
        anew = anew or not self.is_of_this_origin()
        old = before.get("tables", {}).get("ohlc_1m", {}).get("files", [])
        files = {} if anew else {day(file): file for file in old}
        since = 0 if anew else before["run"]
        for touched in days(connection, since):
            files[touched] = f"ohlc_1m/r{run}-{touched}.parquet"
            self.write(connection, files[touched], touched)
        kept = [files[key] for key in sorted(files)]
        now = datetime.now(UTC)
        replaced = before.get("replaced", {}) | {file: [run, now.timestamp()] for file in old if file not in kept}
        gone = {file for file, (by, at) in replaced.items() if by <= run - KEEP_RUNS and at <= time.time() - KEEP_SECONDS}
        (rows,) = connection.execute("select count(*) from gold.ohlc_1m").fetchone()
        (newest,) = connection.execute("select max(event_time) from silver.trades where silver_run > ?", [since]).fetchone()
        marks = [mark for mark in (None if anew else before["watermark"], newest and newest.isoformat()) if mark]
        self.write_manifest(
            {
                "run": run,
                "watermark": max(marks, key=datetime.fromisoformat, default=None),
                "published_at": now.isoformat(),
                "tables": {"ohlc_1m": {"files": kept, "rows": rows}},
                "tails": tails,
                "origin": self.origin,
                "replaced": {file: when for file, when in replaced.items() if file not in gone},
            }
        )
        self.sweep(set(kept) | replaced.keys() - gone)

    def write(self, connection: duckdb.DuckDBPyConnection, file: str, touched: str) -> None:
        path = self.gold / file
        temporary = path.with_suffix(".tmp")
        query = f"""select * from gold.ohlc_1m
                    where bucket_start >= timestamptz '{touched} 00:00:00+00'
                      and bucket_start < timestamptz '{touched} 00:00:00+00' + interval 1 day
                    order by symbol, source, bucket_start, session"""
        quoted = str(temporary).replace("'", "''")
        connection.execute(f"copy ({query}) to '{quoted}' (format parquet, compression zstd)")
        rename(temporary, path)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        temporary = self.gold / "manifest.json.tmp"
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
        rename(temporary, self.gold / "manifest.json")

    def sweep(self, named: set[str]) -> None:
        """Removes what the manifest does not name: replaced long ago, or left by a run that was killed."""
        for path in self.folder.iterdir():
            if str(path.relative_to(self.gold)) not in named:
                path.unlink(missing_ok=True)


def day(file: str) -> str:
    found = DAY.search(file)
    assert found, f"{file} is not a file that this program publishes"
    return found[1]


def days(connection: duckdb.DuckDBPyConnection, since: int) -> list[str]:
    """The days of which a run after `since` brought trades, or changed verdicts."""
    rows = connection.execute(
        """
        select strftime(bucket_start, '%Y-%m-%d') from silver.trades where silver_run > $since
        union select strftime(bucket_start, '%Y-%m-%d') from bronze.verdicts_changed where run > $since order by 1
        """,
        {"since": since},
    ).fetchall()
    return [row[0] for row in rows]


def rename(temporary: Path, path: Path) -> None:
    """Puts a file in its place, whole and on the disk."""
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
