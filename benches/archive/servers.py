"""What all contenders share: a broker, a schema registry, a bucket. And how much a process took of the machine."""

import contextlib
import json
import os
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import botocore.config
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from processes import cpu_seconds

ROOT = Path(__file__).resolve().parent.parent.parent
CLUSTER = ROOT / "scripts/cluster"
TICKS = os.sysconf("SC_CLK_TCK")
# As scripts/cluster sets it up.
ACCESS, SECRET, BUCKET = "tickmint", "tickmint-lake", "lake"


class Skipped(Exception):
    """Why a contender cannot be had here."""


@dataclass
class Servers:
    """One broker, as the disk is one and every contender has the same; MinIO; Apicurio's registry."""

    folder: Path
    base_port: int
    #: Whether they ran before: then they stay.
    ran: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.brokers = f"127.0.0.1:{self.base_port + 1}"
        self.registry = f"http://127.0.0.1:{self.base_port + 11}/apis/ccompat/v7"
        self.endpoint = f"http://127.0.0.1:{self.base_port + 12}"

    def up(self) -> None:
        place = ["--dir", self.folder]
        self.ran = subprocess.run([CLUSTER, "status", *place], capture_output=True, check=False).returncode == 0
        options = ["--base-port", str(self.base_port), "--nodes", "1", "--no-proxy"]
        subprocess.run([CLUSTER, "up", *place, *options], check=True, stdout=subprocess.DEVNULL)
        self.admin = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
        settings = botocore.config.Config(s3={"addressing_style": "path"})
        self.s3 = boto3.client("s3", config=settings, endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id=ACCESS, aws_secret_access_key=SECRET)  # fmt: skip

    def down(self, wipe: bool) -> None:
        if not self.ran:
            subprocess.run([CLUSTER, "down", "--dir", self.folder, *(["--wipe"] if wipe else [])], check=True, stdout=subprocess.DEVNULL)

    def cpu(self) -> dict[str, float]:
        """Processor seconds of the broker and of the store."""
        pids = {name: int((self.folder / f"{name}.pid").read_text().split()[0]) for name in ("n1", "s3")}
        return {name: cpu_seconds(pid) for name, pid in pids.items()}

    # ---- topics ----

    def ends(self, topic: str) -> dict[int, int]:
        """The offset behind the last record of each partition; none if the topic is not there."""
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": "bench-ends"})
        try:
            # Of all topics: to ask for one by its name would make it, where brokers do that.
            begun = time.monotonic()
            while True:
                known = consumer.list_topics(timeout=10).topics.get(topic)
                try:
                    return {
                        of: consumer.get_watermark_offsets(TopicPartition(topic, of), 10)[1] for of in (known.partitions if known else ())
                    }
                except KafkaException:  # a broker that has just begun does not lead yet
                    if time.monotonic() - begun > 30:
                        raise
                    time.sleep(0.2)
        finally:
            consumer.close()

    def sizes(self, topic: str) -> tuple[float, float]:
        """Bytes of a value, and of a record with its key and header, in the mean of the first records of a partition."""
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": "bench-sizes"})
        try:
            consumer.assign([TopicPartition(topic, 0, 0)])
            messages = [message for message in consumer.consume(10_000, 5) if message.value() is not None]
            headers = sum(len(name) + len(value) for message in messages for name, value in message.headers() or ())
            keys, values = sum(len(message.key() or b"") for message in messages), sum(len(message.value()) for message in messages)
            return values / max(1, len(messages)), (values + keys + headers) / max(1, len(messages))
        finally:
            consumer.close()

    def committed(self, group: str, topic: str, partitions: int) -> int:
        """Records that the group has committed, over all partitions."""
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": group})
        try:
            places = consumer.committed([TopicPartition(topic, partition) for partition in range(partitions)], timeout=10)
            return sum(max(place.offset, 0) for place in places)
        finally:
            consumer.close()

    def make_topic(self, name: str, partitions: int = 1) -> None:
        with contextlib.suppress(KafkaException):  # it is there
            self.admin.create_topics([NewTopic(name, partitions, 1)])[name].result(10)

    # ---- objects ----

    def objects(self, prefix: str) -> list[tuple[str, int]]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [(found["Key"], found["Size"]) for page in pages for found in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def delete(self, prefix: str) -> None:
        keys = [{"Key": key} for key, _ in self.objects(prefix)]
        for at in range(0, len(keys), 1000):
            self.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys[at : at + 1000]})


# ---- processes -----------------------------------------------------------------------------------------------------------


def threads(pid: int) -> dict[str, float]:
    """Processor seconds by the name of the thread; those that have ended are missing."""
    found: dict[str, float] = {}
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().partition(" (")[2].rpartition(") ")
            ticks = rest.split()[11:13]
            found[name] = found.get(name, 0) + sum(map(int, ticks)) / TICKS
    return found


def end(process: subprocess.Popen, within: float = 30) -> None:
    """In order, if it can."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def fetch(url: str, body: dict | None = None) -> bytes:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def wait(what: str, is_done, process: subprocess.Popen, log: Path, within: float) -> None:
    """Until it is done. A process that ends before is told of with the end of its log."""
    begun = time.monotonic()
    while not is_done():
        if process.poll() is not None:
            raise RuntimeError(f"{what}: the process has ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
        if time.monotonic() - begun > within:
            raise RuntimeError(f"{what}: not done within {within:.0f} s:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)  # to be asked costs the process, too
