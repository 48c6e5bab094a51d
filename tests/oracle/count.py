#!/usr/bin/env python3
"""Counts what an exchange sent and what Bronze holds of it, and compares them trade by trade.

    count.py LEDGER LAKE      prints JSON; exits with 0 only if nothing is lost, doubled or changed

An audit that shares nothing with the daemon's own: it reads the exchange's ledger, follows the commit
slots in the folder LAKE, and opens what they name. Beyond counting it compares each archived trade's text,
and its typed price and size, with the text that the exchange put on the wire; holds each bad record of the
ledger against quarantine; and wants of each session an end, and between each two of a shard the one gap that
lasts from the one's last receipt to the other's first. Needs duckdb, for Parquet and zstd. The daemon must be
down and its spool drained: what only the spool has counts as lost here.
"""

import hashlib
import json
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from decimal import Decimal
from pathlib import Path

import duckdb

STREAMS = ("trades", "gaps", "quarantine")


def main():
    ledger, lake = Path(sys.argv[1]), Path(sys.argv[2])
    findings = []
    sent, bad, sessions = read_ledger(ledger)
    bronze = {stream: read_stream(lake, stream, findings) for stream in STREAMS}
    outages(bronze, findings)
    report = compare(sent, bad, sessions, bronze, findings)
    report["findings"] = findings[:20]
    report["faults"] = len(findings)
    print(json.dumps(report))
    return 0 if not findings else 1


def read_ledger(path):
    """By (session, frame), of all frames but pings: the texts of the elements, or none where the ledger has no
    text, and how many of them are trades; how many bad records it makes. The sessions that daemons opened."""
    sessions, sent, bad = {}, {}, {}
    lines = path.read_bytes().split(b"\n")
    for line in lines[:-1]:  # behind the last line feed stands nothing, or what was not sent
        entry = json.loads(line)
        if entry["kind"] == "open":
            sessions[entry["conn"]] = entry["request_id"]
        elif entry["kind"] == "frame":
            key = (sessions.get(entry["conn"]) or f"connection {entry['conn']}", entry["n"])
            assert key not in sent, f"the ledger has frame {key} twice"
            if entry["what"] == "ping":
                continue
            known = entry["trades"] and entry.get("text")
            sent[key] = (elements(entry["text"]) if known else None, entry["trades"])
            bad[key] = 0 if entry["what"] == "trade" else entry["bad"]
            assert not known or len(sent[key][0]) == entry["trades"] + bad[key], f"the ledger miscounts frame {key}"
    return sent, bad, {session for session in sessions.values() if session}


def elements(text):
    """The elements of a frame, numbers as their text."""
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
            if stream == "quarantine" and not record.get("reason"):
                findings.append(f"{data['raw']['key']}: offset {record['offset']} is in quarantine without a reason")
            found[record["session"], record["frame"], record["index"]].append(record)
        typed(lake, stream, data, raw, findings)
    return found


def chain(lake, stream, findings):
    """The slots of the stream, by partition and in order, as far as each begins where the one before ends."""
    for folder in sorted((lake / "_commit" / stream).glob("p*")):
        yield from chain_of(stream, folder, findings)


def chain_of(stream, folder, findings):
    """Those of one partition."""
    slots = [(path.name, json.loads(path.read_bytes())) for path in folder.glob("*.json")]
    slots.sort(key=lambda slot: (slot[1]["generation"], slot[1]["start"]))
    next_ = (0, 0)
    for name, slot in slots:
        at = (slot["generation"], slot["start"])
        named = f"{10**10 - 1 - at[0]:010}-{10**19 - 1 - at[1]:019}.json"
        if (slot["stream"], f"p{slot['partition']}", named) != (stream, folder.name, name):
            findings.append(f"{stream}/{folder.name}/{name} is a slot of {slot['stream']}/p{slot['partition']} at {at[0]}/{at[1]}")
        if at != next_ or slot["kind"] not in ("data", "gap", "end") or (slot["kind"] != "end" and slot["end"] < slot["start"]):
            findings.append(
                f"{stream}/{folder.name}: a slot of kind {slot['kind']} at {at[0]}/{at[1]} to {slot.get('end')}, "
                f"and the chain is at {next_[0]}/{next_[1]}"
            )
            return
        next_ = (slot["generation"] + 1, 0) if slot["kind"] == "end" else (slot["generation"], slot["end"] + 1)
        yield slot


def content(lake, named, findings):
    """The path of an object, if it is there and is what the slot names."""
    path = lake / named["key"]
    if not path.exists():
        findings.append(f"{named['key']} is missing")
        return None
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != named["sha256"] or path.stat().st_size != named["bytes"]:
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


def compare(sent, bad, sessions, bronze, findings):
    trades, quarantine = ({key: records[0] for key, records in bronze[stream].items()} for stream in ("trades", "quarantine"))
    last, have, refused = defaultdict(int), defaultdict(dict), Counter()
    for session, frame, index in trades:
        last[session] = max(last[session], frame)
        have[session, frame][index] = trades[session, frame, index]["raw"]
    for session, frame, _ in quarantine:
        last[session] = max(last[session], frame)
        refused[session, frame] += 1
    ends, gaps = declared(bronze["gaps"])
    covered = lost = changed = 0
    for (session, frame), (texts, number) in sent.items():
        found, wrong = have.pop((session, frame), {}), refused.pop((session, frame), 0)
        # A session that nobody knows has lost all of it: one is opened on the disk before it asks for trades.
        if not found and not wrong and frame > last[session] and (
            session not in sessions or frame > ends.get(session, frame) or frame > gaps.get(session, frame)
        ):  # fmt: skip
            covered += number
            continue
        if (len(found), wrong) != (number, bad[session, frame]):
            lost += max(number + bad[session, frame] - len(found) - wrong, 0)
            findings.append(
                f"session {session} frame {frame}: {len(found)} trades of {number}, {wrong} in quarantine of {bad[session, frame]}"
            )
        for index, raw in found.items():
            if texts is not None and (index >= len(texts) or parse(raw) != texts[index]):
                changed += 1
                findings.append(f"session {session} frame {frame} index {index}: {raw} is archived and was not sent so")
    findings.extend(f"frame {key} was never sent" for key in have.keys() | refused.keys())
    doubled = {stream: sum(len(records) - 1 for records in found.values()) for stream, found in bronze.items()}
    findings.extend(f"{number} records of {stream} stand twice" for stream, number in doubled.items() if number)
    return {
        "sent": sum(number for _, number in sent.values()),
        "archived": sum(len(records) for records in bronze["trades"].values()),
        "covered": covered,
        "lost": lost,
        "duplicated": sum(doubled.values()),
        "changed": changed,
        "quarantined": sum(len(records) for records in bronze["quarantine"].values()),
        "gaps": sum(1 for record in controls(bronze["gaps"]) if record["kind"] == "gap" and record.get("first_received_at") is not None),
    }


def outages(bronze, findings):
    """Each session has an end, and between each two of a shard that received anything there is one gap."""
    receipts = defaultdict(dict)
    for (session, frame, _), records in [*bronze["trades"].items(), *bronze["quarantine"].items()]:
        receipts[session][frame] = records[0]["received_at"]
    ends, gaps = defaultdict(list), defaultdict(list)
    for record in controls(bronze["gaps"]):
        if record["kind"] == "session_end":
            ends[record["session"]].append(record)
        elif record.get("first_received_at") is not None:
            gaps[record["session"]].append(record)
    for session in receipts.keys() | gaps.keys() | ends.keys():
        if len(ends[session]) != 1:
            findings.append(f"session {session} has {len(ends[session])} ends")
    shards = defaultdict(list)
    for session in sorted(session for session in ends if len(ends[session]) == 1):  # by the time at which they began
        if receipts[session] or ends[session][0]["frames"]:
            shards[ends[session][0]["shard"]].append(session)
    for shard in shards.values():
        for before, after in pairwise(shard):
            if len(gaps[after]) != 1:
                findings.append(f"between {before} and {after} there are {len(gaps[after])} gaps")
                continue
            (gap,), (end,) = gaps[after], ends[before]
            told = (gap["previous_session"], gap["last_frame"], gap["last_received_at"])
            if told != (before, end["frames"], end["last_received_at"]):
                findings.append(f"the gap before {after} begins with {told}, the session before it ended with {end}")
            # The first and the last frame may be pings, which are archived nowhere.
            latest, earliest = max(receipts[before].values(), default=0), min(receipts[after].values(), default=sys.maxsize)
            order = [latest, gap["last_received_at"], gap["first_received_at"], earliest]
            if order != sorted(order):
                findings.append(f"the gap between {before} and {after} does not lie between their receipts: {order}")


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
