#!/usr/bin/env python3
"""One-minute bars straight from a tape: the standard library only, nothing of Tickmint's.

    bars.py TAPE [cts_utp|lean]      prints CSV, one bar a line

Written from the specification (which codes may move what), not from Tickmint's tables. Amounts are
exact decimals; vwap is left to the reader. Order of equal times: the order in the tape.
"""

import csv
import gzip
import json
import sys
from decimal import Decimal, getcontext

import nyse

getcontext().prec = 60

# Codes that keep a trade's price out of a candle altogether, and those that let it make a high or a
# low but neither open nor close. Every code that is not known here keeps it out.
PRICE_NO = {"3", "5", "10", "11", "12", "16", "17", "20", "22", "25", "26", "27", "37", "38", "40"}
PRICE_HIGH_LOW_ONLY = {"9", "15", "21", "30", "32"}
PRICE_YES = {"1", "2", "4", "6", "7", "8", "13", "14", "18", "19", "23", "28", "29", "31", "33", "34", "35", "36", "39"}
NEUTRAL = {"41"}
VOLUME_NO = {"16", "20", "38", "39"}
KNOWN = PRICE_NO | PRICE_HIGH_LOW_ONLY | PRICE_YES | NEUTRAL | {"24"}


def cts_utp(codes, session):
    """What a trade may move: (high and low, open and close, volume)."""
    high_low = open_close = volume = True
    for code in codes or []:
        if code == "24":
            price = session in ("pre", "post")
            high_low, open_close = high_low and price, open_close and price
        elif code in PRICE_HIGH_LOW_ONLY:
            open_close = False
        elif code in PRICE_NO or code not in KNOWN:
            high_low = open_close = False
        if code in VOLUME_NO or code not in KNOWN:
            volume = False
    return high_low, open_close, volume


def lean(codes, session):
    """QuantConnect's rule: prices from regular trades and from those sold last, and of Form T out of hours
    alone; volume from all but the official open and close."""
    codes = set(codes or [])
    price = session in ("pre", "post") if "24" in codes else bool(codes & {"1", "15"})
    return price, price, not codes & {"16", "20"}


def market_session(symbol, millis):
    if ":" in symbol:
        return "continuous"
    return nyse.session(millis)


def bars(path, rule):
    """{(symbol, session, minute in ms): [open, high, low, close, volume, notional, trades]}"""
    found, first, last = {}, {}, {}
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt") as tape:
        for number, line in enumerate(tape):
            for index, trade in enumerate(json.loads(line, parse_float=Decimal)["data"]):
                price, size, time = Decimal(trade["p"]), Decimal(trade["v"]), trade["t"]
                session = market_session(trade["s"], time)
                high_low, open_close, volume = rule(trade.get("c"), session) if size else (False, False, False)
                if not (high_low or open_close or volume):
                    continue
                key = (trade["s"], session, time // 60000 * 60000)
                bar = found.setdefault(key, [None, None, None, None, Decimal(0), Decimal(0), 0])
                place = (time, number, index)
                if open_close and (key not in first or place < first[key]):
                    first[key], bar[0] = place, price
                if open_close and (key not in last or place > last[key]):
                    last[key], bar[3] = place, price
                if high_low:
                    bar[1] = price if bar[1] is None else max(bar[1], price)
                    bar[2] = price if bar[2] is None else min(bar[2], price)
                if volume:
                    bar[4] += size
                    bar[5] += price * size
                    bar[6] += 1
    return found


if __name__ == "__main__":
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow("symbol session minute_ms open high low close volume notional trades".split())
    for key, bar in sorted(bars(sys.argv[1], {"cts_utp": cts_utp, "lean": lean}[(sys.argv + ["cts_utp"])[2]]).items()):
        out.writerow([*key, *bar])
