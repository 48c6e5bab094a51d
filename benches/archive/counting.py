"""Reads back what a contender wrote, and counts it: a benchmark of something that loses records is none."""

import gzip
import io
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from servers import Servers


@dataclass
class Counts:
    """Over all objects of the data; slots and snapshots are counted in bytes and objects too."""

    rows: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    objects: int = 0


def count(servers: Servers, prefix: str) -> Counts:
    """Rows by form. Of Tickmint's streams only the trades: the others hold what it says about itself."""
    counts = Counts()
    for key, size in servers.objects(prefix + "/"):
        counts.bytes, counts.objects = counts.bytes + size, counts.objects + 1
        found = rows(servers, key)
        if found and not any(f"/{stream}/" in key for stream in ("gaps", "quarantine")):
            form, number = found
            counts.rows[form] = counts.rows.get(form, 0) + number
    return counts


def rows(servers: Servers, key: str) -> tuple[str, int] | None:
    if key.endswith(".parquet"):
        return "Parquet", pq.ParquetFile(pa.BufferReader(servers.read(key))).metadata.num_rows
    if ".jsonl" in key:
        return "JSONL", lines(key, servers.read(key))
    return None


def lines(key: str, body: bytes) -> int:
    """A last line may be without its end."""
    opened = {"gz": lambda: gzip.GzipFile(fileobj=io.BytesIO(body)), "zst": lambda: zstandard.ZstdDecompressor().stream_reader(body)}
    stream = opened.get(key.rpartition(".")[2], lambda: io.BytesIO(body))()
    found, last = 0, b"\n"
    while piece := stream.read(1 << 20):
        found, last = found + piece.count(b"\n"), piece[-1:]
    return found + (last != b"\n")
