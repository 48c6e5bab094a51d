"""Daemons of Tickmint: their configs, and the preload by them, which is the measurement of spool to Kafka."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from processes import cpu_seconds, free_port, metrics, peak
from servers import ACCESS, BUCKET, SECRET, Servers, end, wait

SYMBOLS = 50
#: Nobody listens there.
NOWHERE = "127.0.0.1:1"


@dataclass
class Preloaded:
    """A topic with N trades, and the spool that it came from."""

    format: str
    partitions: int
    records: int
    prefix: str
    spool: Path
    ends: dict[int, int]
    #: Of the forwarding daemon, over all records: seconds, processor seconds, peak MiB.
    forward: dict[str, float]
    #: Bytes of a value, and of a record with its key and header.
    sizes: tuple[float, float]

    @property
    def topic(self) -> str:
        return f"{self.prefix}trades"


class Daemons:
    """Makes and starts them."""

    def __init__(self, tickmint: Path, servers: Servers, work: Path, properties: list[str]):
        self.tickmint, self.servers, self.work, self.properties = tickmint, servers, work, properties
        self.environment = os.environ | {"TICKMINT_BENCH_ACCESS": ACCESS, "TICKMINT_BENCH_SECRET": SECRET}
        work.mkdir(parents=True, exist_ok=True)
        (work / "key").write_text("bench")
        listed = subprocess.run(
            [tickmint, "exchange", "--simulate", str(SYMBOLS), "--list-symbols"], capture_output=True, text=True, check=True
        )
        self.symbols = listed.stdout.split()

    def config(self, folder: Path, role: str, prefix: str, partitions: int, format: str, *, feed: str = NOWHERE, brokers: str = "",
               store: str = "unused", drain: str = "30s") -> tuple[Path, int]:  # fmt: skip
        """The file, and the port of its metrics."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        port, path = free_port(), folder.with_name(folder.name + ".toml")
        registry = f'[kafka.registry]\nurl = "{self.servers.registry}"\n' if format == "avro" else ""
        properties = "\n".join(f"{name} = {json.dumps(value)}" for name, _, value in (text.partition("=") for text in self.properties))
        # The market's clock is its own, far ahead of ours: so no trade is too new.
        path.write_text(f"""\
data_dir = "{folder}"
drain_within = "{drain}"
roles = ["{role}"]
[http]
listen = "127.0.0.1:{port}"
[feed]
url = "ws://{feed}"
[[feed.keys]]
key_file = "{self.work / "key"}"
symbols = {json.dumps(self.symbols)}
[validation]
max_age = "none"
max_ahead = "none"
[kafka]
brokers = ["{brokers or self.servers.brokers}"]
topic_prefix = "{prefix}"
group = "{prefix}archive"
partitions = {partitions}
drain_within = "{drain}"
replication_factor = 1
min_insync = 1
format = "{format}"
{registry}
[kafka.properties]
{properties}
[bronze]
store = "s3://{BUCKET}/{store}"
[bronze.s3]
endpoint = "{self.servers.endpoint}"
access_key_env = "TICKMINT_BENCH_ACCESS"
secret_key_env = "TICKMINT_BENCH_SECRET"
[warehouse]
enabled = false
""")
        return path, port

    def run(self, config: Path, *wrapper: str) -> subprocess.Popen:
        with config.with_suffix(".log").open("w") as log:
            return subprocess.Popen([*wrapper, self.tickmint, "run", "--config", config], env=self.environment, stderr=log, stdout=log)

    def exchange(self, log: Path, *options: str) -> tuple[subprocess.Popen, str]:
        """The process, and where it listens."""
        command = [self.tickmint, "exchange", "--listen", "127.0.0.1:0", "--simulate", str(SYMBOLS), "--key", "bench", *options]
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out, text=True)
        return process, process.stdout.readline().strip().rsplit("ws://", 1)[-1]

    # ---- the preload ----

    def fill(self, records: int, partitions: int) -> Path:
        """A spool with so many trades, and no cluster in reach: so that forwarding can be measured alone."""
        folder = self.work / f"spool-{records}-{partitions}"
        if (folder / "filled").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        exchange, address = self.exchange(self.work / "exchange.log", "--speed", "max", "--rate", "2000", "--trades", str(records))
        # What it knows of no cluster it cannot drain to: it is stopped after a moment, and the spool keeps all.
        config, port = self.config(folder, "feed", "none.", partitions, "json", feed=address, brokers=NOWHERE, drain="2s")
        daemon = self.run(config)
        try:
            wait("filling the spool", lambda: durable(metrics(port)) >= records, daemon, config.with_suffix(".log"), 600)
            time.sleep(1)  # else the session would be cut off in the middle of its last group
        finally:
            end(exchange)
            end(daemon, 60)
        (folder / "filled").touch()
        return folder

    def preload(self, records: int, partitions: int, format: str) -> Preloaded:
        """The topic of these records; the one of the run before, if it is whole."""
        name = f"bench-{records}-{partitions}-{format}"
        folder, done = self.work / name, self.work / f"{name}.json"
        if done.exists():
            known = json.loads(done.read_text())
            ends = self.servers.ends(f"{known['prefix']}trades")
            if ends and sum(ends.values()) == known["all"] and (folder / "spool").exists():
                return Preloaded(format, partitions, records, known["prefix"], folder / "spool", ends, known["forward"], known["sizes"])
        filled = self.fill(records, partitions)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(filled, folder)
        (folder / "filled").unlink()
        prefix = f"{name}-{int(time.time())}."
        config, port = self.config(folder, "feed", prefix, partitions, format)
        daemon = self.run(config)
        try:

            def forwarded() -> bool:
                now = metrics(port)
                acknowledged, waiting = now.get("tickmint_forward_acknowledged", 0), now.get("tickmint_forward_under_way", 0)
                return acknowledged >= max(records, now.get("tickmint_forward_uncovered", 0)) and waiting == 0

            # Without the start of the process.
            wait("starting", lambda: bool(metrics(port)), daemon, config.with_suffix(".log"), 60)
            begun, used = time.monotonic(), cpu_seconds(daemon.pid)
            before = metrics(port)["tickmint_forwarded_records_total"]
            wait("forwarding", forwarded, daemon, config.with_suffix(".log"), 900)
            sent = metrics(port)["tickmint_forwarded_records_total"] - before
            forward = {
                "records": sent,
                "seconds": time.monotonic() - begun,
                "cpu": cpu_seconds(daemon.pid) - used,
                "peak": peak(daemon.pid),
            }
        finally:
            end(daemon, 60)
        ends = self.servers.ends(f"{prefix}trades")
        sizes = self.servers.sizes(f"{prefix}trades")
        done.write_text(json.dumps({"prefix": prefix, "all": sum(ends.values()), "forward": forward, "sizes": sizes}))
        return Preloaded(format, partitions, records, prefix, folder / "spool", ends, forward, sizes)


def durable(now: dict[str, float]) -> float:
    """Trades that are validated and in the spool."""
    return min(now.get("tickmint_trades_total", 0), now.get('tickmint_spool_records_total{stream="trades"}', 0))
