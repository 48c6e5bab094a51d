"""How long a frame takes to be in Gold: `freshness.py DATA_DIR`, beside a running `tickmint demo` (or daemon), until it has ended.

Start it beside, and end the daemon when there is enough. It looks at the manifest ten times a second and notes when a
reader could first have seen each run. When there has been none for a minute it reads from the warehouse in which run
each trade came to Silver and when its frame was received, and prints the spread of the times between; a trade is in
Gold with the first version that stands at its run or behind it.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

#: Seconds.
EVERY, SILENCE = 0.1, 60


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("freshness: give the folder of a daemon or demo that runs, as data/demo")
    folder = Path(sys.argv[1])
    seen = watch(folder / "gold" / "manifest.json")
    if not seen:
        sys.exit(f"freshness: nothing was published in {folder / 'gold'} for {SILENCE} s")
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("create temp table seen (run bigint, seen_at timestamptz)")
        connection.executemany("insert into seen values (?, ?)", list(seen.items()))
        connection.execute(
            """
            create temp table waits as
            select epoch(s.seen_at - t.received_at) as seconds
            from silver.trades t asof join seen s on s.run >= t.silver_run
            where t.received_at >= (select min(seen_at) from seen) and not t.price_update
            """
        )
        trades, *spread = connection.execute(
            "select count(*), quantile_cont(seconds, 0.5), quantile_cont(seconds, 0.9), quantile_cont(seconds, 0.99), max(seconds) from waits"
        ).fetchone()
        if not trades:
            sys.exit("freshness: no trade came while it looked")
        print(f"{trades:,} trades, {len(seen)} versions of Gold; frame to Gold p50/p90/p99/max {' / '.join(f'{value:.1f}' for value in spread)} s")


def watch(manifest: Path) -> dict[int, datetime]:
    """When each run was first seen published, until there has been none for a while."""
    seen: dict[int, datetime] = {}
    newest = time.monotonic()
    while time.monotonic() < newest + SILENCE:
        if manifest.exists() and (run := json.loads(manifest.read_text())["run"]) not in seen:
            seen[run], newest = datetime.now(UTC), time.monotonic()
        time.sleep(EVERY)
    return seen


if __name__ == "__main__":
    main()
