"""The double as a process, the account in it, and dbt over it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from contextlib import closing, suppress
from copy import copy
from pathlib import Path
from typing import Any, Self

import snowflake.connector
from dbt.cli.main import dbtRunner

DOUBLE = Path(__file__).resolve().parent / "double"

#: What the double's account is called; it takes any user and any password.
LOGIN = {"account": "double", "user": "TEST", "password": "any", "role": "TEST", "warehouse": "TEST"}


class Double:
    """The double's process on a free port, with the Python that `TICKMINT_DOUBLE_PYTHON` names."""

    def __init__(self, log: Path) -> None:
        with closing(socket.socket()) as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.log = log
        with log.open("w") as out:
            self.child = subprocess.Popen(
                [os.environ["TICKMINT_DOUBLE_PYTHON"], str(DOUBLE), str(self.port)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip

    def __enter__(self) -> Self:
        until = time.monotonic() + 120
        while time.monotonic() < until and self.child.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5):
                return self
            time.sleep(0.1)
        self.child.kill()
        raise AssertionError(f"the double did not start:\n{self.log.read_text()[-4000:]}")

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait(30)


class Account:
    """A database in the double, with Bronze in its tables, and a dbt project that runs on it."""

    def __init__(self, double: Double, database: str, project: Path, work: Path) -> None:
        self.project, self.work = project, work
        self.environment = {
            **{f"TICKMINT_SNOWFLAKE_{name.upper()}": value for name, value in LOGIN.items()},
            "TICKMINT_SNOWFLAKE_DATABASE": database, "TICKMINT_SNOWFLAKE_HOST": "127.0.0.1",
            "TICKMINT_SNOWFLAKE_PORT": str(double.port), "TICKMINT_SNOWFLAKE_PROTOCOL": "http",
        }  # fmt: skip
        self.connection = self.connect(double, database)
        self.manifest: Any = None
        self.manifest = self.dbt("parse")
        self.dbt("run-operation", "make_bronze")

    @staticmethod
    def connect(double: Double, database: str) -> snowflake.connector.SnowflakeConnection:
        return snowflake.connector.connect(
            **LOGIN, host="127.0.0.1", port=double.port, protocol="http", database=database, schema="BRONZE", network_timeout=20
        )

    def with_project(self, project: Path) -> Self:
        """The same account under another project."""
        other = copy(self)
        other.project, other.work, other.manifest = project, project / "work", None
        other.manifest = other.dbt("parse")
        return other

    def restart(self) -> None:
        """As a new process of dbt begins: it knows nothing of the one before."""
        self.manifest = None
        self.manifest = self.dbt("parse")

    def dbt(self, *command: str) -> Any:
        """Runs dbt, which must succeed. Returns its result."""
        os.environ.update(self.environment)
        outcome = dbtRunner(manifest=self.manifest).invoke([
            *command, "--target", "snowflake", "--project-dir", str(self.project), "--profiles-dir", str(self.project),
            "--target-path", str(self.work / "target"), "--log-path", str(self.work / "logs"), "--log-level", "error",
            "--log-level-file", "warn", "--no-use-colors",
        ])  # fmt: skip
        results = outcome.result if hasattr(outcome.result, "__iter__") else []
        bad = [f"{result.node.name}: {result.message}" for result in results if result.status not in ("success", "pass", "warn")]
        assert outcome.success and not bad, f"{outcome.exception or ''}\n" + "\n".join(bad)
        return outcome.result

    def rows(self, sql: str, *values: Any) -> list[tuple]:
        with self.connection.cursor() as cursor:
            return cursor.execute(sql, values or None).fetchall()

    def load(self, slots: list[dict[str, Any]], run: int) -> None:
        """What the loader does with new slots: their rows into the typed tables, then the slots, then the run."""
        for slot in slots:
            place = [slot["stream"], slot["partition"], slot["generation"], slot["start"]]
            known = self.rows('select count(*) from slots where stream = %s and partition = %s and generation = %s and "start" = %s', *place)
            if known[0][0]:
                continue
            typed_rows = self.copy(slot["typed"], place) if slot["typed"] else None
            self.rows(
                "insert into slots select %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0, count(*) + 1 from slots",
                *place, slot["end"], slot["kind"], slot["rows"], slot["typed"], typed_rows, slot["archive_hour"],
            )  # fmt: skip
        self.rows("insert into runs select %s, current_timestamp()", run)

    def fill(self, fills: list[tuple]) -> None:
        """The user's positions, as the refiner has read them on the other side."""
        self.rows("delete from fills")
        for fill in fills:
            self.rows(f"insert into fills values ({', '.join(['%s'] * len(fill))})", *fill)

    def copy(self, typed: str, place: list[Any]) -> int:
        """One object into its table, each row with the place of its slot."""
        file, stream = Path(typed), place[0]
        columns = [name for name, *_ in self.rows(f"describe table typed_{stream}")][4:]
        types = dict((name, kind) for name, kind, *_ in self.rows(f"describe table typed_{stream}"))
        self.rows(f"create stage if not exists objects_{stream} url = 'file://{file.parent}/'")
        literals = ", ".join(f"'{part}'" if isinstance(part, str) else str(part) for part in place)
        picked = ", ".join(f"$1:{name.lower()}::{types[name]}" for name in columns)
        done = self.rows(
            f'copy into typed_{stream} (stream, partition, generation, "start", {", ".join(columns)}) '
            f"from (select {literals}, {picked} from @objects_{stream}) files = ('{file.name}') file_format = (type = parquet)"
        )
        return done[0][3]

    def close(self) -> None:
        self.connection.close()

