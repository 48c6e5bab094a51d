"""What each table of bars and indicators ought to hold, given `ohlc_1m`: its keys, its exact columns and its ratios."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import formulas
import numpy as np
import pandas as pd

SERIES = ["symbol", "source", "session"]
BAR = [*SERIES, "bucket_start"]
KEYS = {"correlation_matrix": ["source", "span", "window_start", "window_end", "symbol_a", "symbol_b"]}
COARSER = {"ohlc_5m": "5min", "ohlc_15m": "15min", "ohlc_1h": "1h", "ohlc_1d": "1d"}
TABLES = [*COARSER, "moving_averages", "volume_indicators", "correlation_matrix"]
MOMENTS = ["correlation", "mean_a", "mean_b", "variance_a", "variance_b", "covariance"]
#: Of a price, of a return, and of what is a ratio to 1: a few times what a double cannot hold of it.
PRICE_NOISE, RETURN_NOISE, NOISE = 1e-14, 1e-15, 1e-12
OF_PRICES = ["macd", "macd_signal", "macd_histogram", "avg_gain_14", "avg_loss_14"]
MINUTE = pd.Timedelta(minutes=1)


@dataclass
class Wanted:
    """What a table ought to hold: its keys with the exact columns, and the ratios by each reference."""

    rows: pd.DataFrame
    ratios: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    #: Differences that are none, absolute, for values that may be as near to zero as they like: a double cannot
    #: hold more of what they are made of.
    floors: dict[str, np.ndarray | float] = field(default_factory=dict)


def wanted_of(table: str, rows: pd.DataFrame, marks: dict[str, pd.Timestamp], least_pairs: int) -> Wanted:
    if table in COARSER:
        return coarser(rows, COARSER[table])
    if table == "correlation_matrix":
        return correlation_matrix(rows, marks, least_pairs)
    return {"moving_averages": moving_averages, "volume_indicators": volume_indicators}[table](rows, marks)


def bars_of(rows: pd.DataFrame) -> pd.DataFrame:
    """`ohlc_1m` with the place of each row in its day, in order."""
    rows = rows.sort_values(BAR, ignore_index=True)
    moments = [moment.to_pydatetime() for moment in rows["bucket_start"]]
    rows["trading_date"] = [formulas.trading_date(*of) for of in zip(rows["symbol"], moments, strict=True)]
    rows["minute"] = [formulas.minute_of_day(*of) for of in zip(rows["symbol"], rows["session"], moments, strict=True)]
    return rows


def priced(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["close"].notna() & rows["high"].notna()]


def closed_bars(rows: pd.DataFrame, watermarks: dict[str, pd.Timestamp]) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The series: its closed bars, and all rows of `ohlc_1m` that it has."""
    found = []
    for (_, source, _), of in rows.groupby(SERIES):
        bars = priced(of)
        bars = bars[bars["bucket_start"] + MINUTE <= watermarks[source]].reset_index(drop=True)
        if len(bars):
            found.append((bars.assign(bars=np.arange(1, len(bars) + 1)), of))
    return found


def joined(parts: list[tuple[pd.DataFrame, dict[str, dict[str, np.ndarray]]]], empty: pd.DataFrame) -> Wanted:
    """The series below each other."""
    if not parts:
        return Wanted(empty)
    references = parts[0][1]
    return Wanted(
        pd.concat([rows for rows, _ in parts], ignore_index=True),
        {by: {name: np.concatenate([found[by][name] for _, found in parts]) for name in columns} for by, columns in references.items()},
    )


def coarser(rows: pd.DataFrame, frequency: str) -> Wanted:
    """Candles of candles; only sums and orders of decimals, so exact."""
    if frequency == "1d":
        start = pd.to_datetime(rows["trading_date"], utc=True)
    else:
        start = rows["bucket_start"].dt.floor(frequency)
    groups = rows.assign(bucket_start=start.astype(rows["bucket_start"].dtype)).groupby(BAR)
    found = groups.agg(
        open=("open", "first"), high=("high", highest), low=("low", lowest), close=("close", "last"),
        volume=("volume", "sum"), notional=("notional", "sum"), trades=("trades", "sum"),
    ).reset_index()  # fmt: skip
    vwap = np.array([formulas.ratio(*of) for of in zip(found["notional"], found["volume"], strict=True)])
    return Wanted(found, {"pandas": {"vwap": vwap}})


def highest(values: pd.Series) -> Any:
    return max(values.dropna(), default=None)


def lowest(values: pd.Series) -> Any:
    return min(values.dropna(), default=None)


def moving_averages(rows: pd.DataFrame, watermarks: dict[str, pd.Timestamp]) -> Wanted:
    parts = []
    for bars, _ in closed_bars(rows, watermarks):
        ratios = {"TA-Lib": formulas.averages_by_talib(bars), "pandas": formulas.averages_by_pandas(bars)}
        parts.append((bars[[*BAR, "close", "bars"]], ratios))
    return joined(parts, rows[:0][[*BAR, "close"]])


def volume_indicators(rows: pd.DataFrame, watermarks: dict[str, pd.Timestamp]) -> Wanted:
    parts = []
    for bars, of in closed_bars(rows, watermarks):
        ratios = {"TA-Lib": formulas.volumes_by_talib(bars), "pandas": formulas.volumes_by_pandas(bars, of)}
        bars = bars[[*BAR, "trading_date", "minute", "close", "volume", "bars"]]
        parts.append((bars.assign(obv=formulas.obv(bars)), ratios))
    wanted = joined(parts, rows[:0][[*BAR, "trading_date", "minute", "close", "volume"]])
    noise = wanted.rows["close"].to_numpy(float) * PRICE_NOISE
    return Wanted(wanted.rows, wanted.ratios, dict.fromkeys(OF_PRICES, noise))


def correlation_matrix(rows: pd.DataFrame, watermarks: dict[str, pd.Timestamp], least: int) -> Wanted:
    series = [bars for bars, _ in closed_bars(rows, watermarks) if bars.loc[0, "session"] in ("regular", "continuous")]
    found: list[tuple] = []
    for source in watermarks:
        changes = pd.DataFrame({bars.loc[0, "symbol"]: returns(bars) for bars in series if bars.loc[0, "source"] == source})
        changes = changes[changes.notna().sum(axis=1) >= 2]  # a date counts among the five if two symbols have a return in one minute
        for span, start, end, within in spans(changes.index):
            found += [(source, span, start, end, *pair) for pair in pairs(changes[within], least)]
    table = pd.DataFrame(found, columns=[*KEYS["correlation_matrix"], "n", *MOMENTS])
    # A return is as good as the ratio of two prices near 1 that it is the logarithm of. A correlation is so to 1,
    # a covariance to the two deviations.
    noise = np.sqrt(table["variance_a"] * table["variance_b"]).to_numpy(float) * NOISE
    floors = {"mean_a": RETURN_NOISE, "mean_b": RETURN_NOISE, "correlation": NOISE, "covariance": noise}
    return Wanted(table.drop(columns=MOMENTS), {"numpy": {name: table[name].to_numpy(float) for name in MOMENTS}}, floors)


def returns(bars: pd.DataFrame) -> pd.Series:
    """Of the minutes whose minute before has a bar."""
    close = bars.set_index("bucket_start")["close"].astype(float)
    before = close.shift().where(close.index.to_series().diff() == MINUTE)
    return np.log(close / before).dropna()


def spans(minutes: pd.DatetimeIndex) -> list[tuple[str, pd.Timestamp, pd.Timestamp, np.ndarray]]:
    """The windows that have returns: name, begin, end and which minutes lie within."""
    halves = minutes.floor("30min")
    found = [("30m", start, start + 30 * MINUTE, halves == start) for start in halves.unique()]
    days = minutes.tz_convert(formulas.EASTERN_STANDARD).floor("D").tz_convert("UTC")
    every = list(days.unique().sort_values())
    for n, day in enumerate(every):
        end = day + pd.Timedelta(days=1)
        found.append(("1d", day, end, days == day))
        first = every[max(n - 4, 0)]
        found.append(("5d", first, end, (days >= first) & (days <= day)))
    return found


def pairs(changes: pd.DataFrame, least: int) -> list[tuple]:
    """Symbols, count, and by numpy correlation, means, variances and covariance."""
    changes = changes.sort_index(axis=1)
    values, found = changes.to_numpy().T, []
    for (i, a), (j, b) in combinations(enumerate(changes.columns), 2):
        both = values[[i, j]][:, ~np.isnan(values[i]) & ~np.isnan(values[j])]
        n = both.shape[1]
        if n:
            is_known = n >= least and (np.ptp(both, axis=1) > 0).all()
            covariances = np.cov(both, ddof=0)
            correlation = float(np.corrcoef(both)[0, 1]) if is_known else np.nan
            found.append((a, b, n, correlation, *both.mean(axis=1), covariances[0, 0], covariances[1, 1], covariances[0, 1]))
    return found
