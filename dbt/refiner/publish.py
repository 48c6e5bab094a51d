"""Publishes Gold as Parquet that anybody can read while the next run is being made.

A table's files are of a day, month or year (UTC), named by the run that wrote them; `manifest.json` last, by
rename. A reader that follows the manifest sees one version or the next, never half of one, of all tables at
once. A file that a newer one replaces stays for a while, for readers that are at it; the manifest remembers
which those are.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from .project import Table

#: A replaced file is removed when so many newer runs stand, and so many seconds are over.
KEEP_RUNS = 3
KEEP_SECONDS = 30

#: Tables that are written at once.
WRITERS = 2

#: What a file holds: how its name is made of a day that lies in it.
SPANS = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y", "all": "all"}
SPAN = re.compile(r"r\d+-(\d{4}(?:-\d\d){0,2}|all)\.parquet$")

#: Trades whose times tell how far Gold goes: see macros/gold.sql `tells_the_time`.
CLOSING = "bucket_start is not null and not time_suspect"

Connection = duckdb.DuckDBPyConnection


class Publisher:
    """The folder of Gold. `origin` tells what made it: another one means that no file can stay."""

    def __init__(self, gold: Path, origin: dict[str, str]) -> None:
        self.gold, self.origin = gold, origin
        self.gold.mkdir(parents=True, exist_ok=True)

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

    def is_of_this_warehouse(self) -> bool:
        """By these rules or others."""
        return self.manifest().get("origin", {}).get("warehouse") == self.origin["warehouse"]

    def publish(self, connection: Connection, run: int, tables: list[Table], tails: dict[str, Any], *, anew: bool) -> None:
        """Writes what runs since the published one have changed, or all, then the manifest."""
        before = self.manifest()
        anew = anew or not self.is_of_this_origin()
        since = 0 if anew else before["run"]

        def write(table: Table) -> dict[str, Any]:
            old = None if anew else before["tables"].get(table.name)
            own = connection.cursor()
            own.execute("set TimeZone = 'UTC'")
            return self.write_table(own, run, table, old, since)

        # A file is sorted and written by one thread for the most part.
        with ThreadPoolExecutor(WRITERS) as pool:
            now = {table.name: written for table, written in zip(tables, pool.map(write, tables), strict=True)}
        (newest,) = connection.execute(f"select max(event_time) from silver.stg_trades where {CLOSING} and silver_run > ?", [since]).fetchone()
        marks = [mark for mark in (None if anew else before["watermark"], newest and newest.isoformat()) if mark]
        self.stand(
            run,
            before,
            {
                "run": run,
                "watermark": max(marks, key=datetime.fromisoformat, default=None),
                "published_at": datetime.now(UTC).isoformat(),
                "tables": now,
                "tails": tails,
                "origin": self.origin,
            },
        )
        connection.execute("delete from bronze.gold_days where run <= ?", [run])

    def publish_alone(self, connection: Connection, run: int, table: Table) -> None:
        """Writes what has changed of one table, while all others stay at the version that stands, as does its number."""
        before = self.manifest()
        written = self.write_table(connection, run, table, before["tables"].get(table.name), before["run"])
        self.stand(run, before, before | {"tables": before["tables"] | {table.name: written}})

    def stand(self, run: int, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Has a manifest stand in the place of the one before. Files that it names no more stay for a while."""
        named = files_of(now)
        replaced = before.get("replaced", {}) | {file: [run, time.time()] for file in files_of(before) - named}
        stay = {file: [by, when] for file, (by, when) in replaced.items() if by > run - KEEP_RUNS or when > time.time() - KEEP_SECONDS}
        self.write_manifest(now | {"replaced": stay})
        self.sweep(named | stay.keys())

    def write_table(self, connection: Connection, run: int, table: Table, old: dict[str, Any] | None, since: int) -> dict[str, Any]:
        """Writes what has changed of a table, or all where there is nothing `old` to keep. Returns its part of the manifest."""
        (rows,) = connection.execute(f"select count(*) from gold.{table.name}").fetchone()
        files = {span(file): file for file in old["files"]} if old else {}
        for changed in spans(connection, table, since if old else None):
            file = f"{table.name}/r{run}-{changed}.parquet"
            if self.write(connection, file, table, changed):
                files[changed] = file
            else:
                files.pop(changed, None)
        return {"files": [files[key] for key in sorted(files)], "rows": rows}

    def write(self, connection: Connection, file: str, table: Table, changed: str) -> int:
        """Writes a file of a table. Returns its rows: without any there is no file."""
        path = self.gold / file
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        query = f"select * from gold.{table.name} {within(table, changed)} order by {', '.join(table.key)}"
        quoted = str(temporary).replace("'", "''")
        (rows,) = connection.execute(f"copy ({query}) to '{quoted}' (format parquet, compression zstd, compression_level 1)").fetchone()
        if rows:
            rename(temporary, path)
        else:
            temporary.unlink()
        return rows

    def note_failing(self, failing: dict[str, Any] | None) -> None:
        """Has the manifest say since when, where and why no newer version comes, or that nothing fails. All else in it
        stays: readers have the same files."""
        manifest, keys = self.manifest(), ("since", "phase", "error")
        noted = failing and {key: failing[key] for key in keys}
        if manifest and manifest.get("failing") != noted:
            self.write_manifest(manifest | {"failing": noted})

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        temporary = self.gold / "manifest.json.tmp"
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
        rename(temporary, self.gold / "manifest.json")

    def sweep(self, named: set[str]) -> None:
        """Removes what the manifest does not name: replaced long ago, or left by a run that was killed."""
        for path in self.gold.glob("*/*"):
            if str(path.relative_to(self.gold)) not in named:
                path.unlink(missing_ok=True)


def files_of(manifest: dict[str, Any]) -> set[str]:
    return {file for table in manifest.get("tables", {}).values() for file in table["files"]}


def span(file: str) -> str:
    found = SPAN.search(file)
    assert found, f"{file} is not a file that this program publishes"
    return found[1]


def spans(connection: Connection, table: Table, since: int | None) -> list[str]:
    """The parts of a table that runs after `since` have changed, or all that it has."""
    if since is None and table.per == "all":
        return ["all"]
    if since is None:
        query, values = f"select distinct cast({table.column} as date) from gold.{table.name}", []
    else:
        query, values = "select distinct day from bronze.gold_days where model = ? and run > ?", [table.name, since]
    return sorted({day.strftime(SPANS[table.per]) for (day,) in connection.execute(query, values).fetchall()})


def within(table: Table, changed: str) -> str:
    """The rows of a part of a table, as a condition."""
    if table.per == "all":
        return ""
    year, month, day = (int(part) for part in (changed + "-01-01").split("-")[:3])
    begin = date(year, month, day)
    length = {"day": "1 day", "month": "1 month", "year": "1 year"}[table.per]
    return f"where {table.column} >= timestamptz '{begin} 00:00:00+00' and {table.column} < timestamptz '{begin} 00:00:00+00' + interval {length}"


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
