"""The DuckDB file: slots in, dbt over them, Gold out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from . import s3, slots, unread
from .audit import count
from .errors import RunFailed
from .project import Project, version
from .publish import Publisher

#: All data tests look at whole tables, so they run this often; a few cheap ones run each time.
TEST_ALL_EVERY = 3600.0

TABLES = ("silver.trades", "silver.rejected_trades", "silver.quarantine", "silver.gaps", "gold.ohlc_1m")

#: Beside them, what is built and not counted.
HELPERS = ("silver.stg_trades", "silver.minute_prices")

#: What is made of the records of trades by the rules: in every run that brings some, and anew by other rules.
JUDGED = {"minute_prices", "rejected_trades"}

Progress = Callable[[str], None]


def connect(db: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(db))
    except duckdb.Error as error:
        cure = "if another program has it open, end that; if it is damaged, move it away: it is made again from Bronze"
        raise RunFailed(f"{db} cannot be opened ({error}); {cure}", retryable=True, phase="start") from error


class Warehouse:
    """Owns the DuckDB file. dbt runs in this process, over the same database."""

    def __init__(self, db: Path, gold: Path, variables: dict[str, Any]) -> None:
        db.parent.mkdir(parents=True, exist_ok=True)
        work = db.parent / "dbt"
        work.mkdir(exist_ok=True)
        self.connection = connect(db)
        self.connection.execute("set TimeZone = 'UTC'")
        warehouse = slots.prepare(self.connection, str(db))
        self.bucket = s3.Bucket(self.connection)
        self.project = Project(db, work, variables)
        self.publisher = Publisher(gold, {"warehouse": warehouse, "rules": self.project.fingerprint()})
        if not self.publisher.is_of_this_origin():
            self.project.seed()
        self.tested = time.monotonic()

    def greeting(self) -> dict[str, Any]:
        """What the daemon must know to go on: the last slot of each chain, the last run published."""
        return {
            "duckdb": duckdb.__version__,
            "dbt": version,
            "run": self.publisher.run(),
            "tails": slots.tails(self.connection),
        }

    def refine(self, new: list[dict[str, Any]], progress: Progress, *, anew: bool) -> dict[str, Any]:
        """Stores the slots, builds what has something to do, publishes. Doing it again does no harm."""
        progress("load")
        slots.retry(self.connection)
        slots.store(self.connection, new)
        try:
            self.advance(progress, anew=anew)
        except RunFailed:
            if anew or not slots.set_aside(self.connection):
                raise
            self.advance(progress, anew=False)
        return {"run": self.publisher.run(), "slots": len(new), "rows": self.rows(), "unread": unread.tell(self.connection)}

    def rows(self) -> dict[str, int]:
        """The rows of the tables. What is good is not counted itself: that would read all of Silver each time."""
        (kept,) = self.connection.execute("select count(*) from silver.stg_trades").fetchone()
        tables = {table: f"select count(*) from {table}" for table in TABLES}
        tables["silver.trades"] = f"select {kept} - count(*) from silver.rejected_trades"
        return {table: self.connection.execute(query).fetchone()[0] for table, query in tables.items()}

    def advance(self, progress: Progress, *, anew: bool) -> None:
        """A run, if there is something to build or to publish."""
        stale = not self.publisher.is_of_this_origin()
        models = self.models(anew=anew, gold_anew=stale)
        if models:
            run = self.begin()
            self.build(models, progress, anew=anew, gold_anew=stale)
            progress("publish")
            self.publisher.publish(self.connection, run, slots.tails(self.connection), anew=anew)

    def models(self, *, anew: bool, gold_anew: bool) -> set[str]:
        """The models that have something to do; empty if there is nothing to build or to publish."""
        every = {table.split(".")[1] for table in TABLES + HELPERS}
        built = self.built()
        models = every if anew else slots.pending(self.connection) | (every - built)
        if gold_anew:
            models = models | {"trades"}  # a view, which stands otherwise
        if gold_anew or "stg_trades" in models or (built == every and self.unpublished()):
            models = models | JUDGED | {"ohlc_1m"}
        return models

    def built(self) -> set[str]:
        rows = self.connection.execute(
            "select table_schema || '.' || table_name from information_schema.tables where table_schema in ('silver', 'gold')"
        ).fetchall()
        return {name.split(".")[1] for (name,) in rows if name in TABLES + HELPERS}

    def unpublished(self) -> bool:
        """Silver has come further than Gold as published: a run failed or was killed in between."""
        (loaded,) = self.connection.execute("select coalesce(max(run), 0) from bronze.loads").fetchone()
        return loaded > self.publisher.run()

    def begin(self) -> int:
        """The number of a new run: above all of this file, and above the one that stands published."""
        (run,) = self.connection.execute(
            "insert into bronze.runs select greatest(coalesce(max(run), 0), ?) + 1, now() from bronze.runs returning run",
            [self.publisher.run()],
        ).fetchone()
        return run

    def build(self, models: set[str], progress: Progress, *, anew: bool, gold_anew: bool) -> None:
        heard = set()

        def on_phase(phase: str) -> None:
            if phase not in heard:
                heard.add(phase)
                progress(phase)

        if gold_anew and not anew:
            judged_before = JUDGED & self.built()
            self.project.build(sorted(models - {"ohlc_1m"}), anew=False, on_phase=on_phase)
            self.project.build(sorted({"ohlc_1m"} | judged_before), anew=True, on_phase=on_phase)
        else:
            self.project.build(sorted(models), anew=anew, on_phase=on_phase)
        if anew or gold_anew or time.monotonic() - self.tested > TEST_ALL_EVERY:
            on_phase("test")
            self.project.test()
            self.tested = time.monotonic()

    def audit(self) -> dict[str, Any]:
        return count(self.connection)

    def close(self) -> None:
        self.connection.close()
