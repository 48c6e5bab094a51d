"""Makes `s3://` readable where the daemon's store is a bucket."""

from __future__ import annotations

from typing import Any

import duckdb


class Bucket:
    """What the daemon lets this process in with. It sends that with each command, as keys may expire."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.access: dict[str, Any] | None = None

    def enter(self, access: dict[str, Any] | None) -> None:
        if access is None or access == self.access:
            return
        if self.access is None:
            from duckdb_extensions.extension_importer import import_extension

            import_extension("httpfs")
            self.connection.execute("load httpfs")
        quoted = ", ".join(f"{name} '{value.replace(chr(39), chr(39) * 2)}'" for name, value in options(access).items())
        try:
            self.connection.execute(f"create or replace secret bronze ({quoted})")
        except duckdb.Error:
            # Its text may quote the statement.
            raise ValueError("DuckDB takes the bucket's credentials, region or endpoint for none") from None
        self.access = access


def options(access: dict[str, Any]) -> dict[str, str]:
    """The options of DuckDB's secret."""
    found = {"TYPE": "s3", "KEY_ID": access["key_id"], "SECRET": access["secret"]}
    found["URL_STYLE"] = "path" if access["path_style"] else "vhost"
    if token := access["session_token"]:
        found["SESSION_TOKEN"] = token
    if region := access["region"]:
        found["REGION"] = region
    if endpoint := access["endpoint"]:
        found["ENDPOINT"] = endpoint.split("://", 1)[-1].rstrip("/")
        found["USE_SSL"] = str(endpoint.startswith("https")).lower()
    return found
