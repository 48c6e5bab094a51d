"""The tuned Python consumer: Kafka to raw JSON lines and typed Parquet, both zstd, in S3.

    python consumer.py JOB     JOB is the JSON text that ../contenders.py makes

What is tuned: messages are taken in batches, nothing is parsed record by record in Python (the JSON by Arrow, the header by
numpy, Avro as one container by fastavro's C), zstd, Parquet and the request run in a second thread, without the GIL.

Its content is `same`: the lines and columns of Tickmint's objects, with the identity of each record out of the header; or
`values`: only what stands in the value, which is less than Tickmint writes and the least that such a consumer can do. In both
objects are named by partition and offsets, and offsets are committed after the objects are there: a crash writes the same
objects again. What Tickmint has besides (hashes, the chain, deduplication by intervals) is left out.

The clock and the processor time begin after the imports. The last line of the output is JSON.
"""

import concurrent.futures
import itertools
import json
import sys
import time

import boto3
import botocore.config
import confluent_kafka
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from decoding import avro_columns, json_columns, value_columns

#: Messages of one call of the client.
TAKEN = 10_000
#: So long it waits for as many, in seconds.
PATIENCE = 0.2
#: Batches that wait for the second thread: more would only take memory.
WAITING = 2
#: Without a dictionary, as Tickmint has them too.
PLAIN = {"seq", "record_offset", "received_at", "event_time", "frame"}


class Writer:
    """Makes the two objects of a batch and puts them."""

    def __init__(self, job: dict):
        self.job = job
        self.columns = {"avro": avro_columns, "json": json_columns}[job["format"]] if job["content"] == "same" else value_columns
        settings = botocore.config.Config(
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required", retries={"max_attempts": 5}
        )
        self.s3 = boto3.client("s3", config=settings, region_name="us-east-1", endpoint_url=job["endpoint"],
            aws_access_key_id=job["access"], aws_secret_access_key=job["secret"])  # fmt: skip
        self.compressor = zstandard.ZstdCompressor(level=job["zstd_level"])
        self.rows = self.bytes = self.objects = 0

    def write(self, partition: int, messages: list) -> None:
        begins, ends = messages[0].offset(), messages[-1].offset()
        lines, columns = self.columns(messages)
        name = f"{self.job['prefix']}/{{}}/p{partition}-{begins}-{ends}.{{}}"
        self.put(name.format("raw", "jsonl.zst"), self.compressor.compress(lines))
        out = pa.BufferOutputStream()
        dictionary = [column for column in columns.column_names if column not in PLAIN]
        pq.write_table(columns, out, compression="zstd", compression_level=self.job["zstd_level"], use_dictionary=dictionary)
        self.put(name.format("typed", "parquet"), out.getvalue().to_pybytes())
        self.rows += columns.num_rows

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.job["bucket"], Key=key, Body=body)
        self.bytes += len(body)
        self.objects += 1


def main() -> None:
    job = json.loads(sys.argv[1])
    begun, used = time.monotonic(), time.process_time()
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": job["brokers"], "group.id": job["group"], "enable.auto.commit": False, "auto.offset.reset": "earliest",
        "fetch.max.bytes": 16 << 20, "queued.max.messages.kbytes": 16 << 10, "fetch.queue.backoff.ms": 10,
        "check.crcs": True,
    })  # fmt: skip
    topic, ends = job["topic"], {int(partition): end for partition, end in job["ends"].items()}
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0) for partition in ends])
    writer = Writer(job)
    held: dict[int, list] = {partition: [] for partition in ends}
    left = {partition for partition, end in ends.items() if end > 0}
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        under_way: list[concurrent.futures.Future] = []

        def flush(partition: int) -> None:
            messages, held[partition] = held[partition], []
            future = thread.submit(writer.write, partition, messages)
            under_way.append(future)
            while len(under_way) > WAITING or under_way and under_way[0].done():
                under_way.pop(0).result()
            place = confluent_kafka.TopicPartition(topic, partition, messages[-1].offset() + 1)
            future.add_done_callback(lambda done: done.exception() or consumer.commit(offsets=[place], asynchronous=True))

        while left:
            messages = consumer.consume(TAKEN, PATIENCE)
            for partition, some in itertools.groupby(messages, confluent_kafka.Message.partition):
                held[partition].extend(some)
                last = held[partition][-1]
                if last.error():
                    raise SystemExit(f"consumer: {last.error()}")
                if last.offset() + 1 >= ends[partition]:
                    left.discard(partition)
                if len(held[partition]) >= job["batch"] or partition not in left:
                    flush(partition)
        for future in under_way:
            future.result()
    consumer.close()
    seconds, cpu = time.monotonic() - begun, time.process_time() - used
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": writer.rows, "bytes": writer.bytes, "objects": writer.objects}))


if __name__ == "__main__":
    main()
