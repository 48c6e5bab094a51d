"""Times of the refiner over a tape: `measure.py TAPE [RUNS]`. Prints one line a step."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bronze import Bronze
from refining import Refiner


def main() -> None:
    tape, runs = Path(sys.argv[1]), int((sys.argv + ["30"])[2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bronze = Bronze(folder / "bronze")
        total = bronze.add_tape(tape)
        #: 5 s at 10,000 trades a minute.
        step = 833
        began = time.monotonic()
        with Refiner(folder) as refiner:
            print(f"up after {time.monotonic() - began:.2f} s")
            first = total - runs * step
            done = refiner.refine([bronze.slot("trades", 0, first - 1)])
            print(f"first load of {first}: {done['seconds']} s, CPU {done['cpu_seconds']} s, rows {done['rows']}")
            times, cpu = [], []
            for n in range(runs):
                start = first + n * step
                done = refiner.refine([bronze.slot("trades", start, start + step - 1)])
                times.append(done["seconds"])
                cpu.append(done["cpu_seconds"])
            slow = sorted(times)[int(len(times) * 0.95)]
            print(f"{runs} runs of {step}: p50 {median(times):.3f} s, p95 {slow:.3f} s, CPU p50 {median(cpu):.3f} s")
            began = time.monotonic()
            refiner.refine([])
            print(f"nothing new: {time.monotonic() - began:.3f} s")
            status = Path(f"/proc/{refiner.child.pid}/status").read_text()
            print("; ".join(line for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM"))))


if __name__ == "__main__":
    main()
