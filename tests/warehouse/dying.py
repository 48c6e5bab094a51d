"""`dying.py POINT ARGUMENTS...`: the refiner, which is killed with SIGKILL at a named point.

The points are put into the running program from here, so nothing of them ships. `POINTS` tells what has
happened at each and what has not.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

POINTS = {
    "slots_stored": "the slots are stored, no model was built",
    "silver_merged": "in the transaction of silver.stg_trades: rows are merged, the ledger is not written",
    "trades_committed": "silver.stg_trades is committed, nothing of it is judged",
    "prices_committed": "silver.minute_prices is committed too, nothing is judged",
    "verdicts_written": "in the transaction of silver.rejected_trades: verdicts are written, the run is not",
    "verdicts_committed": "silver.rejected_trades is committed, gold.ohlc_1m is not begun",
    "gold_written": "in the transaction of gold.ohlc_1m: bars are written, the run is not",
    "bars_committed": "the bars are committed, what is made of them each minute is not",
    "indicators_written": "in the transaction of gold.moving_averages: rows are replaced, the books are not written",
    "gold_committed": "all models are committed, nothing is published",
    "day_half_written": "a day's Parquet is written under a name for the time being",
    "days_published": "the Parquet files of the new version lie there, the manifest names the old ones",
    "manifest_written": "the new manifest is written, and not yet in its place",
    "manifest_published": "the new version stands, the old files are not swept",
    "before_answer": "all is done, the daemon has not been told",
}


def main() -> int:
    point = sys.argv.pop(1)
    assert point in POINTS, point
    from dbt.adapters.sql.connections import SQLConnectionManager
    from refiner import __main__ as program
    from refiner import publish, slots

    def sql(text: str) -> Callable[..., bool]:
        return lambda _self, statement, *_rest, **_more: text in statement

    def name(end: str) -> Callable[..., bool]:
        return lambda _temporary, path: path.name.endswith(end)

    match point:
        case "slots_stored":
            after(slots, "store", lambda _connection, new: bool(new))
        case "silver_merged":
            before(SQLConnectionManager, "add_query", sql("insert into bronze.ledger\n  select 'stg_trades'"))
        case "trades_committed":
            before(SQLConnectionManager, "add_query", sql("runs_used where model = 'minute_prices'"))
        case "prices_committed":
            before(SQLConnectionManager, "add_query", sql("create or replace table bronze.pending_rejected_trades"))
        case "verdicts_written":
            before(SQLConnectionManager, "add_query", sql("insert into bronze.runs_used select 'rejected_trades'"))
        case "verdicts_committed":
            before(SQLConnectionManager, "add_query", sql("runs_used where model = 'ohlc_1m'"))
        case "gold_written":
            before(SQLConnectionManager, "add_query", sql("insert into bronze.runs_used select 'ohlc_1m'"))
        case "bars_committed":
            before(SQLConnectionManager, "add_query", sql("create or replace table bronze.watermark_moving_averages"))
        case "indicators_written":
            before(SQLConnectionManager, "add_query", sql("insert into bronze.watermarks select 'moving_averages'"))
        case "gold_committed":
            before(publish.Publisher, "publish")
        case "day_half_written":
            before(publish, "rename", name(".parquet"))
        case "days_published":
            before(publish.Publisher, "write_manifest")
        case "manifest_written":
            before(publish, "rename", name("manifest.json"))
        case "manifest_published":
            before(publish.Publisher, "sweep")
        case "before_answer":
            before(program, "say", lambda _answers, **message: message["event"] == "done")
    return program.main()


def before(place: Any, function: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    wrapped = getattr(place, function)

    def dies(*arguments: Any, **more: Any) -> Any:
        if when(*arguments, **more):
            die()
        return wrapped(*arguments, **more)

    setattr(place, function, dies)


def after(place: Any, function: str, when: Callable[..., bool]) -> None:
    wrapped = getattr(place, function)

    def dies(*arguments: Any, **more: Any) -> Any:
        outcome = wrapped(*arguments, **more)
        if when(*arguments, **more):
            die()
        return outcome

    setattr(place, function, dies)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    sys.exit(main())
