"""Kafka Connect as a peer: Apache Iceberg's sink, and our own least one. Processor time counts from when the connector is posted."""

import json
import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contenders import Bench, Result, patience
from daemon import Preloaded
from processes import cpu_seconds, free_port, peak
from servers import ACCESS, BUCKET, ROOT, SECRET, Servers, Skipped, end, fetch, wait

HERE = Path(__file__).resolve().parent / "peers/connect"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tickmint"
#: An object waits so long for more at most, as Tickmint's do (`bronze.flush_after`).
COMMIT = 5_000
#: The AWS SDK adds a checksum to each body where this is not said.
ENVIRONMENT = {"AWS_REGION": "us-east-1", "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED"}
BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"


@dataclass
class Parts:
    """The launchers, and the jars beside them."""

    kafka: Path
    connect: Path

    def jars(self, part: Path) -> list[Path]:
        return sorted((part.parent.parent / "jars").glob("*.jar"))

    @property
    def class_path(self) -> str:
        return ":".join(str(jar) for part in (self.kafka, self.connect) for jar in self.jars(part))


def parts() -> Parts:
    if not shutil.which(java("javac")):
        raise Skipped("there is no `javac` here (Debian: apt-get install openjdk-17-jdk-headless)")
    made = subprocess.run([ROOT / "scripts/parts", "kafka", "connect"], capture_output=True, text=True, check=False)
    if made.returncode == 3:
        raise Skipped(made.stderr.strip().splitlines()[-1])
    if made.returncode != 0:
        raise RuntimeError(made.stderr)
    return Parts(*map(Path, made.stdout.split()))


def java(program: str) -> str:
    return str(Path(os.environ["JAVA_HOME"]) / "bin" / program) if "JAVA_HOME" in os.environ else program


def catalog(servers: Servers, folder: Path, prefix: str) -> dict[str, str]:
    """Iceberg's catalog, in a file of H2, and its way to the bucket."""
    return {
        "uri": f"jdbc:h2:file:{folder / 'catalog'};MODE=MySQL;DATABASE_TO_LOWER=TRUE", "jdbc.schema-version": "V1",
        "warehouse": f"s3://{BUCKET}/{prefix}", "io-impl": "org.apache.iceberg.aws.s3.S3FileIO", "http-client.type": "urlconnection",
        "s3.endpoint": servers.endpoint, "s3.path-style-access": "true", "client.region": "us-east-1",
        "s3.access-key-id": ACCESS, "s3.secret-access-key": SECRET,
    }  # fmt: skip


def iceberg(by: str) -> Callable[[Bench, Preloaded], Result]:
    """Parquet in a table that is partitioned by a column, or not at all; exactly once by Kafka's transactions."""
    name = "iceberg-by-symbol" if by else "iceberg"

    def contender(bench: Bench, topic: Preloaded) -> Result:
        having = parts()

        def run(prefix: str) -> dict:
            folder = emptied(bench.work / "iceberg")
            options = catalog(bench.servers, folder, prefix)
            command = [java("java"), "-cp", having.class_path, HERE / "MakeTable.java", by, *(f"{name}={value}" for name, value in options.items())]
            made = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
            if made.returncode != 0:
                raise RuntimeError(f"Iceberg's table could not be made:\n{made.stdout[-1000:]}{made.stderr[-3000:]}")
            control = f"{prefix}-control"
            bench.servers.make_topic(control)
            plugin(folder, having.jars(having.connect))
            config = {
                "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector", "tasks.max": "1", "topics": topic.topic,
                "value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "false",
                "iceberg.tables": "bronze.trades", "iceberg.control.topic": control,
                "iceberg.control.commit.interval-ms": str(COMMIT), "iceberg.control.commit.timeout-ms": "30000", "iceberg.catalog.type": "jdbc",
            } | {f"iceberg.catalog.{name}": value for name, value in options.items()}  # fmt: skip
            return worker(bench, topic, having, folder, prefix, config, lambda: snapshot(bench.servers, prefix) >= topic.records)

        return bench.measured(name, topic, run)

    return contender


def snapshot(servers: Servers, prefix: str) -> int:
    """Rows of the table as committed last. The numbers of its metadata's files rise."""
    files = sorted(key for key, _ in servers.objects(f"{prefix}/bronze/trades/metadata/") if key.endswith(".metadata.json"))
    snapshots = json.loads(servers.read(files[-1])).get("snapshots") if files else None
    return int(snapshots[-1]["summary"]["total-records"]) if snapshots else 0


def floor(bench: Bench, topic: Preloaded) -> Result:
    """Our own least sink (peers/connect/LinesSink.java). What any sink for S3 does besides, it does not."""
    having = parts()

    def run(prefix: str) -> dict:
        folder = emptied(bench.work / "connect-floor")
        classes = folder / "classes"
        class_path = ["-cp", having.class_path]
        done = subprocess.run(
            [java("javac"), "-d", classes, *class_path, HERE / "LinesSink.java"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"the sink does not compile:\n{done.stdout}{done.stderr}")
        with zipfile.ZipFile(folder / "sink.jar", "w") as jar:
            jar.writestr("META-INF/services/org.apache.kafka.connect.sink.SinkConnector", "peer.LinesSink\n")
            for file in classes.rglob("*.class"):
                jar.write(file, file.relative_to(classes))
        # Of the part only what the AWS SDK needs: Iceberg's sink would be found besides.
        needed = [jar for jar in having.jars(having.connect) if not jar.name.startswith(("iceberg", "hadoop", "parquet", "orc", "h2"))]
        plugin(folder, [folder / "sink.jar", *needed])
        config = {
            "connector.class": "peer.LinesSink", "tasks.max": "1", "topics": topic.topic, "value.converter": BYTES,
            "s3.url": bench.servers.endpoint, "s3.bucket": BUCKET, "s3.prefix": prefix, "s3.key": ACCESS, "s3.secret": SECRET,
            "max.records": str(bench.batch),
        }  # fmt: skip
        return worker(bench, topic, having, folder, prefix, config, lambda: True)

    return bench.measured("connect-floor", topic, run)


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def plugin(folder: Path, jars: list[Path]) -> None:
    (folder / "plugins/sink").mkdir(parents=True)
    for jar in jars:
        (folder / "plugins/sink" / jar.name).symlink_to(jar)


def worker(bench: Bench, topic: Preloaded, having: Parts, folder: Path, prefix: str, config: dict, is_whole) -> dict:
    """Starts a worker, posts the connector, and waits until its group has committed all and what it wrote is whole."""
    port, log = free_port(), folder / "worker.log"
    # Fewer, larger fetches and polls than by default: that is what tuning them gives.
    (folder / "worker.properties").write_text(f"""\
bootstrap.servers={bench.servers.brokers}
key.converter={BYTES}
value.converter={BYTES}
header.converter={BYTES}
offset.storage.file.filename={folder / "offsets"}
offset.flush.interval.ms={COMMIT}
listeners=http://127.0.0.1:{port}
plugin.path={folder / "plugins"}
plugin.discovery=only_scan
consumer.auto.offset.reset=earliest
consumer.max.poll.records=5000
consumer.fetch.min.bytes=65536
consumer.max.partition.fetch.bytes=1048576
""")
    command = [having.connect, having.kafka, "org.apache.kafka.connect.cli.ConnectStandalone", folder / "worker.properties"]
    with log.open("w") as out:
        process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=out, stderr=out)
    url, total, asked = f"http://127.0.0.1:{port}/connectors", sum(topic.ends.values()), 0.0

    def is_up() -> bool:
        try:
            return fetch(url) is not None
        except OSError:
            return False

    def is_done() -> bool:
        nonlocal asked
        if time.monotonic() - asked > 2:
            asked = time.monotonic()
            tasks = json.loads(fetch(f"{url}/{name}/status"))["tasks"]
            if failed := [task["trace"] for task in tasks if task["state"] == "FAILED"]:
                raise RuntimeError(f"the task has failed: {failed[0][:3000]}")
        return bench.servers.committed(f"connect-{name}", topic.topic, topic.partitions) >= total and is_whole()

    name = prefix.replace(".", "-")
    try:
        wait("the worker's start", is_up, process, log, 120)
        begun, used = time.monotonic(), cpu_seconds(process.pid)
        fetch(url, {"name": name, "config": config})
        wait("the connector", is_done, process, log, patience(topic))
        return {"seconds": time.monotonic() - begun, "cpu": cpu_seconds(process.pid) - used, "peak": peak(process.pid)}
    finally:
        end(process)
