"""How long a frame takes from the socket to Kafka, beside what the broker alone takes.

Both are measured by the same reader at the end of the topic, so both have the reader's own way in them: of Tickmint from when the
frame was read (`received_at` in the header), through validation, the spool's fsync and the forwarder; of a plain producer with the
same settings (confluent-kafka: linger 5 ms, lz4, all replicas, idempotent) from when the record was handed over, at the moments at
which Tickmint's came: the market has bursts of twenty times its rate, and the slowest hundredth is of these. That the broker has
acknowledged a record is known before a reader gets it; the producer says by how much."""

import bisect
import os
import re
import struct
import threading
import time
from collections import Counter

from confluent_kafka import Consumer, Producer, TopicPartition

from contenders import Bench
from processes import cpu_seconds, metrics
from servers import Servers, end, wait

RATE = 5_000
#: Of the measurement, after a while that does not count.
SECONDS, WARM = 20, 5
PARTITIONS = 4
#: Of the plain producer: what is in a record, about as long as a trade with its header.
STAMP, FILL = struct.Struct("<q"), bytes(130)
#: Where `received_at` stands in the header, and what a record with a value has for its kind.
RECEIVED, KIND_AT, DATA = 28, 1, 1


def measure(bench: Bench) -> dict:
    servers, prefix = bench.servers, f"bench-latency-{int(time.time())}."
    reader, durable, used, trades = live(bench, prefix)
    own, acknowledged = plain(servers, f"{prefix}plain", reader.moments)
    waits = {
        "frame read -> durable in the spool, as the daemon says": durable,
        "frame read -> readable in Kafka, tickmint": percentiles(reader.waits),
        "record handed over -> readable, plain producer": percentiles(own),
        "record handed over -> acknowledged, the same": percentiles(acknowledged),
    }
    second = max(Counter(moment // 1_000_000 for moment in reader.moments).values())
    return {"rate": RATE, "burst": second, "load": os.getloadavg()[0], "waits": waits, "feed_cpu_seconds": used, "feed_trades": trades}


def percentiles(waits: list[float]) -> dict[str, float]:
    ordered = sorted(waits)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100], "count": len(ordered)}


class Reader(threading.Thread):
    """Reads a topic to its end, and keeps how old each record was when it came, in milliseconds, and when it began."""

    def __init__(self, servers: Servers, topic: str, partitions: int, since):
        super().__init__(daemon=True)
        self.since, self.waits, self.moments, self.count, self.ended = since, [], [], False, False
        self.consumer = Consumer({"bootstrap.servers": servers.brokers, "group.id": "bench-latency", "fetch.wait.max.ms": 5})
        self.consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])

    def run(self) -> None:
        while not self.ended:
            messages = self.consumer.consume(1000, 0.001)
            now = time.time_ns() // 1000
            begun = [since for message in messages if (since := self.since(message)) is not None]
            self.moments += begun
            if self.count:
                self.waits += [(now - since) / 1000 for since in begun]
        self.consumer.close()

    def measure(self) -> None:
        time.sleep(WARM)
        self.count = True
        time.sleep(SECONDS)
        self.count, self.ended = False, True
        self.join()


def received(message) -> int | None:
    header = message.headers()[0][1]
    return STAMP.unpack_from(header, RECEIVED)[0] if header[KIND_AT] == DATA else None


def of_histogram(name: str, before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The least bounds, in milliseconds, of its buckets below which half, and 99 of 100, of what was observed in between lie."""
    bucket = re.compile(rf'{name}_bucket{{le="([^"]+)"}}')
    bounds = sorted((float(found[1]), after[line] - before.get(line, 0)) for line in after if (found := bucket.fullmatch(line)))
    count = bounds[-1][1]
    below = lambda share: next(bound * 1000 for bound, so_many in bounds if so_many >= share * count)  # noqa: E731
    return {"p50": below(0.5), "p99": below(0.99), "count": count}


def live(bench: Bench, prefix: str) -> tuple[Reader, dict[str, float], float, float]:
    """A daemon that listens to a market of this rate: how long its records took to the reader, and to the disk. With what processor
    time, and how many trades."""
    folder = bench.work / prefix.rstrip(".")
    exchange, address = bench.daemons.exchange(bench.work / "exchange.log", "--rate", str(RATE))
    config, port = bench.daemons.config(folder, "feed", prefix, PARTITIONS, "json", feed=address)
    daemon = bench.daemons.run(config)
    try:
        wait("the first trades", lambda: metrics(port).get("tickmint_forward_acknowledged", 0) > 0, daemon, config.with_suffix(".log"), 60)
        used, before = cpu_seconds(daemon.pid), metrics(port)
        reader = Reader(bench.servers, f"{prefix}trades", PARTITIONS, received)
        reader.start()
        reader.measure()
        used, after = cpu_seconds(daemon.pid) - used, metrics(port)
        durable = of_histogram("tickmint_frame_to_durable_seconds", before, after)
        return reader, durable, used, after["tickmint_trades_total"] - before["tickmint_trades_total"]
    finally:
        end(exchange)
        end(daemon)


def plain(servers: Servers, topic: str, moments: list[int]) -> tuple[list[float], list[float]]:
    """A producer with the forwarder's settings, given a record at each of these moments (microseconds): after how long its records
    are readable, and acknowledged."""
    moments = sorted(moments)
    dues = [moment for moment in moments if moment >= moments[-1] - (WARM + SECONDS) * 1_000_000]
    servers.make_topic(topic, PARTITIONS)
    producer = Producer({
        "bootstrap.servers": servers.brokers, "linger.ms": 5, "compression.codec": "lz4", "acks": "all", "enable.idempotence": True,
    })  # fmt: skip
    reader = Reader(servers, topic, PARTITIONS, lambda message: STAMP.unpack_from(message.value())[0])
    reader.start()
    acknowledged: list[float] = []
    behind, sent = time.time_ns() // 1000 - dues[0], 0
    measuring = threading.Thread(target=reader.measure)
    measuring.start()
    while measuring.is_alive():
        due = bisect.bisect(dues, time.time_ns() // 1000 - behind)
        while sent < due:
            at = time.time_ns() // 1000
            count = reader.count

            def answered(error, _, at=at, count=count):
                if count and not error:
                    acknowledged.append((time.time_ns() // 1000 - at) / 1000)

            producer.produce(topic, STAMP.pack(at) + FILL, partition=sent % PARTITIONS, on_delivery=answered)
            sent += 1
        producer.poll(0.002)
    producer.flush(10)
    return reader.waits, acknowledged
