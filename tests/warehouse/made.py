"""A made tape: every sale condition, ties, repeats of values, both clock changes, a holiday and a half-day, and no licence."""

from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, datetime
from pathlib import Path

#: Winter, the days about both clock changes of 2026 in New York, Thanksgiving, the half-day and the Saturday after it; and the
#: minutes that two sessions meet in.
DAYS = ["2026-01-15", "2026-03-06", "2026-03-09", "2026-10-30", "2026-11-02", "2026-11-26", "2026-11-27", "2026-11-28"]
TIMES = ["08:59", "09:00", "12:29", "13:29", "13:30", "14:29", "14:30", "17:59", "18:00", "19:59", "20:00", "20:59", "21:00", "21:59", "22:00"]
TIMES += ["23:59", "00:59", "03:00"]
SYMBOLS = ["AAPL", "BRK.B", "BINANCE:BTCUSDT"]


def tape(path: Path, *, frames: int = 3000, seed: int = 20261123) -> Path:
    chance = random.Random(seed)
    with gzip.open(path, "wt", compresslevel=1) as out:
        for _ in range(frames):
            trades = [trade(chance) for _ in range(chance.randint(1, 5))]
            if chance.random() < 0.2:
                trades.append(trades[-1])  # a separate trade that equals its neighbour in every field
            out.write('{"data":[' + ",".join(trades) + '],"type":"trade"}\n')
    return path


def trade(chance: random.Random) -> str:
    day, time = chance.choice(DAYS), chance.choice(TIMES)
    begin = int(datetime.fromisoformat(f"{day}T{time}:00").replace(tzinfo=UTC).timestamp()) * 1000
    moment = begin + chance.choice([0, 1, 30_000, 59_999, chance.randrange(60_000)])
    price = chance.choice([f"{chance.randint(80, 115)}", f"{chance.randint(80, 115)}.{chance.randint(1, 10**8 - 1):08}", "100.5"])
    size = chance.choice(["0", "100", "1", f"0.{chance.randint(1, 10**8 - 1):08}", str(chance.randint(1, 10**6))])
    codes = chance.choice([None, [], ["1"], ["24"], ["24", "12"], *[random_codes(chance) for _ in range(6)]])
    return f'{{"c":{json.dumps(codes)},"p":{price},"s":"{chance.choice(SYMBOLS)}","t":{moment},"v":{size}}}'


def random_codes(chance: random.Random) -> list[str]:
    return [str(chance.choice([*range(1, 42), 99])) for _ in range(chance.randint(1, 3))]
