"""Makes `s3://` readable where the daemon's store is a bucket."""

from __future__ import annotations

import os

import duckdb


def connect(connection: duckdb.DuckDBPyConnection) -> None:
    """Credentials come from the daemon's config, else from the usual variables."""
    if "TICKMINT_S3" not in os.environ:
        return
    endpoint = os.environ.get("TICKMINT_S3_ENDPOINT")
    key = os.environ.get("TICKMINT_S3_ACCESS_KEY") or os.environ.get("AWS_ACCESS_KEY_ID")
    secret = os.environ.get("TICKMINT_S3_SECRET_KEY") or os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    from duckdb_extensions.extension_importer import import_extension

    import_extension("httpfs")
    connection.execute("load httpfs")
    options = {"TYPE": "s3"}
    if key:
        options |= {"KEY_ID": key, "SECRET": secret}
    if endpoint:
        host = endpoint.split("://", 1)[-1].rstrip("/")
        options |= {"ENDPOINT": host, "USE_SSL": str(endpoint.startswith("https")).lower(), "URL_STYLE": "path"}
    if region := os.environ.get("TICKMINT_S3_REGION"):
        options["REGION"] = region
    quoted = ", ".join(f"{name} '{value.replace(chr(39), chr(39) * 2)}'" for name, value in options.items())
    connection.execute(f"create or replace secret bronze ({quoted})")
