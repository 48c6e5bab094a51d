"""A made tape of three trading days, for the indicators: walks, gaps, thin and still prices, tiny amounts."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
#: The clocks of New York change between the first two.
DAYS = [date(2026, 3, 6), date(2026, 3, 9), date(2026, 3, 10)]
#: The tape ends with a trade at this very instant: it closes the minute before, and opens one.
END = datetime(2026, 3, 10, 15, 0, tzinfo=UTC)
#: Minutes that trade: in New York with those that two sessions or two trading dates meet in, and in UTC.
STOCK_HOURS = [(20, 30), (230, 250), (550, 720), (950, 1000), (1190, 1210)]
COIN_HOURS = [(0, 1440)]
#: No codes and a regular trade; volume without price; neither open nor close; price without volume; Form T; nothing.
CODES = [None, ["1"], ["12"], ["15"], ["39"], ["24"], ["16"]]
WEIGHTS = [40, 40, 7, 4, 3, 4, 2]


@dataclass(frozen=True)
class Walk:
    """Prices are whole numbers of `step`; `move` is the farthest that one goes in a trade."""

    symbol: str
    price: int
    step: float
    move: Callable[[int, random.Random], int]
    size: Callable[[random.Random], str]
    share: float = 0.85


def shares(chance: random.Random) -> str:
    return chance.choice(["0", "1", "100", str(chance.randint(1, 10 ** chance.randint(1, 6)))])


def coins(chance: random.Random) -> str:
    return chance.choice(["0.00000001", f"0.{chance.randint(1, 10**8 - 1):08}", f"{chance.randint(1, 900)}.5"])


def steps(most: int) -> Callable[[int, random.Random], int]:
    return lambda trade, chance: chance.randint(-most, most)


WALKS = [
    Walk("ALFA", 10_000, 0.01, steps(4), shares),
    Walk("BRAV", 655_360, 0.0001, steps(900), shares, share=0.7),
    Walk("ECHO", 2_000, 0.05, steps(1), shares),
    # Never moves, at a price that no double holds; moves at the tenth trade and the eleventh, and never
    # again, of which one stands still for so long that Wilder's means fade.
    Walk("CALM", 1, 0.1, steps(0), shares),
    Walk("STIL", 3_333, 0.01, lambda trade, chance: {10: 7, 11: -3}.get(trade, 0), lambda chance: "10"),
    Walk("BINANCE:USDCUSDT", 10_000, 0.0001, lambda trade, chance: {10: 1, 11: -2}.get(trade, 0), coins, share=0.6),
    # A twentieth of its price from one trade to the next, as at a split.
    Walk("SPLT", 90_000, 0.01, lambda trade, chance: -85_500 if trade == 300 else chance.randint(-9, 9), shares),
    Walk("THIN", 500, 0.01, steps(9), shares, share=0.04),
    # Its last 50 bars reach back over half a year: see `long_ago`.
    Walk("RARE", 4_000, 0.01, steps(9), shares, share=0.05),
    Walk("BINANCE:BTCUSDT", 6_000_000, 0.01, steps(300), coins),
    Walk("BINANCE:SHIBUSDT", 1_234, 0.00000001, steps(2), coins, share=0.3),
]


def tape(path: Path, *, seed: int = 20260306) -> Path:
    """Trades in order of time, a frame each."""
    chance = random.Random(seed)
    trades = [trade for walk in WALKS for trade in walked(walk, chance)] + list(months(chance)) + list(long_ago(chance))
    trades.append(line("ALFA", END, "100.07", "100", ["1"]))
    trades.sort()
    with gzip.open(path, "wt", compresslevel=1) as out:
        for _, trade in trades:
            out.write('{"data":[' + trade + '],"type":"trade"}\n')
    return path


def walked(walk: Walk, chance: random.Random) -> Iterator[tuple[datetime, str]]:
    price, count = walk.price, 0
    for start in minutes(walk):
        if chance.random() > walk.share:
            continue
        for second in sorted(chance.choices(range(60_000), k=chance.randint(1, 3))):
            moment = start + timedelta(milliseconds=second)
            if moment >= END:
                return
            count += 1
            price = max(price + walk.move(count, chance), 1)
            codes = chance.choices(CODES, WEIGHTS)[0]
            yield line(walk.symbol, moment, f"{price * walk.step:.8f}", walk.size(chance), codes)


def minutes(walk: Walk) -> Iterator[datetime]:
    zone, hours = (UTC, COIN_HOURS) if ":" in walk.symbol else (NEW_YORK, STOCK_HOURS)
    for day in DAYS:
        midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
        for begin, end in hours:
            for minute in range(begin, end):
                yield (midnight + timedelta(minutes=minute)).astimezone(UTC)


def months(chance: random.Random) -> Iterator[tuple[datetime, str]]:
    """Two minutes of each of the 25 weekdays before: more days than a relative volume looks back on."""
    day, found = DAYS[0], 0
    while found < 25:
        day -= timedelta(days=1)
        if day.weekday() >= 5:
            continue
        found += 1
        for minute in (0, 1):
            moment = datetime(day.year, day.month, day.day, 10, minute, 30, tzinfo=NEW_YORK).astimezone(UTC)
            # Of two symbols, so that each of these dates has a pair of returns.
            for symbol in ("ALFA", "BRAV"):
                yield line(symbol, moment, f"{chance.randint(9_000, 11_000) / 100}", shares(chance), ["1"])


def long_ago(chance: random.Random) -> Iterator[tuple[datetime, str]]:
    for day, bars in ((date(2025, 9, 3), 40), (date(2026, 1, 20), 12)):
        for minute in range(bars):
            moment = datetime(day.year, day.month, day.day, 10, minute, 15, tzinfo=NEW_YORK).astimezone(UTC)
            yield line("RARE", moment, f"{chance.randint(3_900, 4_100) / 100}", shares(chance), ["1"])


def line(symbol: str, moment: datetime, price: str, size: str, codes: list[str] | None) -> tuple[datetime, str]:
    millis = round(moment.timestamp() * 1000)
    return moment, f'{{"c":{json.dumps(codes)},"p":{price},"s":"{symbol}","t":{millis},"v":{size}}}'
