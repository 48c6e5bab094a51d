"""What is read of the indicators: which signals there must be and what came of them, and the state of the market.

By what dbt/models/gold/market.yml says of the columns, and nothing else of Tickmint's but the rules' own data, the
seed signal_rules. Signals are of the published averages and volume indicators, which `tables.py` judges.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import formulas
import numpy as np
import pandas as pd
from tables import BAR, MINUTE, RETURN_NOISE, Wanted, closed_bars, highest, lowest

KEYS = {"trading_signals": ["rule", "version", *BAR], "market_overview": ["symbol", "source"]}
TABLES = list(KEYS)
MADE_OF = {"trading_signals": ["moving_averages", "volume_indicators"]}
RULES = Path(__file__).resolve().parents[2] / "dbt" / "seeds" / "signal_rules.csv"
#: Part of the close, or of a threshold, by which doubles may miss each other and still be equal.
EQUAL = 1e-12
OUTCOMES = {f"return_{minutes}m": minutes for minutes in (5, 15, 60)}
INPUTS = ["value", "level", "value_before", "level_before"]
#: The sessions whose close a day is told by.
MAIN = ("regular", "continuous")


@dataclass
class Looks:
    """What a rule looks at, bar by bar, and at which bars it fires which way."""

    inputs: str
    fires: dict[str, np.ndarray]
    value: np.ndarray
    level: np.ndarray
    value_before: np.ndarray | float = np.nan
    level_before: np.ndarray | float = np.nan


def rules() -> list[dict[str, str]]:
    with RULES.open(newline="") as file:
        return list(csv.DictReader(file))


def trading_signals(rows: pd.DataFrame, watermarks: dict[str, pd.Timestamp], indicators: list[pd.DataFrame]) -> Wanted:
    """`indicators` are the published tables that they are made of."""
    for table in indicators:
        rows = rows.merge(table[BAR + [name for name in table.columns if name not in rows.columns]], how="left", on=BAR) if len(table) else rows
    keys = [*KEYS["trading_signals"], "direction", "price", "inputs"]
    found = [signals_of(bars, watermarks) for bars, _ in closed_bars(rows, watermarks)]
    table = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*keys, *INPUTS, *OUTCOMES])
    columns = {name: table[name].to_numpy(float) for name in (*INPUTS, *OUTCOMES)}
    return Wanted(table[keys], {"pandas": columns}, dict.fromkeys(OUTCOMES, RETURN_NOISE))


def signals_of(bars: pd.DataFrame, watermarks: dict[str, pd.Timestamp]) -> pd.DataFrame:
    """Of one series, rule by rule and direction by direction."""
    looks, parts = {"cross": cross, "breakout": breakout, "volume": volume}, []
    for rule in rules():
        seen = looks[rule["kind"]](bars, rule)
        told = np.broadcast_arrays(*(getattr(seen, name) for name in INPUTS), seen.value)
        for direction, where in seen.fires.items():
            told_here = dict(zip(INPUTS, (values[where] for values in told), strict=False))
            names = {"rule": rule["rule"], "version": int(rule["version"]), "direction": direction, "inputs": seen.inputs}
            parts.append(pd.DataFrame(names | {"place": np.flatnonzero(where)} | told_here))
    table = pd.concat(parts, ignore_index=True)
    came = outcomes(bars, watermarks[bars.loc[0, "source"]])
    bars = bars[[*BAR, "close"]].rename(columns={"close": "price"}).assign(**came)
    return table.join(bars, on="place")


def before(values: np.ndarray) -> np.ndarray:
    """One bar before."""
    return np.r_[np.nan, values[:-1]]


def column(bars: pd.DataFrame, name: str) -> np.ndarray:
    """Nothing where no indicators are published."""
    return bars[name].to_numpy(float) if name in bars else np.full(len(bars), np.nan)


def cross(bars: pd.DataFrame, rule: dict[str, str]) -> Looks:
    """Above now, and not above one bar before; or below."""
    value, level = column(bars, rule["value"]), column(bars, rule["level"])
    distance, equal = value - level, EQUAL * bars["close"].to_numpy(float)
    buy = (distance > equal) & (before(distance) <= equal)
    sell = (distance < -equal) & (before(distance) >= -equal)
    return Looks(f"{rule['value']}, {rule['level']}", {"buy": buy, "sell": sell}, value, level, before(value), before(level))


def breakout(bars: pd.DataFrame, rule: dict[str, str]) -> Looks:
    """The close against the range of the bars before, its own left out."""
    count = int(rule["bars"])
    close, high, low = (formulas.units(bars[name]) for name in ("close", "high", "low"))
    top = before(formulas.windows(high, count, lambda w: w.max(axis=1)))
    bottom = before(formulas.windows(low, count, lambda w: w.min(axis=1)))
    buy, sell = close > top, close < bottom
    level = np.where(sell, bottom, top) * formulas.UNIT
    return Looks(f"close, high and low of {count} bars", {"buy": buy, "sell": sell}, close * formulas.UNIT, level)


def volume(bars: pd.DataFrame, rule: dict[str, str]) -> Looks:
    threshold = float(rule["threshold"])
    if rule["value"]:
        inputs, value = rule["value"], column(bars, rule["value"])
    else:
        count = int(rule["bars"])
        inputs, sizes = f"volume, mean volume of {count} bars", bars["volume"].to_numpy()
        sums = np.cumsum(np.r_[Decimal(0), sizes])
        value = np.array([formulas.ratio(size * count, sums[n] - sums[n - count]) if n >= count else np.nan for n, size in enumerate(sizes)])
    return Looks(inputs, {"watch": value >= threshold * (1 - EQUAL)}, value, np.full(len(bars), threshold))


def outcomes(bars: pd.DataFrame, watermark: pd.Timestamp) -> dict[str, np.ndarray]:
    """The last close of the series so many minutes after each bar has ended, over its own; nothing until then."""
    close, ends = bars["close"].to_numpy(float), pd.DatetimeIndex(bars["bucket_start"] + MINUTE)
    found = {}
    for name, minutes in OUTCOMES.items():
        moments = ends + minutes * MINUTE
        last = ends.searchsorted(moments, side="right") - 1
        found[name] = np.where(moments <= watermark, close[last] / close - 1, np.nan)
    return found


def last_trades(warehouse: Path, run: int, watermarks: dict[str, pd.Timestamp]) -> dict[tuple, pd.Timestamp]:
    """By Silver, as a run had it: the last trade of each symbol and source in each minute, no later than the newest event time."""
    marks = pd.DataFrame({"source": list(watermarks), "mark": list(watermarks.values())})
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("marks", marks)
        rows = connection.execute(
            """select symbol, source, date_trunc('minute', event_time), max(event_time) from silver.trades join marks using (source)
               where silver_run <= ? and not price_update and event_time <= mark group by all""",
            [run],
        ).fetchall()
    return {(symbol, source, pd.Timestamp(minute)): pd.Timestamp(last) for symbol, source, minute, last in rows}


def market_overview(rows: pd.DataFrame, watermarks: dict[str, pd.Timestamp], trades: dict[tuple, pd.Timestamp] | None) -> Wanted:
    """Without `trades` (see above) nothing is said of the last trade."""
    states = [state for (symbol, source), of in rows.groupby(["symbol", "source"]) if (state := state_of(of, symbol, watermarks[source]))]
    for state in states:
        peers = [other for other in states if other["source"] == state["source"]]
        changes = [other["change"] for other in peers if other["change"] is not None]
        state["rank_change"] = rank("ratio", state, peers)
        state["rank_notional"] = rank("notional", state, peers)
        state["advancers"] = sum(change > 0 for change in changes)
        state["decliners"] = sum(change < 0 for change in changes)
        state["unchanged"] = sum(change == 0 for change in changes)
        if trades is not None:
            at = trades.get((state["symbol"], state["source"], state["minute"]))
            state["last_trade_at"] = at
            state["age"] = (watermarks[state["source"]] - at) / pd.Timedelta(seconds=1) if at is not None else None
    if not states:
        return Wanted(pd.DataFrame(columns=KEYS["market_overview"]))
    table = pd.DataFrame(states, dtype=object)
    ratios = {"change_ratio": np.array([float(ratio - 1) if ratio is not None else np.nan for ratio in table.pop("ratio")])}
    ratios["vwap"] = np.array([formulas.ratio(*of) for of in zip(table["notional"], table["volume"], strict=True)])
    if trades is not None:
        ratios["last_trade_age_seconds"] = table.pop("age").to_numpy(float)
    return Wanted(table.drop(columns="minute"), {"pandas": ratios}, {"change_ratio": RETURN_NOISE})


def state_of(rows: pd.DataFrame, symbol: str, watermark: pd.Timestamp) -> dict[str, Any] | None:
    """Of all bars of a symbol, in order. None if all are of days to come, by suspect times."""
    today = formulas.trading_date(symbol, watermark.to_pydatetime())
    newest = max((day for day in rows["trading_date"] if day <= today), default=None)
    if newest is None:
        return None
    day, main = rows[rows["trading_date"] == newest], rows[rows["session"].isin(MAIN)]
    bars, of_day = day[day["bucket_start"] <= watermark].sort_values("bucket_start"), main[main["trading_date"] == newest]
    price, previous = last(bars["close"]), last(main.loc[main["trading_date"] < newest, "close"])
    is_known = price is not None and previous is not None
    return {
        "symbol": symbol, "source": rows["source"].iloc[0], "trading_date": newest, "minute": bars["bucket_start"].max(),
        "last_price": price, "previous_close": previous,
        "change": price - previous if is_known else None, "ratio": price / previous if is_known else None,
        "open": next(iter(of_day["open"].dropna()), None), "high": highest(of_day["high"]), "low": lowest(of_day["low"]),
        "volume": day["volume"].sum(), "notional": day["notional"].sum(), "trades": int(day["trades"].sum()),
    }  # fmt: skip


def last(values: pd.Series) -> Decimal | None:
    known = values.dropna()
    return known.iloc[-1] if len(known) else None


def rank(name: str, state: dict[str, Any], peers: list[dict[str, Any]]) -> int | None:
    """From 1, the greatest first; equal ones share the better rank."""
    mine = state[name]
    return None if mine is None else 1 + sum(other[name] is not None and other[name] > mine for other in peers)
