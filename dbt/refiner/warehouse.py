"""The DuckDB file: slots in, dbt over them, Gold out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from . import failures, positions, rules, s3, slots, unread
from .audit import count
from .errors import RunFailed
from .lean import settle
from .origin import fingerprint
from .project import Project, version
from .publish import CLOSING, Publisher

#: All data tests look at whole tables, so they run this often; a few cheap ones run each time.
TEST_ALL_EVERY = 3600.0

SILVER = {"trades", "rejected_trades", "quarantine", "gaps"}

#: Beside them, what is built and not counted.
HELPERS = {"stg_trades", "minute_prices"}

#: What is made of the records of trades by the rules: in every run that brings some, and anew by other rules.
JUDGED = {"minute_prices", "rejected_trades"}

#: The table of Gold that goes on while the others stand still, and says so.
QUALITY = "data_quality"

#: The one that is made from the user's positions too.
PORTFOLIO = "portfolio"

#: DuckDB's threads, in a run with more new rows than these. The many small statements of a run with fewer cost a fifth less
#: of the processor by one thread, and take a seventh longer; the daemon needs the other core.
THREADS, LARGE = 2, 100_000

#: The bytes of DuckDB's log of writes from which on it is worked into the file, which takes most of a second: after a round
#: has been answered, not at a commit in it, as DuckDB would. BACKSTOP is where DuckDB does it after all.
LOG, BACKSTOP = 16_000_000, "1GB"

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
        self.db, self.work, self.variables = db, db.parent / "dbt", variables
        self.positions = Path(path) if (path := variables.get("positions")) else None
        self.work.mkdir(exist_ok=True)
        self.connection = connect(db)
        self.connection.execute("set TimeZone = 'UTC'")
        self.connection.execute(f"set threads = {THREADS}")
        self.connection.execute(f"set checkpoint_threshold = '{BACKSTOP}'")
        warehouse = slots.prepare(self.connection, str(db))
        self.bucket = s3.Bucket(self.connection)
        self.publisher = Publisher(gold, {"warehouse": warehouse, "rules": fingerprint(variables)})
        try:
            self.load_project()
        except RunFailed as error:
            error.failing = self.failed(error.phase or "start", str(error))
            raise
        self.tested = time.monotonic()

    def load_project(self) -> None:
        self.project = Project(self.db, self.work, self.variables)
        self.publisher.origin["rules"] = self.project.fingerprint()
        if self.is_by_other_rules():
            rules.leave(self.connection)
            self.project.seed()
        settle()

    def is_by_other_rules(self) -> bool:
        """Whether Gold, as published or as it stands in the file, was made by other rules than those of the project."""
        return not self.publisher.is_of_this_origin() or not rules.hold(self.connection, self.publisher.origin["rules"])

    def greeting(self) -> dict[str, Any]:
        """What the daemon must know to go on: the last slot of each chain, the last run published."""
        return {
            "duckdb": duckdb.__version__,
            "dbt": version,
            "run": self.publisher.run(),
            "tails": slots.tails(self.connection),
            "failing": failures.tell(self.connection),
        }

    def refine(self, new: list[dict[str, Any]], progress: Progress, *, anew: bool) -> dict[str, Any]:
        """Stores the slots, builds what has something to do, publishes. Doing it again does no harm."""
        progress("load")
        if failures.tell(self.connection) and not self.project.is_current():
            self.load_project()  # somebody has mended it, perhaps
        slots.retry(self.connection)
        slots.store(self.connection, new)
        # A file of the user's that is wrong stops nothing: the last good positions stay, and he is told.
        portfolio_error = positions.load(self.connection, self.positions)
        try:
            self.advance(progress, anew=anew)
        except RunFailed:
            if anew or not slots.set_aside(self.connection):
                raise
            self.advance(progress, anew=False)
        failures.clear(self.connection)
        self.publisher.note_failing(None)
        outcome = {"run": self.publisher.run(), "slots": len(new), "rows": self.rows()}
        return outcome | {"unread": unread.tell(self.connection), "portfolio_error": portfolio_error}

    def rest(self) -> None:
        """What can wait until a round is answered."""
        log = self.db.with_name(self.db.name + ".wal")
        try:
            if log.exists() and log.stat().st_size > LOG:
                self.connection.execute("checkpoint")
        except (duckdb.Error, OSError) as trouble:
            print(f"refiner: no checkpoint of {self.db}: {trouble}", file=sys.stderr)

    def rows(self) -> dict[str, int]:
        """The rows of the tables. What is good is not counted itself: that would read all of Silver each time."""
        (kept,) = self.connection.execute("select count(*) from silver.stg_trades").fetchone()
        names = [f"silver.{name}" for name in sorted(SILVER)] + [f"gold.{table.name}" for table in self.project.gold]
        tables = {table: f"select count(*) from {table}" for table in names}
        tables["silver.trades"] = f"select {kept} - count(*) from silver.rejected_trades"
        return {table: self.connection.execute(query).fetchone()[0] for table, query in tables.items()}

    def failed(self, phase: str, error: str) -> dict[str, Any] | None:
        """Notes that a round failed, in the book and in the manifest. Returns the series; None if not even that can be
        written: then the daemon counts for itself."""
        with suppress(duckdb.Error):
            self.connection.rollback()  # what failed may have left a transaction open
        try:
            failures.note(self.connection, phase, error)
            failing = failures.tell(self.connection)
            self.publisher.note_failing(failing)
        except (duckdb.Error, OSError) as trouble:
            print(f"refiner: the failure cannot be noted: {trouble}", file=sys.stderr)
            return None
        self.tell_quality()
        return failing

    def tell_quality(self) -> None:
        """Has the table data_quality say that Gold stands still: it alone is made and published. If that cannot be done,
        the manifest says it."""
        tables = [table for table in self.project.gold if table.name == QUALITY] if hasattr(self, "project") else []
        if not tables or not self.built() >= SILVER | HELPERS or not self.publisher.is_of_this_warehouse():
            return
        try:
            run = self.begin()
            self.project.build_alone(QUALITY, gold_stands_still=True)
            self.publisher.publish_alone(self.connection, run, tables[0])
        except (RunFailed, duckdb.Error, OSError) as trouble:
            print(f"refiner: {QUALITY} cannot say that Gold stands still: {trouble}", file=sys.stderr)

    def advance(self, progress: Progress, *, anew: bool) -> None:
        """A run, if there is something to build or to publish."""
        stale = self.is_by_other_rules()
        models = self.models(anew=anew, gold_anew=stale)
        if models:
            run = self.begin()
            self.build(models, progress, anew=anew, gold_anew=stale)
            progress("publish")
            self.publisher.publish(self.connection, run, self.project.gold, slots.tails(self.connection), anew=anew or stale)
            if stale:
                rules.keep(self.connection, self.publisher.origin["rules"])

    def models(self, *, anew: bool, gold_anew: bool) -> set[str]:
        """The models that have something to do; empty if there is nothing to build or to publish. Those of each minute
        come later, if they have: [`minute_is_over`]."""
        gold, each_load = self.gold("each_run"), self.gold("each_load")
        every, built = gold | each_load | SILVER | HELPERS, self.built()
        models = every if anew else slots.pending(self.connection) | (every - built)
        if gold_anew:
            models = models | {"trades"}  # a view, which stands otherwise
        if gold_anew or "stg_trades" in models or (built >= every and self.unpublished()):
            models = models | JUDGED | gold
        if PORTFOLIO in built:
            if positions.are_new(self.connection):
                models = models | {PORTFOLIO}
            elif not (anew or gold_anew or positions.there_are(self.connection)):
                models = models - {PORTFOLIO}
        return models | each_load if models else models

    def gold(self, *made: str) -> set[str]:
        return {table.name for table in self.project.gold if table.made in made}

    def minute_is_over(self) -> bool:
        """Whether a minute has been closed, or a closed one changed, by trades that the models of each minute have not
        used. They ask the same of the trades, each for itself: see macros/gold.sql."""
        models = self.gold("each_minute")
        if models - self.built():
            return True
        return self.connection.execute(
            f"""
            with used as (select min(run) as run from bronze.runs_used where list_contains($models, model)),
            before as (select source, min(watermark) as watermark from bronze.watermarks where list_contains($models, model) group by source),
            fresh as (select * from silver.stg_trades where silver_run > (select run from used)),
            now as (
              select source, max(t) as watermark
              from (select source, event_time as t from fresh where {CLOSING} union all from before)
              group by source
            ),
            changed as (
              select source, bucket_start from fresh
              union all select source, bucket_start from bronze.verdicts_changed where run > (select run from used)
            )
            select count(*) > 0 from changed join now using (source) left join before using (source)
            where changed.bucket_start < date_trunc('minute', now.watermark)
              or date_trunc('minute', before.watermark) is distinct from date_trunc('minute', now.watermark)
            """,
            {"models": sorted(models)},
        ).fetchone()[0]

    def built(self) -> set[str]:
        rows = self.connection.execute("select table_name from information_schema.tables where table_schema in ('silver', 'gold')").fetchall()
        return {name for (name,) in rows}

    def unpublished(self) -> bool:
        """Silver, or some table of Gold, has come further than Gold as published: a run failed or was killed in between."""
        (reached,) = self.connection.execute(
            "select coalesce(max(run), 0) from (select run from bronze.loads union all select run from bronze.gold_days)"
        ).fetchone()
        return reached > self.publisher.run()

    def begin(self) -> int:
        """The number of a new run: above all of this file, and above the one that stands published."""
        (run,) = self.connection.execute(
            "insert into bronze.runs select greatest(coalesce(max(run), 0), ?) + 1, now() from bronze.runs returning run",
            [self.publisher.run()],
        ).fetchone()
        return run

    def build(self, models: set[str], progress: Progress, *, anew: bool, gold_anew: bool) -> None:
        gold, judged_before = {table.name for table in self.project.gold}, JUDGED & self.built()
        large = anew or gold_anew or slots.rows_waiting(self.connection) > LARGE
        self.connection.execute(f"set threads = {THREADS if large else 1}")
        if first := models - gold if gold_anew else models:
            # They look at what the last load brought, in this run or in one that failed before it was published.
            self.project.build(sorted(first), anew=anew, tests=bool(first & JUDGED), on_phase=progress)
        if gold_anew:
            self.project.build(sorted(gold if anew else gold | judged_before), anew=True, tests=False, on_phase=progress)
        elif models & self.gold("each_run") and (anew or self.minute_is_over()):
            self.project.build(sorted(self.gold("each_minute")), anew=anew, tests=False, on_phase=progress)
        if anew or gold_anew or time.monotonic() - self.tested > TEST_ALL_EVERY:
            progress("test")
            self.connection.execute(f"set threads = {THREADS}")
            self.project.test()
            self.tested = time.monotonic()

    def audit(self) -> dict[str, Any]:
        return count(self.connection)

    def close(self) -> None:
        self.connection.close()
