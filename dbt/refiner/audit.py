"""`python -m refiner.audit --db FILE`: counts what Silver holds, as JSON. Waits for a run to end."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import duckdb

#: How long a daemon that holds the file is waited for.
PATIENCE = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="refiner.audit", description=__doc__)
    parser.add_argument("--db", type=Path, required=True, help="the DuckDB file")
    path = parser.parse_args().db
    until = time.monotonic() + PATIENCE
    while True:
        try:
            connection = duckdb.connect(str(path), read_only=True)
            break
        except duckdb.IOException as error:
            if "lock" not in str(error) or time.monotonic() > until:
                print(f"{path} cannot be opened: {error}", file=sys.stderr)
                return 1
            time.sleep(0.5)
    from .warehouse import audit

    print(json.dumps(audit(connection)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
