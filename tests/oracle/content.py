#!/usr/bin/env python3
"""Holds each record of Bronze against what an exchange sent, in lakes that are too large for count.py.

    content.py LEDGER LAKE      prints JSON; exits with 0 only if nothing is doubled or changed

An audit that shares nothing with the daemon's own, and with count.py only how slots and objects are found: it
reads the exchange's ledger, follows the commit slots in the folder LAKE, and opens what they name. Each archived
trade and each record in quarantine must be, byte for byte, what the exchange put on the wire at its place, and
stand in the lake once. The typed objects must say what the raw ones say, object by object, when each raw text is
read anew. What is missing is not looked for: count.py and the daemon's audit do that, and so a log that was lost
is no fault here; gaps are held only against their own objects.
DuckDB does the work and spills to TMPDIR; Python looks only at the texts that are not in the form in which the
feed writes. Records are compared by hashes of 64 bits.
"""

import json
import os
import re
import sys
import tempfile
from collections import Counter
from decimal import Decimal, InvalidOperation
from pathlib import Path

import duckdb
from count import chain, content

STREAMS = ("trades", "quarantine", "gaps")

# What DuckDB may take.
MEMORY, THREADS = "2GB", min(4, os.cpu_count() or 1)

# The two forms of a frame of trades that can be taken apart without a parser, if no brace stands in its elements.
FORMS = (('{"data":[{', '}],"type":"trade"}'), ('{"type":"trade","data":[{', "}]}"))

# The form of a trade that can be. Its numbers are exact in DECIMAL(18,8); others are for Python to read.
NUMBER = r"[0-9]{1,10}(?:\.[0-9]{1,8})?|[0-9](?:\.[0-9]{1,3})?e-05"
CODES = r'null|\[(?:"[^"\\]*"(?:,"[^"\\]*")*)?\]'
TRADE = rf'^\{{"c":({CODES}),"p":({NUMBER}),"s":"([^"\\]+)","t":([0-9]{{1,15}}),"v":({NUMBER})\}}$'

# The typed columns as Parquet has them.
IDENTITY = {
    "session": "UTF8",
    "frame": "INT64",
    "idx": "INT32",
    "seq": "INT64",
    "record_offset": "INT64",
    "received_at": "TIMESTAMP_MICROS",
}
FLAGS = ("time_suspect", "price_update", "frame_repeat")
COLUMNS = {
    "trades": IDENTITY
    | {"source": "UTF8", "symbol": "UTF8", "price": "DECIMAL(18,8)", "size": "DECIMAL(18,8)"}
    | {"event_time": "TIMESTAMP_MILLIS", "conditions": "UTF8"}
    | {flag: "BOOLEAN" for flag in FLAGS},
    "quarantine": IDENTITY | {"reason": "UTF8", "detail": "UTF8", "raw": "UTF8", "raw_base64": "BOOLEAN"},
    "gaps": IDENTITY,
}

# A row's digest, of typed columns and of what a raw line makes of them.
OF_IDENTITY = "session, frame::bigint, idx::bigint, seq::bigint, record_offset::bigint, received::bigint"
DIGESTS = f"""
create macro digest_gaps(session, frame, idx, seq, record_offset, received) as hash({OF_IDENTITY});
create macro digest_quarantine(session, frame, idx, seq, record_offset, received, reason, detail, content, is_base64) as
    hash({OF_IDENTITY}, reason, detail, content, is_base64);
create macro digest_trades(
    session, frame, idx, seq, record_offset, received, source, symbol, price, size, event_time, conditions, suspect, up, again
) as hash(
    {OF_IDENTITY}, source, symbol, price::decimal(18, 8), size::decimal(18, 8), event_time::bigint, conditions, suspect, up, again
);
"""
LINE = "session, frame, index, seq, \"offset\", received_at"
ROW = "session, frame, idx, seq, record_offset, epoch_us(received_at)"
OF_FLAGS = ", ".join(f"coalesce(list_contains(flags, '{flag}'), false)" for flag in FLAGS)
# Of a raw line; null of a trade that is not in the form, and of what is in quarantine without a reason.
EXPECTED = {
    "trades": f"""case when p <> '' then digest_trades({LINE}, 'finnhub', s, try_cast(p as decimal(18, 8)),
        try_cast(v as decimal(18, 8)), try_cast(t as bigint),
        case when c <> 'null' then replace(c[2:-2], '"', '') end, {OF_FLAGS}) end""",
    "quarantine": f"""case when reason <> ''
        then digest_quarantine({LINE}, reason, detail, coalesce(raw, raw_base64), raw is null) end""",
    "gaps": f"digest_gaps({LINE})",
}
TYPED = {
    "trades": f"digest_trades({ROW}, source, symbol, price, size, epoch_ms(event_time), conditions, {', '.join(FLAGS)})",
    "quarantine": f"digest_quarantine({ROW}, reason, detail, raw, raw_base64)",
    "gaps": f"digest_gaps({ROW})",
}


def main():
    ledger, lake = Path(sys.argv[1]), Path(sys.argv[2])
    findings = []
    with tempfile.TemporaryDirectory(prefix="content-") as scratch:
        settings = {"memory_limit": MEMORY, "threads": THREADS, "temp_directory": scratch, "preserve_insertion_order": False}
        db = duckdb.connect(f"{scratch}/content.db", config=settings)
        scratch = Path(scratch)
        db.execute(DIGESTS)
        report = read_slots(db, lake, scratch, findings)
        for stream in STREAMS:
            read_raw(db, stream, findings)
        read_odd_trades(db, scratch)
        read_ledger(db, ledger, scratch, findings)
        report |= compare_sent(db, findings) | compare_typed(db, findings)
        db.close()
    report["findings"] = findings[:20]
    report["faults"] = len(findings)
    print(json.dumps(report))
    return 0 if not findings else 1


def fetch(db, query, *parameters):
    return db.execute(query, list(parameters)).fetchall()


def load(db, scratch, table, columns, rows):
    """Makes a table of what Python has read."""
    path = scratch / f"{table}.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    db.execute(f"create table {table} as from read_json($1, format = 'newline_delimited', columns = {columns})", [str(path)])
    path.unlink()


# ---------------------------------------------------------------- the lake


def read_slots(db, lake, scratch, findings):
    """Tables of the slots that name objects, of these, and of the poison; how many slots of each kind there are."""
    kinds, slots, poison, objects = {stream: Counter(data=0, gap=0, end=0) for stream in STREAMS}, [], [], {}
    for stream in STREAMS:
        for slot in chain(lake, stream, findings):
            kinds[stream][slot["kind"]] += 1
            data = slot.get("data") if slot["kind"] == "data" else None
            if not data:
                continue
            for form in ("raw", "typed"):
                named = data[form]
                if named["key"] not in objects:
                    objects[named["key"]] = len(objects), named, stream, form, content(lake, named, findings)
                elif objects[named["key"]][1] != named:
                    findings.append(f"{named['key']} is named with two hashes")
            numbers = (objects[data[form]["key"]][0] for form in ("raw", "typed"))
            poison.extend((len(slots), offset) for offset in data.get("poison", []))
            slots.append((len(slots), slot["start"], slot["end"], data["rows"], *numbers))
    names = {"slot": "bigint", "first": "bigint", "last": "bigint", "count": "bigint", "raw": "bigint", "typed": "bigint"}
    load(db, scratch, "slots", names, slots)
    load(db, scratch, "poison", {"slot": "bigint", "record_offset": "bigint"}, poison)
    names = {"number": "bigint", "key": "varchar", "stream": "varchar", "form": "varchar", "path": "varchar"}
    rows = ((number, key, stream, form, path and str(path)) for key, (number, _, stream, form, path) in objects.items())
    load(db, scratch, "objects", names, rows)
    return {"slots": kinds}


def paths(db, stream, form):
    found = fetch(db, "select path from objects where path is not null and stream = $1 and form = $2 order by path", stream, form)
    return [path for (path,) in found]


# Errors that no object is to blame for.
OURS = (duckdb.BinderException, duckdb.CatalogException, duckdb.OutOfMemoryException, duckdb.ParserException)


def read(db, statement, files, findings):
    """Runs a statement over files; without those that it cannot read."""
    if not files:
        return
    try:
        db.execute(statement, [files])
    except duckdb.Error as error:
        if isinstance(error, OURS):
            raise
        if len(files) == 1:
            findings.append(f"{files[0]} cannot be read: {str(error).splitlines()[0]}")
            db.execute("update objects set path = null where path = $1", files)
            return
        half = len(files) // 2
        read(db, statement, files[:half], findings)
        read(db, statement, files[half:], findings)


def read_raw(db, stream, findings):
    """The stream's records: `content` is the digest of the server's text, `row` that of the typed columns. A trade's
    text itself is kept where Python is to read it."""
    db.execute("""
        create table if not exists records (
            stream varchar, object bigint, session uuid, frame bigint, idx bigint, record_offset bigint,
            is_foreign boolean, content ubigint, row ubigint, text varchar, line json)
    """)
    parsed = f", unnest(regexp_extract(raw, $trade${TRADE}$trade$, ['c', 'p', 's', 't', 'v']))" if stream == "trades" else ""
    # Of a trade that is not text: nothing that was sent.
    content = "case when raw is not null then hash(raw) when raw_base64 is not null then "
    content += "0 end" if stream == "trades" else "hash(from_base64(raw_base64)) end"
    odd = "foreign_ is null and p = ''" if stream == "trades" else "false"
    statement = f"""
        insert into records
        with lines as (
            select * exclude ("foreign"), "foreign" as foreign_{parsed}
            from read_json($1, format = 'newline_delimited', compression = 'zstd', filename = true, columns = {{
                session: 'varchar', frame: 'bigint', index: 'bigint', seq: 'bigint', "offset": 'bigint', received_at: 'bigint',
                flags: 'varchar[]', reason: 'varchar', detail: 'varchar', "foreign": 'varchar', raw: 'varchar',
                raw_base64: 'varchar'}})
        )
        select '{stream}', number, try_cast(session as uuid), frame, index, "offset", foreign_ is not null, {content},
            {EXPECTED[stream]}, case when {odd} then coalesce(raw, '') end,
            case when {odd} then json_object('line', json_array({LINE}), 'flags', [{OF_FLAGS}]) end
        from lines join objects on path = filename
    """
    read(db, statement, paths(db, stream, "raw"), findings)
    without = "session is null or frame is null or idx is null or record_offset is null or content is null"
    if stream == "quarantine":
        without += " or not is_foreign and row is null"
    query = f"""
        select key, count(*) from records join objects on number = object where records.stream = $1 and ({without}) group by key
    """
    for key, number in fetch(db, query, stream):
        findings.append(f"{key} has {number} lines that are no records of {stream}")


def read_odd_trades(db, scratch):
    """Has Python read the trades that are not in the form in which the feed writes; of what is none nothing comes."""
    cursor = db.cursor().execute("select rowid, text, line from records where text is not null")
    names = {"number": "bigint", "line": "json", "symbol": "varchar", "price": "varchar", "size": "varchar"}
    names |= {"event_time": "bigint", "conditions": "varchar"}

    def rows():
        while found := cursor.fetchmany(10_000):
            yield from ((number, json.loads(line), *trade) for number, text, line in found if (trade := columns(text)))

    load(db, scratch, "odd", names, rows())
    identity = [f"(odd.line->'line'->>{at})::{type_}" for at, type_ in enumerate(["varchar"] + 5 * ["bigint"])]
    flags = [f"(odd.line->'flags'->{at})::boolean" for at in range(len(FLAGS))]
    db.execute(f"""
        update records set row = digest_trades({', '.join(identity)}, 'finnhub', symbol, price::decimal(18, 8),
            size::decimal(18, 8), event_time, conditions, {', '.join(flags)})
        from odd where odd.number = records.rowid
    """)


def columns(raw):
    """Symbol, price, size, event time and conditions as a trade's text says them, numbers exact; none if it is none."""
    try:
        trade = json.loads(raw, parse_float=Decimal, parse_int=Decimal)
        symbol, codes = trade["s"], trade.get("c")
        numbers = [trade[name] for name in "pvt"]
        if not isinstance(symbol, str) or not all(isinstance(number, Decimal) for number in numbers):
            return None
        price, size, time = (number.scaleb(places) for number, places in zip(numbers, (8, 8, 0), strict=True))
        if not all(0 <= number < 10**18 and number == int(number) for number in (price, size, time)):
            return None
        amounts = (f"{Decimal(int(number)).scaleb(-8):f}" for number in (price, size))
        return symbol, *amounts, int(time), None if codes is None else ",".join(codes)
    except (ValueError, TypeError, KeyError, AttributeError, InvalidOperation, OverflowError, RecursionError):
        return None


# ---------------------------------------------------------------- the ledger


def read_ledger(db, path, scratch, findings):
    """Tables of the frames, and of the elements sent in them; `whole` is the digest of a frame that has bad records."""
    forms = " ".join(
        f"when starts_with(text, '{head}') and ends_with(text, '{tail}') then text[{len(head) + 1}:{-len(tail) - 1}]"
        for head, tail in FORMS
    )
    db.execute(
        f"""
        create table ledger as
        with lines as (
            select *, case when what <> 'ping' then case {forms} end end as inner_
            from read_json($1, format = 'newline_delimited', columns = {{
                kind: 'varchar', conn: 'bigint', request_id: 'varchar', n: 'bigint', what: 'varchar', trades: 'bigint',
                bad: 'bigint', repeat_of: 'bigint', text: 'varchar', base64: 'varchar'}})
            where kind in ('open', 'frame')
        ), parts as (
            select *, string_split(inner_, '}},{{') as parts,
                length(inner_) - length(replace(replace(inner_, '{{', ''), '}}', '')) as braces
            from lines
        ), apart as (
            select *, coalesce(braces = 2 * (len(parts) - 1) and len(parts) = trades + coalesce(bad, 0), false) as is_apart
            from parts
        )
        select kind, conn, request_id, n, what, trades, coalesce(bad, 0) as bad, repeat_of,
            case when is_apart then [hash('{{' || part || '}}') for part in parts] end as elements,
            case when bad > 0 then hash(coalesce(encode(text), from_base64(base64))) end as whole,
            case when not is_apart and what <> 'ping' then text end as text
        from apart
        """,
        [str(whole_lines(path, scratch))],
    )
    db.execute("""
        create table frames as
        select session, n as frame, what, trades, bad, repeat_of, elements, whole, text
        from ledger join (select conn, try_cast(request_id as uuid) as session from ledger where kind = 'open') using (conn)
        where kind = 'frame' and session is not null
    """)
    for session, frame in fetch(db, "select session, frame from frames group by all having count(*) > 1 limit 3"):
        findings.append(f"the ledger has frame {frame} of session {session} twice")
    cursor = db.cursor().execute("select session::varchar, frame, text from frames where text is not null")

    def rows():
        while found := cursor.fetchmany(10_000):
            for session, frame, text in found:
                yield from ((session, frame, idx, element) for idx, element in enumerate(elements(text)))

    load(db, scratch, "pieces", {"session": "uuid", "frame": "bigint", "idx": "bigint", "element": "varchar"}, rows())
    db.execute("""
        create table sent as
        select session, frame, unnest(range(len(elements))) as idx, unnest(elements) as content
        from frames where elements is not null
        union all
        select session, frame, idx, hash(element) from pieces
    """)
    db.execute("""
        insert into sent
        select session, frames.frame, idx, content from frames join sent using (session)
        where sent.frame = repeat_of
    """)


def whole_lines(path, scratch):
    """The ledger without what stands behind its last line feed: that was not sent."""
    with path.open("rb") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            begin = max(end - (1 << 20), 0)
            file.seek(begin)
            at = file.read(end - begin).rfind(b"\n")
            end = begin + at + 1 if at >= 0 else begin
            if at >= 0:
                break
        if end == size:
            return path
        copy = scratch / "ledger"
        with copy.open("wb") as out:
            file.seek(0)
            while end and (piece := file.read(min(end, 1 << 24))):
                end -= out.write(piece)
    return copy


TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]', re.DOTALL)


def elements(text):
    """The texts of the elements of a frame's `data`, byte for byte, however deep they are; of what is no JSON, anything."""
    found, depth, key, before, begin = [], 0, None, "", None
    for token in TOKEN.finditer(text):
        mark = token[0]
        if mark == ":" and depth == 1:
            key = unescaped(before)
        elif mark in "[{":
            depth += 1
            begin = token.end() if (mark, depth, key) == ("[", 2, "data") else begin
        elif mark in ",]" and depth == 2 and begin is not None:
            found.append(text[begin : token.start()].strip(" \t\r\n"))
            begin = token.end() if mark == "," else None
        if mark in "]}":
            depth -= 1
        before = mark
    return [element for element in found if element]


def unescaped(key):
    try:
        return json.loads(key)
    except ValueError:
        return None


# ---------------------------------------------------------------- comparisons


def compare_sent(db, findings):
    """Holds the records against the ledger."""
    # A record that was refused is an element, or a frame that could not be taken apart.
    db.execute("""
        create table wrong as
        select 'trades' as stream, record_offset, object, session, frame, idx, sent.content is null as is_unsent
        from (from records where stream = 'trades' and not is_foreign) as records left join sent using (session, frame, idx)
        where sent.content is distinct from records.content or records.content is null
        union all
        select 'quarantine', record_offset, object, session, frame, idx, sent.content is null and (idx <> 0 or whole is null)
        from (from records where stream = 'quarantine' and not is_foreign) as records
            left join sent using (session, frame, idx) left join frames using (session, frame)
        where coalesce(sent.content <> records.content, true) and coalesce(idx <> 0 or whole <> records.content, true)
    """)
    for is_unsent, what in ((True, "was never sent"), (False, "was not sent so")):
        query = """
            select wrong.stream, session, frame, idx, record_offset, key from wrong join objects on number = object
            where is_unsent = $1 limit 5
        """
        examples = fetch(db, query, is_unsent)
        for stream, session, frame, idx, offset, key in examples:
            findings.append(f"{stream}: session {session} frame {frame} index {idx} {what}: offset {offset} in {key}")
    # Through the slots: what two of them name stands in the lake twice.
    db.execute("""
        create table doubled as
        select session, frame, idx, count(*) as number
        from records join (select raw as object from slots) using (object)
        where stream <> 'gaps' and not is_foreign
        group by all having number > 1
    """)
    for session, frame, idx, number in fetch(db, "from doubled limit 5"):
        findings.append(f"session {session} frame {frame} index {idx} stands in the lake {number} times")
    misjudged = fetch(
        db,
        """
        with doubtful as (
            select session, frame, trades, bad from frames
            where bad > 0
                or (session, frame) in (select (session, frame) from records where stream = 'quarantine' and not is_foreign)
        )
        select session, frame, trades, bad, count(distinct idx) filter (stream = 'trades') as taken,
            count(distinct idx) filter (stream = 'quarantine') as refused
        from doubtful join records using (session, frame) where stream <> 'gaps' and not is_foreign
        group by all having taken > trades or refused > bad order by session, frame
        """,
    )
    for session, frame, trades, bad, taken, refused in misjudged:
        findings.append(f"session {session} frame {frame}: {taken} trades of {trades}, {refused} in quarantine of {bad}")
    number = lambda query: fetch(db, f"select coalesce({query}, 0)")[0][0]  # noqa: E731
    through = "from records join (select raw as object from slots) using (object) where"
    return {
        "sent": int(number("(select sum(trades) from frames)")),
        "archived": number(f"(select count(*) {through} stream = 'trades' and not is_foreign)"),
        "quarantined": number(f"(select count(*) {through} stream = 'quarantine' and not is_foreign)"),
        "foreign": number(f"(select count(*) {through} is_foreign)"),
        "doubled": int(number("(select sum(number - 1) from doubled)")),
        "changed": number("(select count(*) from wrong where not is_unsent)"),
        "unsent": number("(select count(*) from wrong where is_unsent)"),
    }


def compare_typed(db, findings):
    """Holds the slots against their raw objects, and the typed objects against these."""
    for stream in STREAMS:
        check_columns(db, stream, findings)
    db.execute("create table typed (object bigint, row ubigint)")
    for stream in STREAMS:
        statement = f"""
            insert into typed
            select number, {TYPED[stream]} from read_parquet($1, filename = true) join objects on path = filename
        """
        read(db, statement, paths(db, stream, "typed"), findings)
    # A slot is held against what can be read of it.
    db.execute("""
        create table held as
        select slots.*, raws.key as raw_key, typeds.key as typed_key, typeds.path is not null as has_typed
        from slots join objects as raws on raws.number = raw join objects as typeds on typeds.number = typed
        where raws.path is not null
    """)
    db.execute("""
        create table rows as
        select slot, record_offset, row from held join records on object = raw
    """)
    for key, number, count, strays in fetch(
        db,
        """
        select raw_key, count(row_offset), count, count(*) filter (row_offset not between first and last) as strays
        from held left join (select slot, record_offset as row_offset from rows) using (slot)
        group by slot, raw_key, count having count(row_offset) <> count or strays > 0 order by slot
        """,
    ):
        if number != count:
            findings.append(f"{key} holds {number} records, the slot says {count}")
        if strays:
            findings.append(f"{key}: {strays} offsets are not of its slot")
    db.execute("""
        create table expected as
        select slot, coalesce(row, 0) as row from rows anti join poison using (slot, record_offset)
    """)
    wrong = fetch(
        db,
        """
        with wanted as (select slot, count(*) as number, sum(row) as digest from expected group by slot),
        sums as (select object, count(*) as number, sum(row) as digest from typed group by object),
        suspects as (
            select slot, typed as object, raw_key, typed_key
            from held left join wanted using (slot) left join sums on object = typed
            where has_typed and (coalesce(wanted.number, 0) <> coalesce(sums.number, 0)
                or coalesce(wanted.digest, 0) <> coalesce(sums.digest, 0))
        ),
        counts as (
            select slot, row, sum(want) as want, sum(have) as have
            from (
                select slot, row, 1 as want, 0 as have from expected semi join suspects using (slot)
                union all
                select slot, row, 0, 1 from typed join suspects using (object)
            )
            group by slot, row
        )
        select typed_key, raw_key, sum(greatest(want - have, 0))::bigint, sum(greatest(have - want, 0))::bigint
        from counts join suspects using (slot) group by slot, typed_key, raw_key order by slot
        """,
    )
    for typed_key, raw_key, missing, others in wrong:
        findings.append(f"{typed_key} is not what {raw_key} says: {missing} rows of it are not there, {others} others are")
    poison = fetch(db, "select count(*) from rows semi join poison using (slot, record_offset)")[0][0]
    return {"typed_wrong": sum(max(missing, others) for _, _, missing, others in wrong), "poison": poison}


def check_columns(db, stream, findings):
    """Puts those typed objects aside that do not have the stream's columns."""
    db.execute("create or replace table columns (path varchar, names varchar)")
    read(
        db,
        f"""
        insert into columns
        select file_name, string_agg(name || ' ' || case coalesce(converted_type, type) when 'DECIMAL'
            then format('DECIMAL({{}},{{}})', precision, scale) else coalesce(converted_type, type) end, ', ' order by name)
        from parquet_schema($1) where list_contains({list(COLUMNS[stream])}, name) group by file_name
        """,
        paths(db, stream, "typed"),
        findings,
    )
    wanted = ", ".join(f"{name} {type_}" for name, type_ in sorted(COLUMNS[stream].items()))
    for path, key, names in fetch(
        db,
        """
        select path, key, names from objects left join columns using (path)
        where path is not null and form = 'typed' and stream = $1 and names is distinct from $2
        """,
        stream,
        wanted,
    ):
        findings.append(f"{key} has other columns than a typed object of {stream}: {names}")
        db.execute("update objects set path = null where path = $1", [path])


if __name__ == "__main__":
    sys.exit(main())
