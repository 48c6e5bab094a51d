"""What is measured: each archives a preloaded topic, and says what it took and what it wrote."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import counting
import profiling
from daemon import Daemons, Preloaded
from processes import cpu_seconds, metrics, peak
from servers import ACCESS, BUCKET, SECRET, Servers, Skipped, end, threads, wait

HERE = Path(__file__).resolve().parent
#: Of Tickmint's example config, and so of all who have one.
ZSTD_LEVEL = 1
#: Rows of an object where Tickmint has not run before and shown how many it makes.
BATCH = 120_000
#: Nobody takes so long for a million records, in seconds.
PATIENCE = 120


@dataclass
class Result:
    """A row of the table."""

    contender: str
    format: str
    partitions: int
    records: int
    seconds: float
    cpu: float
    peak: float
    bytes: int
    objects: int
    load: float
    #: Of the broker and of the store meanwhile, which count for nobody.
    servers: dict[str, float]
    #: What else is known: threads, stages, requests.
    detail: dict = field(default_factory=dict)
    #: Why it was not measured.
    skipped: str = ""

    @property
    def per_cpu(self) -> float:
        return self.records / self.cpu if self.cpu else 0

    def as_json(self) -> dict:
        return asdict(self) | {"per_second": self.records / self.seconds if self.seconds else 0, "per_cpu_second": self.per_cpu}


@dataclass
class Bench:
    """What contenders work with."""

    servers: Servers
    daemons: Daemons
    work: Path
    #: Profiles ours, too, where `perf` is there.
    profile: bool
    #: Rows of an object, as Tickmint made them.
    batch: int = BATCH

    def measured(self, name: str, topic: Preloaded, run: Callable[[str], dict]) -> Result:
        """Runs it into a prefix of its own, counts what is there, and fails if that is not all."""
        # Of this run only: a group that has committed offsets would find nothing left to read.
        prefix = f"{topic.prefix}{name}-{int(time.time())}"
        before = self.servers.cpu()
        found = run(prefix)
        servers = {server: cpu - before[server] for server, cpu in self.servers.cpu().items()}
        counts = counting.count(self.servers, prefix)
        wrong = {form: rows for form, rows in counts.rows.items() if rows != topic.records}
        if wrong or not counts.rows:
            raise RuntimeError(f"{name} was given {topic.records} records and wrote {counts.rows}")
        self.servers.delete(prefix)
        return Result(name, topic.format, topic.partitions, topic.records, found["seconds"], found["cpu"], found["peak"], counts.bytes,
                      counts.objects, os.getloadavg()[0], servers, found.get("detail", {}))  # fmt: skip


def tickmint(bench: Bench, topic: Preloaded) -> Result:
    """Raw and typed, hashes, seen intervals, commit chain. Its start is counted, as it has no other process to start in."""

    def run(prefix: str) -> dict:
        config, port = config_of(bench, topic, prefix)
        begun, daemon = time.monotonic(), bench.daemons.run(config)
        try:
            wait("archiving", lambda: is_archived(port, topic), daemon, config.with_suffix(".log"), patience(topic))
            found = {"seconds": time.monotonic() - begun, "cpu": cpu_seconds(daemon.pid), "peak": peak(daemon.pid)}
            now = metrics(port)
            rows = topic.records / max(1, now['tickmint_bronze_objects_total{stream="trades"}'] / 2)
            bench.batch = max(1000, int(rows))
            requests = {name.split('"')[1]: count for name, count in now.items() if name.startswith("tickmint_store_request_seconds_count")}
            found["detail"] = {"rows_an_object": rows, "threads": threads(daemon.pid), "requests": requests}
        finally:
            end(daemon, 120)
        found["detail"]["verify"] = verified(bench, topic, config)
        if bench.profile:
            found["detail"]["profile"] = profiled(bench, topic, f"{prefix}-profile")
        return found

    return bench.measured("tickmint", topic, run)


def config_of(bench: Bench, topic: Preloaded, prefix: str) -> tuple[Path, int]:
    folder = bench.work / "archive" / prefix
    return bench.daemons.config(folder, "archive", topic.prefix, topic.partitions, topic.format, store=prefix)


def is_archived(port: int, topic: Preloaded) -> bool:
    return metrics(port).get('tickmint_bronze_records_total{stream="trades"}', 0) >= topic.records


def verified(bench: Bench, topic: Preloaded, config: Path) -> str:
    """The audit, over the spool that the records came from."""
    command = [bench.daemons.tickmint, "verify", "--config", config, "--spool", topic.spool]
    done = subprocess.run(command, env=bench.daemons.environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"`tickmint verify` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return "nothing lost, nothing doubled"


def profiled(bench: Bench, topic: Preloaded, prefix: str) -> dict:
    """Another run, as the profiler takes processor time too."""
    if not profiling.is_there():
        return {"skipped": "there is no `perf` here"}
    config, port = config_of(bench, topic, prefix)
    recorded = config.with_suffix(".perf")
    profiler = bench.daemons.run(config, *profiling.recorder(recorded))
    try:
        wait("archiving under perf", lambda: is_archived(port, topic), profiler, config.with_suffix(".log"), patience(topic))
    finally:
        profiling.stop(profiler)
    bench.servers.delete(prefix)
    return profiling.report(recorded)


def patience(topic: Preloaded) -> float:
    return PATIENCE * (1 + topic.records / 1e6)


def python(content: str) -> Callable[[Bench, Preloaded], Result]:
    """The tuned consumer, peers/consumer.py. Its imports are not counted."""
    name = "python" if content == "same" else "python-values"

    def contender(bench: Bench, topic: Preloaded) -> Result:
        if content == "values" and topic.format == "avro":
            raise Skipped("of Avro values nothing can be left out")

        def run(prefix: str) -> dict:
            job = {
                "brokers": bench.servers.brokers, "topic": topic.topic, "group": prefix, "ends": topic.ends, "format": topic.format,
                "content": content, "endpoint": bench.servers.endpoint, "access": ACCESS, "secret": SECRET, "bucket": BUCKET,
                "prefix": prefix, "batch": bench.batch, "zstd_level": ZSTD_LEVEL,
            }  # fmt: skip
            process = subprocess.Popen([sys.executable, HERE / "peers/consumer.py", json.dumps(job)], stdout=subprocess.PIPE, text=True)
            said = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise RuntimeError(f"{name} has ended with {process.returncode}")
            found = json.loads(said.splitlines()[-1])
            return {"seconds": found["seconds"], "cpu": found["cpu"], "peak": used.ru_maxrss / 1024}

        return bench.measured(name, topic, run)

    return contender
