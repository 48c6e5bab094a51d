#!/usr/bin/env python3
"""Holds published Gold against the bars of bars.py, field by field, bar by bar.

    compare.py GOLD_DIR TAPE [cts_utp|lean] [PUBLISHED_BARS.csv.gz]

Needs duckdb to read Parquet. With the fourth argument, LEAN's own bars of that day are compared too, and
each kind of mismatch is counted and explained. Exits with 0 only if all bars are equal and at least 99 %
of LEAN's bars of the regular session are met.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import bars as oracle
import duckdb
import lean

FIELDS = "open high low close volume notional trades".split()


def published(gold):
    manifest = json.loads((gold / "manifest.json").read_text())
    files = [str(gold / file) for file in manifest["tables"]["ohlc_1m"]["files"]]
    rows = duckdb.sql(
        f"select symbol, session, epoch_ms(bucket_start), {', '.join(FIELDS)}, vwap, source from read_parquet({files})"
    ).fetchall()
    assert len(rows) == manifest["tables"]["ohlc_1m"]["rows"], "the manifest's count is not that of its files"
    assert len({row[:3] + row[-1:] for row in rows}) == len(rows), "a bar stands twice"
    return {row[:3]: row[3:-1] for row in rows}


def main():
    gold, tape = Path(sys.argv[1]), sys.argv[2]
    rule = (sys.argv + ["cts_utp"])[3] if len(sys.argv) > 3 else "cts_utp"
    wanted = oracle.bars(tape, {"cts_utp": oracle.cts_utp, "lean": oracle.lean}[rule])
    found = published(gold)
    wrong = Counter()
    for key in wanted.keys() | found.keys():
        if key not in wanted or key not in found:
            wrong["only published" if key in found else "not published"] += 1
            continue
        for name, mine, theirs in zip(FIELDS, wanted[key], found[key]):
            if mine != theirs:
                wrong[name] += 1
                if wrong[name] <= 3:
                    print(f"{key} {name}: {mine} expected, {theirs} published")
        volume, vwap = wanted[key][4], found[key][-1]
        expected = float(wanted[key][5] / volume) if volume else None
        if (vwap is None) != (expected is None) or (vwap is not None and abs(vwap - expected) > 1e-9 * abs(expected)):
            wrong["vwap"] += 1
    print(f"{len(wanted)} bars expected, {len(found)} published, differences: {dict(wrong) or 'none'}")
    well = not wrong and len(wanted) > 0
    if len(sys.argv) > 4:
        well &= lean.compare(found, tape, sys.argv[4]) >= lean.LEAST
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
