"""What the warehouse costs: `measure.py [TRADES[xDAYS] ...]` (default 1000000 10000000, of ten trading days).

A simulated market, 100 symbols: all but the last minutes in one load, then runs with five seconds of new trades each, at
10,000 trades a minute whatever the history. First five minutes of trades in order, of which one run in
twelve closes a minute; then two with one trade in twenty late by up to an hour, so that each run corrects closed minutes.
Seconds are the refiner's own, of its answer; CPU seconds are of its process. What it does after an answer (a checkpoint)
is in neither: the mean of all CPU seconds of the process has it. Prints how the CPU seconds grow with the history.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bronze import SESSION, Bronze
from refining import Refiner

#: 5 s at 10,000 trades a minute.
STEP = 833
#: Runs in order, and runs with late trades.
IN_ORDER, LATE = 60, 24
RUNS = IN_ORDER + LATE
NAMES = ("in order", "that close a minute", "with late trades")
#: Rows of an object.
OBJECT = 250_000


def main() -> None:
    histories = [history_of(word) for word in sys.argv[1:]] or [(1_000_000, 10), (10_000_000, 10)]
    medians = [measure(*history) for history in histories]
    (first, over), before = histories[0], medians[0]
    for (size, days), now in zip(histories[1:], medians[1:], strict=True):
        growth = ", ".join(f"{after / own:.2f} times {name}" for name, own, after in zip(NAMES, before, now, strict=True))
        print(f"from {first:,} trades in {over} days to {size:,} in {days} the CPU seconds of a run grow {growth}")


def history_of(word: str) -> tuple[int, int]:
    size, _, days = word.partition("x")
    return int(size), int(days or 10)


def measure(size: int, days: int) -> tuple[float, ...]:
    """Returns the medians of the CPU seconds of the runs by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bronze = Bronze(folder / "bronze")
        simulate(bronze, size, days)
        first = size - RUNS * STEP
        with Refiner(folder) as refiner:
            slots = [bronze.slot("trades", start, min(start + OBJECT, first) - 1) for start in range(0, first, OBJECT)]
            done = refiner.refine(slots)
            print(f"{size:,} trades in {days} days: first load {done['seconds']:.1f} s, CPU {done['cpu_seconds']:.1f} s, {done['rows']['gold.ohlc_1m']:,} bars")
            times, cpu, before = [], [], cpu_of(refiner.child.pid)
            for start in range(first, size, STEP):
                done = refiner.refine([bronze.slot("trades", start, start + STEP - 1)])
                times.append(done["seconds"])
                cpu.append(done["cpu_seconds"])
            # A run that closes a minute makes the indicators anew, by its time the longest in its twelve.
            closing = sorted(range(IN_ORDER), key=times.__getitem__)[-IN_ORDER // 12 :]
            parts = [range(IN_ORDER), closing, range(IN_ORDER, RUNS)]
            for name, part in zip(NAMES, parts, strict=True):
                print(f"  {len(part)} runs of {STEP} {name}: {spread([times[n] for n in part])} s, CPU {spread([cpu[n] for n in part])} s")
            refiner.audit()  # behind what the last round left to do
            print(f"  all CPU of the process by run: mean {(cpu_of(refiner.child.pid) - before) / RUNS:.2f} s, of which answered {sum(cpu) / RUNS:.2f} s")
            status = Path(f"/proc/{refiner.child.pid}/status").read_text()
            print("  " + "; ".join(" ".join(line.split()) for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM"))))
            sizes = {part: sum(path.stat().st_size for path in (folder / part).rglob("*") if path.is_file()) for part in ("bronze", "gold")}
            database = sum(path.stat().st_size for path in folder.glob("warehouse.duckdb*"))
            print(f"  on disk: typed Bronze {sizes['bronze'] / 1e6:.0f} MB, database {database / 1e6:.0f} MB, published Gold {sizes['gold'] / 1e6:.0f} MB")
            began = time.monotonic()
            done = refiner.refine([], full_refresh=True)
            print(f"  full refresh {time.monotonic() - began:.1f} s, CPU {done['cpu_seconds']:.1f} s", flush=True)
        return tuple(median([cpu[n] for n in part]) for part in parts)


def simulate(bronze: Bronze, size: int, days: int) -> None:
    """Weekdays of 6.5 hours up to the same Friday, 100 symbols that walk about; of the last trades one in twenty comes late."""
    first, late = size - RUNS * STEP, size - LATE * STEP
    bronze.connection.execute("select setseed(0.5)")
    bronze.connection.execute(
        f"""
        insert into trades by name
        with places as (
          select i, least(i, {first}) * {days}.0 / {first} as day, greatest(i - {first}, 0) * 5.0 / {STEP} as tail, cast(random() * 99 as integer) as symbol
          from range({size}) t(i)
        ),
        days as (
          select i, symbol, tail, least(floor(day), {days - 1})::integer as day, day - least(floor(day), {days - 1}) as part from places
        ),
        trades as (
          select i, symbol, timestamptz '2026-11-16 14:30:00+00' + to_days(day + 2 * (day // 5) - {days // 5 * 7})
            + to_microseconds(cast(part * {23400 - RUNS * 5} * 1e6 + tail * 1e6 as bigint)) as moment
          from days
        )
        select
          '{SESSION}' as session, i + 1 as frame, 0 as idx, i as seq, i as record_offset, 'finnhub' as source, 'SIM' || symbol as symbol,
          cast(round(20 + symbol * 3 + sin(i * 60.0 / {size} + symbol) * 2 + random() * 0.1, 2) as decimal(18, 8)) as price,
          cast(1 + floor(random() * 300) as decimal(18, 8)) as size,
          moment - case when i >= {late} and random() < 0.05 then to_seconds(random() * 3600) else to_seconds(0) end as event_time,
          moment + interval 20 milliseconds as received_at,
          case when random() < 0.4 then '1,12' else '1' end as conditions,
          false as time_suspect, false as price_update, false as frame_repeat
        from trades
        """
    )


def cpu_of(pid: int) -> float:
    """The seconds of CPU that a process has had: fields 14 and 15 of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(values: list[float]) -> str:
    ordered = sorted(values)
    return f"p50 {median(ordered):.2f}, p99 {ordered[int(len(ordered) * 0.99)]:.2f}"


if __name__ == "__main__":
    main()
