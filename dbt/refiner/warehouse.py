"""The DuckDB file: slots in, dbt over them, Gold out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from dbt.cli.main import dbtRunner
from dbt.version import __version__ as dbt_version

from . import publish

PROJECT = Path(__file__).resolve().parent.parent

#: Columns of the typed objects, for a run in which a stream has nothing new.
STREAMS = {
    "trades": "source varchar, symbol varchar, price decimal(18,8), size decimal(18,8), event_time timestamptz, "
    "conditions varchar, time_suspect boolean, price_update boolean, frame_repeat boolean",
    "gaps": "kind varchar, shard varchar, symbols varchar, previous_session varchar, reason varchar, "
    "last_received_at timestamptz, first_received_at timestamptz, last_frame bigint, frames bigint, trades bigint, "
    "quarantined bigint, gaps bigint",
    "quarantine": "reason varchar, detail varchar, raw varchar, raw_base64 boolean",
}
IDENTITY = "session varchar, frame bigint, idx integer, seq bigint, record_offset bigint, received_at timestamptz"

SLOT = ("stream", "partition", "generation", "start", "end", "kind", "rows", "typed", "archive_hour")


class Warehouse:
    """Owns the DuckDB file. dbt runs in this process, over the same database."""

    def __init__(self, db: Path, gold: Path, variables: dict[str, Any]) -> None:
        self.gold = gold
        self.variables = variables
        db.parent.mkdir(parents=True, exist_ok=True)
        gold.mkdir(parents=True, exist_ok=True)
        work = db.parent / "dbt"
        work.mkdir(exist_ok=True)
        os.environ.update(TICKMINT_DB=str(db), DBT_SEND_ANONYMOUS_USAGE_STATS="false")
        self.options = [
            "--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--target-path", str(work / "target"),
            "--log-path", str(work / "logs"), "--log-level", "error", "--log-level-file", "info", "--no-use-colors",
            "--vars", str(variables),
        ]  # fmt: skip
        self.connection = duckdb.connect(str(db))
        self.connection.execute("set TimeZone = 'UTC'")
        self._tables()
        self._s3()
        parsed = dbtRunner().invoke(["parse", *self.options])
        if not parsed.success:
            raise RuntimeError(f"the dbt project cannot be parsed: {parsed.exception}")
        self.runner = dbtRunner(manifest=parsed.result)
        self._dbt("seed")

    def _tables(self) -> None:
        slot = "stream varchar, partition integer, generation bigint, start bigint"
        self.connection.execute(
            f"""
            create schema if not exists bronze;
            create table if not exists bronze.slots ({slot}, "end" bigint not null, kind varchar not null,
              rows bigint not null, typed varchar, archive_hour varchar, primary key (stream, partition, generation, start));
            create table if not exists bronze.ledger (model varchar, {slot}, primary key (model, stream, partition, generation, start));
            create table if not exists bronze.runs (run bigint primary key, began timestamptz not null);
            create table if not exists bronze.runs_used (model varchar, run bigint);
            """
        )
        for stream, columns in STREAMS.items():
            self.connection.execute(f"create or replace table bronze.empty_{stream} ({IDENTITY}, {columns})")

    def _s3(self) -> None:
        """Makes `s3://` readable where the daemon's store is a bucket. Credentials come from its config,
        else from the usual variables."""
        if "TICKMINT_S3" not in os.environ:
            return
        endpoint = os.environ.get("TICKMINT_S3_ENDPOINT")
        key = os.environ.get("TICKMINT_S3_ACCESS_KEY") or os.environ.get("AWS_ACCESS_KEY_ID")
        secret = os.environ.get("TICKMINT_S3_SECRET_KEY") or os.environ.get("AWS_SECRET_ACCESS_KEY", "")
        from duckdb_extensions.extension_importer import import_extension

        import_extension("httpfs")
        self.connection.execute("load httpfs")
        options = {"TYPE": "s3"}
        if key:
            options |= {"KEY_ID": key, "SECRET": secret}
        if endpoint:
            host = endpoint.split("://", 1)[-1]
            options |= {"ENDPOINT": host, "USE_SSL": str(endpoint.startswith("https")).lower(), "URL_STYLE": "path"}
        if region := os.environ.get("TICKMINT_S3_REGION"):
            options["REGION"] = region
        quoted = ", ".join(f"{name} '{value.replace(chr(39), chr(39) * 2)}'" for name, value in options.items())
        self.connection.execute(f"create or replace secret bronze ({quoted})")

    def greeting(self) -> dict[str, Any]:
        """What the daemon must know to go on: the last slot of each chain, the last run published."""
        rows = self.connection.execute(
            'select stream, partition, max_by((generation, "end"), (generation, start)) from bronze.slots group by all'
        ).fetchall()
        tails = {f"{stream}/{partition}": {"generation": at[0], "end": at[1]} for stream, partition, at in rows}
        return {"duckdb": duckdb.__version__, "dbt": dbt_version, "run": publish.published_run(self.gold), "tails": tails}

    def refine(self, slots: list[dict[str, Any]], progress: Callable[[str], None]) -> dict[str, Any]:
        """Stores the slots, builds Silver and Gold, publishes. Doing it again does no harm."""
        self._store(slots)
        (run,) = self.connection.execute(
            "insert into bronze.runs select coalesce(max(run), 0) + 1, now() from bronze.runs returning run"
        ).fetchone()
        progress("silver")
        self._dbt("build", "--select", "models/silver")
        progress("gold")
        self._dbt("build", "--select", "models/gold", "tests")
        progress("publish")
        publish.publish(self.connection, self.gold, run)
        tables = ("silver.trades", "silver.rejected_trades", "silver.quarantine", "silver.gaps", "gold.ohlc_1m")
        rows = {table: self.connection.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}
        return {"run": run, "slots": len(slots), "rows": rows}

    def _store(self, slots: list[dict[str, Any]]) -> None:
        """One transaction. A slot that is there already must be the same."""
        self.connection.begin()
        try:
            for slot in slots:
                at = [slot["stream"], slot["partition"], slot["generation"], slot["start"]]
                found = self.connection.execute(
                    'select "end", kind, rows from bronze.slots where stream = ? and partition = ? and generation = ? and start = ?', at
                ).fetchone()
                if found is None:
                    self.connection.execute(f"insert into bronze.slots values ({', '.join('?' * len(SLOT))})", [slot[n] for n in SLOT])
                elif found != (slot["end"], slot["kind"], slot["rows"]):
                    raise ValueError(f"slot {at} is known as {found} and now said to be {slot}: a slot never changes")
            self.connection.commit()
        except BaseException:
            self.connection.rollback()
            raise

    def _dbt(self, *arguments: str) -> None:
        outcome = self.runner.invoke([*arguments, *self.options])
        if outcome.success:
            return
        if outcome.exception:
            raise RuntimeError(str(outcome.exception))
        bad = [f"{r.node.name}: {r.message}" for r in outcome.result if r.status in ("error", "fail", "runtime error")]
        raise RuntimeError("; ".join(bad) or "dbt failed")

    def audit(self) -> dict[str, Any]:
        return audit(self.connection)

    def close(self) -> None:
        self.connection.close()


def audit(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Counts what Silver holds: rows, and distinct identities among them."""
    tables = {"trades": ("trades", "rejected_trades"), "quarantine": ("quarantine",), "gaps": ("gaps",)}
    streams = {}
    if not connection.execute("select 1 from duckdb_tables() where schema_name = 'silver' and table_name = 'gaps'").fetchone():
        return {"streams": {stream: {"rows": 0, "distinct": 0} for stream in tables}}
    for stream, names in tables.items():
        union = " union all ".join(f"select session, frame, idx from silver.{name}" for name in names)
        rows, distinct = connection.execute(
            f"select count(*), (select count(*) from (select distinct * from ({union}))) from ({union})"
        ).fetchone()
        streams[stream] = {"rows": rows, "distinct": distinct}
    return {"streams": streams}
