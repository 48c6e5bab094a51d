"""Where the processor time of the archiver goes, by Linux's `perf`: by stage, and the hottest functions."""

import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

#: A sample belongs to the stage of the innermost of its frames that one of these fits; so what memcpy or malloc takes
#: belongs to who called it.
STAGES = {
    "hash (SHA-256)": r"^(sha2|tickmint::domain::object)",
    "zstd": r"^(ZSTD_|HUF_|FSE_|HIST_|zstd)",
    "Parquet": r"^(<?parquet|<?arrow_)",
    "columns": r"tickmint::bronze::columns|tickmint::domain::(trade|scan)",
    "lines": r"tickmint::bronze::encode|^serde_json",
    "absorb (dedup, seen intervals)": r"tickmint::bronze::open|tickmint::domain::(chain|intervals)",
    "decode (header, copy)": r"tickmint::(wire|kafka)",
    "store (S3: PUTs, slots)": r"aws_|hyper|tickmint::(io|bronze::chain)",
    "Kafka's client (fetch, decompress, headers)": r"^(rd_|rdkafka|LZ4)",
    "actors, metrics": r"tickmint::|tokio|actix",
}
#: Functions that do some work of ours, and not that of the C library, of the kernel or of a container.
WORKS = re.compile(r"^(<?(tickmint|parquet|arrow|serde|sha2|object_store|hyper|aws|tokio|actix)|ZSTD_|HUF_|FSE_|LZ4|rd_kafka)")
FREQUENCY = 499
#: Bytes of stack that each sample keeps. Without frame pointers it is unwound from them.
STACK = 16384


def is_there() -> bool:
    return shutil.which("perf") is not None


def recorder(out: Path) -> list[str]:
    return ["perf", "record", "--quiet", "-F", str(FREQUENCY), "--call-graph", f"dwarf,{STACK}", "-o", str(out), "--"]


def stop(profiler: subprocess.Popen) -> None:
    """The daemon is told; perf ends with it, after it has written everything."""
    children = Path(f"/proc/{profiler.pid}/task/{profiler.pid}/children").read_text().split() if profiler.poll() is None else []
    for child in children:
        subprocess.run(["kill", child], check=False)
    try:
        profiler.wait(120)
    except subprocess.TimeoutExpired:
        profiler.send_signal(signal.SIGINT)
        profiler.wait(60)


def report(recorded: Path) -> dict:
    """Percentages of the samples: by stage, by thread, of the hottest functions alone and with their callees."""
    stages, own, inclusive, total = Counter(), Counter(), Counter(), 0
    command = ["perf", "script", "-i", recorded, "--no-inline", "-F", "comm,ip,sym"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace") as reading:
        for block in blocks(reading.stdout):
            total += 1
            stages[stage(block)] += 1
            own[named(block)] += 1
            inclusive.update(set(block))
    recorded.unlink()
    if total == 0:
        return {"skipped": "perf has recorded nothing"}

    def percent(counts: Counter, most: int) -> dict[str, float]:
        return {name: round(100 * count / total, 1) for name, count in counts.most_common(most)}

    return {"samples": total, "stages": percent(stages, 20), "own": percent(own, 40), "with_callees": percent(inclusive, 80)}


def blocks(lines):
    """The frames of each sample, the innermost first."""
    frames: list[str] = []
    for line in lines:
        if not line.strip():
            if frames:
                yield frames
            frames = []
        elif line[0] in " \t":
            frames.append(tidy(line.split(None, 1)[1].strip() if " " in line.strip() else "[unknown]"))
    if frames:
        yield frames


def named(frames: list[str]) -> str:
    """The innermost function. Of the C library and the kernel it is said for whom: memcpy alone tells nothing."""
    if WORKS.search(frames[0]):
        return frames[0]
    return next((f"{frames[0]} for {frame}" for frame in frames[1:] if WORKS.search(frame)), frames[0])


def tidy(symbol: str) -> str:
    """Without the hash at its end, and without what its type's parameters are."""
    return re.sub(r"::h[0-9a-f]{16}$", "", symbol)


def stage(frames: list[str]) -> str:
    for frame in frames:
        for name, pattern in STAGES.items():
            if re.search(pattern, frame):
                return name
    return "other"
