#!/usr/bin/env python3
"""Counts what an exchange sent and what Bronze holds of it, and compares them trade by trade.

    count.py LEDGER LAKE      prints JSON; exits with 0 only if nothing is lost, doubled or changed

An audit that shares nothing with the daemon's own: it reads the exchange's ledger, follows the commit
slots in the folder LAKE, and opens what they name. Beyond counting it compares each archived trade's text,
and its typed price and size, with the text that the exchange put on the wire. Needs duckdb, for Parquet
and zstd. The daemon must be down and its spool drained: what only the spool has counts as lost here.
"""

import hashlib
import json
import sys
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path

import duckdb

STREAMS = ("trades", "gaps", "quarantine")


def main():
    ledger, lake = Path(sys.argv[1]), Path(sys.argv[2])
    findings = []
    sent, others, sessions = read_ledger(ledger)
    bronze = {stream: read_stream(lake, stream, findings) for stream in STREAMS}
    report = compare(sent, others, sessions, bronze, findings)
    report["findings"] = findings[:20]
    report["faults"] = len(findings)
    print(json.dumps(report))
    return 0 if not findings else 1


def read_ledger(path):
    """Trades by (session, frame): their texts, or their number where the ledger has no text. Frames that
    are neither trades nor pings. The sessions that daemons opened."""
    sessions, sent, others = {}, {}, set()
    lines = path.read_bytes().split(b"\n")
    for line in lines[:-1]:  # behind the last line feed stands nothing, or what was not sent
        entry = json.loads(line)
        if entry["kind"] == "open":
            sessions[entry["conn"]] = entry["request_id"]
        elif entry["kind"] == "frame":
            key = (sessions.get(entry["conn"]) or f"connection {entry['conn']}", entry["n"])
            assert key not in sent and key not in others, f"the ledger has frame {key} twice"
            if entry["what"] == "trade":
                sent[key] = elements(entry["text"]) if entry.get("text") else [None] * entry["trades"]
                assert len(sent[key]) == entry["trades"], f"the ledger miscounts frame {key}"
            elif entry["what"] != "ping":
                others.add(key)
    return sent, others, {session for session in sessions.values() if session}


def elements(text):
    """The trades of a frame, numbers as their text."""
    return parse(text)["data"]


def parse(text):
    return json.loads(text, parse_float=str, parse_int=str)


def read_stream(lake, stream, findings):
    """The records that the stream's chain commits: {(session, frame, index): [record, ...]}."""
    found = defaultdict(list)
    for slot in chain(lake, stream, findings):
        data = slot.get("data") if slot["kind"] == "data" else None
        if slot["kind"] == "gap":
            findings.append(f"{stream}: the log was lost from {slot['start']} to {slot['end']}")
        if not data:
            continue
        raw = [json.loads(line) for line in lines_of(lake, data["raw"], findings)]
        if len(raw) != data["rows"]:
            findings.append(f"{data['raw']['key']} holds {len(raw)} records, the slot says {data['rows']}")
        for record in raw:
            if not slot["start"] <= record["offset"] <= slot["end"]:
                findings.append(f"{data['raw']['key']}: offset {record['offset']} is not of its slot")
            found[record["session"], record["frame"], record["index"]].append(record)
        typed(lake, stream, data, raw, findings)
    return found


def chain(lake, stream, findings):
    """The slots in order, as far as each begins where the one before ends."""
    slots = [json.loads(path.read_bytes()) for path in (lake / "_commit" / stream).glob("p*/*.json")]
    slots.sort(key=lambda slot: (slot["partition"], slot["generation"], slot["start"]))
    next_, partition = (0, 0), 0
    for slot in slots:
        if slot["partition"] != partition:
            next_, partition = (0, 0), slot["partition"]
        if (slot["generation"], slot["start"]) != next_:
            findings.append(f"{stream}: a slot at {slot['generation']}/{slot['start']}, and the chain is at {next_}")
            return
        next_ = (slot["generation"] + 1, 0) if slot["kind"] == "end" else (slot["generation"], slot["end"] + 1)
        yield slot


def content(lake, named, findings):
    """The path of an object, if it is there and is what the slot names."""
    path = lake / named["key"]
    if not path.exists():
        findings.append(f"{named['key']} is missing")
        return None
    bytes_ = path.read_bytes()
    if hashlib.sha256(bytes_).hexdigest() != named["sha256"] or len(bytes_) != named["bytes"]:
        findings.append(f"{named['key']} was changed")
        return None
    return path


def lines_of(lake, named, findings):
    path = content(lake, named, findings)
    if path is None:
        return []
    rows = duckdb.execute("select json from read_ndjson_objects(?, compression = 'zstd')", [str(path)]).fetchall()
    return [row[0] for row in rows]


def typed(lake, stream, data, raw, findings):
    """The typed object has the same identities, less the poison, and for trades the same amounts."""
    path = content(lake, data["typed"], findings)
    if path is None:
        return
    amounts = ", cast(price as varchar), cast(size as varchar)" if stream == "trades" else ", null, null"
    rows = duckdb.execute(f"select session, frame, idx{amounts} from read_parquet(?)", [str(path)]).fetchall()
    wanted = Counter()
    for record in raw:
        if record["offset"] in data.get("poison", []):
            continue
        trade = parse(record["raw"]) if stream == "trades" else {}
        amount = (Decimal(trade["p"]), Decimal(trade["v"])) if stream == "trades" else (None, None)
        wanted[record["session"], record["frame"], record["index"], *amount] += 1
    if Counter((*row[:3], *(row[n] and Decimal(row[n]) for n in (3, 4))) for row in rows) != wanted:
        findings.append(f"{data['typed']['key']} is not what {data['raw']['key']} says")


def compare(sent, others, sessions, bronze, findings):
    trades, quarantine = bronze["trades"], bronze["quarantine"]
    last, have = defaultdict(int), defaultdict(dict)
    for session, frame, index in [*trades, *quarantine]:
        last[session] = max(last[session], frame)
        have[session, frame][index] = trades.get((session, frame, index), [{}])[0].get("raw")
    ends, gaps = declared(bronze["gaps"])
    # One that died before its opening was durable is not known to Bronze, and no record can name it.
    known = last.keys() | ends.keys()
    covered = lost = changed = 0
    for (session, frame), texts in sent.items():
        found = have.pop((session, frame), {})
        if not found and texts and frame > last[session] and (
            session not in sessions or session not in known
            or frame > ends.get(session, frame) or frame > gaps.get(session, frame)
        ):  # fmt: skip
            covered += len(texts)
            continue
        missing = len(texts) - len(found)
        if missing:
            lost += abs(missing)
            findings.append(f"session {session} frame {frame}: {len(found)} records of {len(texts)} trades")
        for index, raw in found.items():
            if raw is not None and index < len(texts) and texts[index] is not None and parse(raw) != texts[index]:
                changed += 1
                findings.append(f"session {session} frame {frame} index {index}: {raw} archived, {texts[index]} sent")
    for key in have.keys() - others:
        findings.append(f"frame {key} was never sent")
    for session, frame in others:
        if frame <= last[session] and (session, frame) not in have:
            lost += 1
            findings.append(f"session {session}: frame {frame} is not in quarantine")
    doubled = {stream: sum(len(records) - 1 for records in found.values()) for stream, found in bronze.items()}
    findings.extend(f"{number} records of {stream} stand twice" for stream, number in doubled.items() if number)
    return {
        "sent": sum(len(texts) for texts in sent.values()),
        "archived": sum(len(records) for records in trades.values()),
        "covered": covered,
        "lost": lost,
        "duplicated": sum(doubled.values()),
        "changed": changed,
        "quarantined": sum(len(records) for records in quarantine.values()),
        "gaps": sum(1 for record in controls(bronze["gaps"]) if record["kind"] == "gap" and record.get("first_received_at") is not None),
    }


def controls(found):
    return [json.loads(record["raw"]) | {"session": record["session"]} for records in found.values() for record in records]


def declared(found):
    """Per session, the last frame that its end tells of, and the one that a gap after it tells of."""
    ends, gaps = {}, {}
    for record in controls(found):
        if record["kind"] == "session_end":
            ends[record["session"]] = record["frames"]
        elif record["kind"] == "gap":
            session = record["previous_session"]
            gaps[session] = min(gaps.get(session, record["last_frame"]), record["last_frame"])
    return ends, gaps


if __name__ == "__main__":
    sys.exit(main())
