"""The audit of Gold: what is published is whole, is what the database holds, and is what Silver's trades give.

The last is computed here once more, and not by the model's SQL: which trades may move a volume is decided in
Python, and the sums are made over all of Silver at once. Prices are left to the tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb

from .origin import fingerprint

BARS = "ohlc_1m"


class Gold:
    """The folder of Gold beside an open database, and what is to be said of it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path, variables: dict[str, Any]) -> None:
        self.connection, self.folder, self.variables = connection, folder, variables
        self.faults: list[str] = []
        self.notes: list[str] = []

    def audit(self) -> dict[str, Any]:
        self.connection.execute("set TimeZone = 'UTC'")
        bars = self.published()
        return {"bars": bars, "faults": self.faults, "notes": self.notes}

    def published(self) -> int | None:
        """How many bars are published; none where nothing is."""
        path = self.folder / "manifest.json"
        try:
            manifest = json.loads(path.read_text())
            tables = {name: (list(table["files"]), int(table["rows"])) for name, table in manifest["tables"].items()}
            bars = tables[BARS][1]
        except FileNotFoundError:
            if self.has_runs():
                self.notes.append(f"Gold was not audited: {path} is not there yet")
            return None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self.faults.append(f"{path} is damaged: {error!r}")
            return None
        if not self.has("gold", BARS):
            self.notes.append("Gold was not held against Silver: another database made it; the next run makes it anew")
            return bars
        whole = [name for name in tables if self.read(name, *tables[name])]
        if len(whole) == len(tables):
            self.compare(manifest)
        return self.one("select count(*) from published_ohlc_1m") if BARS in whole else None

    def has_runs(self) -> bool:
        return self.has("bronze", "runs") and self.last_run() > 0

    def has(self, schema: str, table: str) -> bool:
        return self.one("select count(*) > 0 from duckdb_tables() where schema_name = ? and table_name = ?", schema, table)

    def last_run(self) -> int:
        return self.one("select coalesce(max(run), 0) from bronze.runs")

    def one(self, query: str, *values: Any) -> Any:
        return self.connection.execute(query, list(values)).fetchone()[0]

    def read(self, table: str, files: list[str], rows: int) -> bool:
        """Reads all that is named of a table into a table `published_<table>`; False where that cannot be."""
        before = len(self.faults)
        if not self.has("gold", table):
            self.faults.append(f"{table} is named by the manifest, and the database has no such table")
            return False
        self.connection.execute(f"create or replace temp table published_{table} as from gold.{table} limit 0")
        for file in files:
            try:
                self.connection.execute(f"insert into published_{table} by name from read_parquet(?)", [str(self.folder / file)])
            except duckdb.Error as error:
                self.faults.append(f"{self.folder / file} is named by the manifest and cannot be read: {error}")
        if len(self.faults) > before:
            return False
        found = self.one(f"select count(*) from published_{table}")
        if found != rows:
            self.faults.append(f"the files of {table} hold {found} rows, the manifest says {rows}")
        if table == BARS and (doubled := found - self.one("select count(distinct (symbol, source, session, bucket_start)) from published_ohlc_1m")):
            self.faults.append(f"{doubled} bars of Gold stand twice")
        return True

    def compare(self, manifest: dict[str, Any]) -> None:
        """Holds the bars against the database that made them, where nothing came between."""
        origin = manifest.get("origin", {})
        if origin.get("warehouse") != self.one("select id from bronze.warehouse"):
            self.notes.append("Gold was not held against Silver: another database made it; the next run makes it anew")
        elif origin.get("rules") != fingerprint(self.variables):
            self.notes.append("Gold was not held against Silver: other rules made it; the next run makes it anew")
        elif manifest.get("run") != (last := self.last_run()):
            self.notes.append(f"Gold was not held against Silver: it is of run {manifest.get('run')}, and run {last} was not published")
        else:
            for name in manifest["tables"]:
                self.against_the_table(name)
            self.against_silver()

    def against_the_table(self, name: str) -> None:
        differing = self.one(
            f"""
            select count(*) from (
              (from gold.{name} except all from published_{name}) union all (from published_{name} except all from gold.{name}))
            """
        )
        if differing:
            self.faults.append(f"{differing} rows of {name} are not alike in Gold as published and in the database")

    def against_silver(self) -> None:
        self.connection.execute("create or replace temp table moving (conditions varchar)")
        if moving := self.moving():
            self.connection.executemany("insert into moving values (?)", [[conditions] for conditions in moving])
        differing = self.connection.execute(
            """
            with given as (
              select symbol, source, bucket_start, cast(sum(size) as decimal(38, 8)) as volume,
                cast(sum(cast(price as decimal(19, 8)) * cast(size as decimal(19, 8))) as decimal(38, 16)) as notional,
                count(*) as trades
              from silver.trades
              where not price_update and (coalesce(conditions, '') = '' or conditions in (from moving))
              group by all
            ), there as (
              select symbol, source, bucket_start, volume, notional, trades from published_ohlc_1m where trades > 0
            )
            select symbol, bucket_start from ((from given except all from there) union all (from there except all from given))
            order by all
            """
        ).fetchall()
        if differing:
            symbol, minute = differing[0]
            self.faults.append(
                f"the volume of {len(set(differing))} bars is not what Silver's trades give, the first of {symbol} at {minute}"
            )

    def moving(self) -> list[str]:
        """The sets of conditions with which a trade moves the volume."""
        table = self.variables.get("sale_conditions", "cts_utp")
        (unlisted,) = self.connection.execute("select unlisted from rules.rule_tables where rule_table = ?", [table]).fetchone()
        volume = dict(self.connection.execute("select code, volume from rules.sale_conditions where rule_table = ?", [table]).fetchall())
        sets = self.connection.execute("select distinct conditions from silver.trades where conditions <> ''").fetchall()
        return [codes for (codes,) in sets if all(volume.get(code, unlisted) in ("yes", "neutral") for code in codes.split(","))]
