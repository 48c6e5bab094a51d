#!/usr/bin/env python3
"""Holds bars against those that QuantConnect's LEAN publishes for the same day, and says why some differ.

    lean.py TAPE PUBLISHED_BARS.csv.gz      the oracle's bars; exits with 0 if at least 99 % are met

A bar that differs gets a reason only if that reason, carried out on the tape's own trades, gives LEAN's
bar in all five fields. Nothing here feeds back into the rule: it is a record of what LEAN's builder does
that no table of sale conditions can say, because it moves trades from one minute to another.
"""

import csv
import gzip
import json
import sys
from collections import Counter, defaultdict
from decimal import Decimal

import bars as oracle

FIELDS = "open high low close volume".split()
MINUTE = 60_000
LEAST = 0.99


def compare(found, tape, published):
    """Prints how LEAN's bars are met by `found`, {(symbol, session, minute in ms): [open, high, ...]}.
    Returns the share of its regular-session bars that are met in all five fields."""
    trades, minutes = read(tape)
    last_minute = {symbol: max(minute for s, minute in minutes if s == symbol) for symbol, _ in minutes}
    total, met, reasons = Counter(), Counter(), Counter()
    for symbol, minute, wanted in rows(published):
        session = oracle.market_session(symbol, minute)
        bar = found.get((symbol, session, minute))
        total[session] += 1
        if bar is not None and tuple(bar[:5]) == wanted:
            met[session] += 1
        elif session == "regular":
            ours = None if bar is None else tuple(bar[:5])
            why = reason(ours, wanted, minute, trades[symbol], minutes, symbol, minute == last_minute[symbol])
            different = " + ".join(name for name, a, b in zip(FIELDS, ours or (None,) * 5, wanted) if a != b)
            reasons[why, different] += 1
    for session in ("pre", "regular", "post"):
        share = met[session] / total[session] if total[session] else 0
        print(f"LEAN's bars, {session:>7} session: {met[session]:5} of {total[session]:5} met in all five fields ({share:.2%})")
    for (why, different), number in sorted(reasons.items()):
        print(f"  {number:3} differ in {different:14} {why}")
    return met["regular"] / total["regular"]


def read(tape):
    """The trades of each symbol, in the tape's order, and the regular minutes in which there are any."""
    trades, minutes = defaultdict(list), set()
    with gzip.open(tape, "rt") as lines:
        for line in lines:
            for trade in json.loads(line, parse_float=Decimal)["data"]:
                minute = trade["t"] // MINUTE * MINUTE
                trades[trade["s"]].append((minute, Decimal(trade["p"]), Decimal(trade["v"]), frozenset(trade["c"] or [])))
                if oracle.market_session(trade["s"], minute) == "regular":
                    minutes.add((trade["s"], minute))
    return trades, minutes


def rows(published):
    with gzip.open(published, "rt") as file:
        for row in csv.DictReader(file):
            yield row["symbol"], int(row["minute_ms"]), tuple(Decimal(row[name]) for name in FIELDS)


def reason(ours, wanted, minute, trades, minutes, symbol, is_last):
    if ours is None:
        return "not found: no bar of ours"
    here = [trade for trade in trades if trade[0] == minute]
    if is_last and closed_by_auction(ours, trades, minute) == wanted:
        return "closing auction (35): printed after 16:00, LEAN puts it into the last minute"
    if wanted in opened_by_auction(ours, here):
        return "opening auction (18): LEAN opens with one print and leaves out the others' volume"
    after = [trade for trade in trades if trade[0] == minute + MINUTE]
    if after and not any(code in trade[3] for trade in after for code in ("1", "15")):
        open_, high, low, close, volume = ours
        if (open_, high, low, close, volume + sum(trade[2] for trade in after)) == wanted:
            return "a minute with volume and no price follows: LEAN has no bar for it and adds it here"
    if any("3" in trade[3] and trade[1] in (wanted[1], wanted[2], ours[1], ours[2]) for trade in here):
        return "average price trade (3): LEAN takes one of these prices and leaves another out"
    return "NOT EXPLAINED"


def closed_by_auction(ours, trades, minute):
    """The listing market's closing print, no cross (28), is the last trade of the session."""
    for _, price, size, codes in (trade for trade in trades if trade[0] > minute):
        if "35" in codes and "28" not in codes:
            return ours[0], max(ours[1], price), min(ours[2], price), price, ours[4] + size
    return None


def opened_by_auction(ours, here):
    """Every bar that may come of taking one opening print, or none, and dropping the other ones' sizes."""
    prints = [trade for trade in here if "18" in trade[3]]
    rest = ours[4] - sum(trade[2] for trade in prints)
    without = (*ours[:4], rest)
    low, high = min((t[1] for t in prints), default=ours[2]), max((t[1] for t in prints), default=ours[1])
    return ([without] if prints else []) + [
        (price, high_, low_, ours[3], rest + size)
        for _, price, size, _ in prints
        for high_ in {ours[1], max(ours[1], price), max(ours[1], high)}
        for low_ in {ours[2], min(ours[2], price), min(ours[2], low)}
    ]


if __name__ == "__main__":
    bars = oracle.bars(sys.argv[1], oracle.lean)
    sys.exit(0 if compare(bars, sys.argv[1], sys.argv[2]) >= LEAST else 1)
