"""Messages to lines and columns, as fast as Python gets it: nothing is done record by record but what no library does at once."""

import io

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

#: The header `tickmint` (src/wire/envelope.rs), of a record with a value.
HEADER = np.dtype([
    ("version", "u1"), ("kind", "u1"), ("stream", "u1"), ("form", "u1"), ("schema", "u1"), ("flags", "u1"), ("index", "<u2"),
    ("frame", "<u4"), ("place", "<u8"), ("seq", "<u8"), ("received_at", "<i8"), ("log", "V16"), ("session", "V16"),
])  # fmt: skip
DECIMAL = pa.decimal128(18, 8)
TRADE = pa.schema([("s", pa.string()), ("p", DECIMAL), ("v", DECIMAL), ("t", pa.int64()), ("c", pa.list_(pa.string()))])
FLAGS = ("time_suspect", "price_update", "frame_repeat")
LINE = b'{"session":"%b","frame":%d,"index":%d,"seq":%d,"offset":%d,"received_at":%d,"raw":"%b"}\n'
FLAGGED = b'{"session":"%b","frame":%d,"index":%d,"seq":%d,"offset":%d,"received_at":%d,"flags":%b,"raw":"%b"}\n'


def with_value(messages: list) -> list:
    """What has no value is the beginning or the end of a session, or the turn of an hour."""
    return [message for message in messages if message.value() is not None]


def value_columns(messages: list) -> tuple[bytes, pa.Table]:
    """Only what stands in the values."""
    lines = b"\n".join([value for message in messages if (value := message.value()) is not None]) + b"\n"
    return lines, trades(lines)


def trades(lines: bytes) -> pa.Table:
    """The typed columns of lines of Finnhub's trades."""
    options = pj.ParseOptions(explicit_schema=TRADE, unexpected_field_behavior="ignore")
    read = pj.read_json(pa.BufferReader(lines), read_options=pj.ReadOptions(block_size=1 << 20), parse_options=options)
    return pa.table({
        "symbol": read["s"], "price": read["p"], "size": read["v"],
        "event_time": read["t"].cast(pa.timestamp("ms", "UTC")), "conditions": pc.binary_join(read["c"], ","),
    })  # fmt: skip


def json_columns(messages: list) -> tuple[bytes, pa.Table]:
    """The lines and columns of Tickmint's objects, of JSON values."""
    messages = with_value(messages)
    values = [message.value() for message in messages]
    headers = np.frombuffer(b"".join([message.headers()[0][1] for message in messages]), HEADER)
    who = {
        "session": sessions(headers["session"]), "frame": headers["frame"].astype(np.int64),
        "idx": headers["index"].astype(np.int32), "seq": headers["seq"].astype(np.int64),
        "record_offset": np.array([message.offset() for message in messages]), "received_at": headers["received_at"],
    }  # fmt: skip
    text = b"\n".join(values)
    typed = trades(text)
    # A JSON string of it: all of them at once. Finnhub's text has no other characters that would have to be escaped.
    escaped = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').split(b"\n")
    return lines_of(who, headers["flags"], escaped), table(who, headers["flags"], typed)


def sessions(ids: np.ndarray) -> pa.Array:
    """The ids as text. There are few of them."""
    names, places = np.unique(ids, return_inverse=True)
    texts = [str(uuid_of(name)) for name in names]
    return pa.DictionaryArray.from_arrays(places.astype(np.int32), texts)


def uuid_of(name: np.void) -> str:
    text = name.tobytes().hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def lines_of(who: dict, flags: np.ndarray, escaped: list[bytes]) -> bytes:
    texts = [text.encode() for text in who["session"].dictionary.to_pylist()]
    session = [texts[place] for place in who["session"].indices.to_pylist()]
    numbers = [who[name].tolist() for name in ("frame", "idx", "seq", "record_offset", "received_at")]
    if not flags.any():
        return b"".join([LINE % row for row in zip(session, *numbers, escaped, strict=True)])
    names = [b"[%b]" % b",".join(b'"%b"' % name.encode() for bit, name in enumerate(FLAGS) if value >> bit & 1) for value in range(8)]
    rows = zip(session, *numbers, flags.tolist(), escaped, strict=True)
    return b"".join([FLAGGED % (*row[:6], names[row[6]], row[7]) if row[6] else LINE % (*row[:6], row[7]) for row in rows])


def table(who: dict, flags: np.ndarray, typed: pa.Table) -> pa.Table:
    columns = who | {
        "session": who["session"].cast(pa.string()), "received_at": pa.array(who["received_at"], pa.timestamp("us", "UTC")),
        "source": pa.DictionaryArray.from_arrays(np.zeros(len(flags), np.int8), ["finnhub"]).cast(pa.string()),
    }  # fmt: skip
    columns |= {name: typed[name] for name in typed.column_names}
    return pa.table(columns | {name: pa.array(flags >> bit & 1).cast(pa.bool_()) for bit, name in enumerate(FLAGS)})


# ---- Avro ----------------------------------------------------------------------------------------------------------------

#: trade.avsc without its logical types: Python's objects of them cost more than all the rest.
AVRO = fastavro.parse_schema({"type": "record", "name": "Trade", "fields": [
    {"name": name, "type": kind} for name, kind in (
        ("session", "string"), ("frame", "long"), ("idx", "int"), ("seq", "long"), ("received_at", "long"), ("source", "string"),
        ("symbol", "string"), ("price", "bytes"), ("size", "bytes"), ("event_time", "long"), ("conditions", ["null", "string"]),
        ("time_suspect", "boolean"), ("price_update", "boolean"), ("frame_repeat", "boolean"), ("raw", "string"))
]})  # fmt: skip
#: Before a value: zero and the number of its schema.
FRAMING = 5


def container() -> tuple[bytes, bytes]:
    """The beginning of a container file without a block, and what ends each block."""
    out = io.BytesIO()
    fastavro.writer(out, AVRO, [], sync_marker=b"tickmint-archive")
    return out.getvalue(), b"tickmint-archive"


BEGINNING, MARKER = container()


def avro_columns(messages: list) -> tuple[bytes, pa.Table]:
    """The same of Avro values. They become one block of a container: one call of C for all, and not one for each.
    To take `raw` only, and the rest out of it by Arrow and out of the header, was tried and is not faster."""
    messages = with_value(messages)
    block = b"".join([message.value()[FRAMING:] for message in messages])
    file = io.BytesIO(b"".join((BEGINNING, zigzag(len(messages)), zigzag(len(block)), block, MARKER)))
    rows = list(fastavro.reader(file))
    column = {name: [row[name] for row in rows] for name in rows[0]}
    who = {
        "session": pa.array(column["session"]).dictionary_encode(), "frame": np.array(column["frame"]),
        "idx": np.array(column["idx"], np.int32), "seq": np.array(column["seq"]),
        "record_offset": np.array([message.offset() for message in messages]), "received_at": np.array(column["received_at"]),
    }  # fmt: skip
    flags = sum(np.array(column[name], np.uint8) << bit for bit, name in enumerate(FLAGS))
    typed = pa.table({
        "symbol": column["symbol"], "price": decimals(column["price"]), "size": decimals(column["size"]),
        "event_time": pa.array(column["event_time"], pa.timestamp("ms", "UTC")), "conditions": pa.array(column["conditions"], pa.string()),
    })  # fmt: skip
    text = "\n".join(column["raw"]).encode()
    escaped = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').split(b"\n")
    return lines_of(who, flags, escaped), table(who, flags, typed)


def zigzag(number: int) -> bytes:
    """A number of Avro, not negative."""
    number, out = number << 1, bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decimals(values: list[bytes]) -> pa.Array:
    """18 digits fit 64 bits; Arrow wants 128."""
    low = np.array([int.from_bytes(value, signed=True) for value in values], np.int64)
    both = np.column_stack((low, low >> 63))
    return pa.Array.from_buffers(DECIMAL, len(values), [None, pa.py_buffer(np.ascontiguousarray(both))])
