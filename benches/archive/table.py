"""The figures as text."""

import os

from contenders import Result
from daemon import Preloaded

LABELS = {
    "tickmint": "tickmint: raw + typed, hashes, chain", "python": "tuned Python: raw + typed", "python-values": "tuned Python, values only",
    "iceberg": "Connect, Iceberg sink: Parquet", "iceberg-by-symbol": "Connect, Iceberg sink, by symbol",
    "connect-floor": "Connect, own least sink: a floor", "benthos": "Benthos 4.60, own Kafka/S3 ends",
}  # fmt: skip
#: With fewer the starts count more than the records.
WARM = 5_000_000
#: How many times the records a processor second of these ours are to be.
AIMS = {"python": 5, "iceberg": 8, "iceberg-by-symbol": 8, "connect-floor": 3}


def line(result: Result) -> str:
    label = LABELS[result.contender]
    if result.skipped:
        return f"{label:38} SKIPPED: {result.skipped}"
    return (
        f"{label:38}{result.records / result.seconds:10,.0f}{result.cpu:8.1f}{result.per_cpu:11,.0f}{result.peak:7.0f}"
        f"{result.bytes / 1e6:8.1f}{result.objects:8}{result.load:6.1f}"
    )


def lines(runs: list[Result], ours: list[Result]) -> list[str]:
    """A contender's median run, and how many times its records a processor second ours are: round by round, as both then had the same
    machine."""
    done = [result for result in runs if not result.skipped]
    found = [line(result) for result in runs if result.skipped]
    if not done:
        return found[:1]
    middle = sorted(done, key=lambda result: result.per_cpu)[len(done) // 2]
    text = line(middle)
    if runs is not ours and len(runs) == len(ours) and not any(result.skipped for result in runs + ours):
        ratios = sorted(mine.per_cpu / its.per_cpu for mine, its in zip(ours, runs, strict=True))
        text += f"{ratios[len(ratios) // 2]:8.2f}" + (f"  aim {AIMS[middle.contender]}" if middle.contender in AIMS else "")
        text += f"  ({ratios[0]:.2f}-{ratios[-1]:.2f})" if len(ratios) > 1 else ""
    return [text, *found]


HEAD = f"{'':38}{'records/s':>10}{'CPU s':>8}{'rec/CPU-s':>11}{'MiB':>7}{'MB out':>8}{'objects':>8}{'load':>6}{'ours/it':>8}"


def text(results: list[Result], topics: list[Preloaded], waits: dict | None) -> str:
    said = []
    for topic in topics:
        by_contender: dict[str, list[Result]] = {}
        for result in results:
            if (result.format, result.partitions) == (topic.format, topic.partitions):
                by_contender.setdefault(result.contender, []).append(result)
        ours = by_contender.get("tickmint", [])
        sizes = "{:.0f} B of value, {:.0f} B with key and header".format(*topic.sizes)
        said += ["", f"{topic.records:,} records, {topic.format}, {topic.partitions} partitions; {sizes}", HEAD]
        for runs in by_contender.values():
            said += lines(runs, ours)
        rounds = max(map(len, by_contender.values()), default=0)
        if rounds > 1:
            said.append(f"  {rounds} rounds: of each the run with the median of records/CPU-s; of the ratios the median (least-most)")
        if topic.records < WARM:
            said.append(
                f"  fewer than {WARM:,} records: Java's compiler is most of what Connect does, and the start of the process much of ours"
            )
        if measured := next((result for result in ours if not result.skipped), None):
            said += details(measured)
    said += ["", "Spool to Kafka, all records of a full spool, one daemon that does nothing else"]
    for topic in topics:
        found = forward(topic)
        said.append(
            f"{topic.format:6}{topic.partitions:3} partitions{found['per_second']:12,.0f} records/s{found['per_cpu_second']:12,.0f} records/CPU-s"
            f"{found['peak']:7.0f} MiB"
        )
    if waits:
        said += ["", *latencies(waits)]
    return "\n".join(said)


def details(ours: Result) -> list[str]:
    detail = ours.detail
    by_thread = sorted(detail["threads"].items(), key=lambda pair: -pair[1])[:8]
    lines = [
        f"  ours: verify: {detail['verify']}; {detail['rows_an_object']:,.0f} rows an object; broker {ours.servers['n1']:.1f} CPU s, "
        f"store {ours.servers['s3']:.1f}",
        "  CPU s by thread: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in by_thread),
    ]
    profile = detail.get("profile", {})
    if "stages" in profile:
        lines.append("  by stage, %: " + ", ".join(f"{name} {share}" for name, share in profile["stages"].items()))
        lines += [f"  {share:5.1f} %  {name[:150]}" for name, share in list(profile["own"].items())[:25]]
    elif profile:
        lines.append(f"  profile SKIPPED: {profile['skipped']}")
    return lines


def forward(topic: Preloaded) -> dict:
    found = topic.forward
    rates = {"per_second": found["records"] / found["seconds"], "per_cpu_second": found["records"] / found["cpu"]}
    return {"format": topic.format, "partitions": topic.partitions} | found | rates


def latencies(waits: dict) -> list[str]:
    per_cpu = waits["feed_trades"] / waits["feed_cpu_seconds"]
    lines = [
        f"Socket to Kafka at {waits['rate']:,} trades a second, {waits['burst']:,} in the fullest second:",
        f"{per_cpu:,.0f} trades/CPU-s of the daemon (WebSocket, validation, spool, forwarder)",
        f"The machine's load was {waits['load']:.1f}; above its cores ({os.cpu_count()}) these are times of the scheduler.",
        f"{'milliseconds':48}{'p50':>9}{'p99':>8}",
    ]
    return lines + [f"{name:48}{found['p50']:9.1f}{found['p99']:8.1f}" for name, found in waits["waits"].items()]
