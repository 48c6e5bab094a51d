"""What Gold's indicators ought to be, by TA-Lib, pandas and numpy: nothing of Tickmint's.

Each function takes the bars of one series in order (see `tables.py`) and gives columns by name. TA-Lib is
called as anybody would, with doubles. What is computed here takes prices and volumes as whole numbers of
their last decimal, which a double holds exactly: so a difference of two prices has no error, and equal
typical prices are equal. Ratios do not care; the rest is scaled back.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import talib
from numpy.lib.stride_tricks import sliding_window_view

NEW_YORK = ZoneInfo("America/New_York")
EASTERN_STANDARD = timezone(timedelta(hours=-5))
DECIMALS = 8
UNIT = 10.0**-DECIMALS
SPANS = (5, 20, 50)
EARLIER_DAYS = 20
#: Wilder's means below this part of the price are none.
FADED = 1e-30

Columns = dict[str, np.ndarray]


def units(values: pd.Series) -> np.ndarray:
    """Decimals as doubles that are whole numbers."""
    return np.array([float(int(value.scaleb(DECIMALS))) for value in values])


def zone_of(symbol: str) -> timezone:
    return UTC if ":" in symbol else EASTERN_STANDARD


def trading_date(symbol: str, start: datetime) -> date:
    return start.astimezone(zone_of(symbol)).date()


def minute_of_day(symbol: str, session: str, start: datetime) -> int:
    """Minutes since the regular open, or since midnight where there is none."""
    day = trading_date(symbol, start)
    if session in ("pre", "regular", "post"):
        begin = datetime.combine(day, time(9, 30), NEW_YORK)
    else:
        begin = datetime.combine(day, time(0), zone_of(symbol))
    minutes = (start - begin.astimezone(UTC)) / timedelta(minutes=1)
    assert minutes == int(minutes), (symbol, start)
    return int(minutes)


def windows(values: np.ndarray, size: int, of) -> np.ndarray:
    """`of` each window, at its last place; nothing before the first whole one."""
    out = np.full(len(values), np.nan)
    if len(values) >= size:
        out[size - 1 :] = of(sliding_window_view(values, size))
    return out


def seeded(values: np.ndarray, place: int, seed: float, alpha: float) -> np.ndarray:
    """pandas' own exponential average, begun at `place` with a value of ours."""
    out = np.full(len(values), np.nan)
    if len(values) > place:
        out[place:] = pd.Series(np.r_[seed, values[place + 1 :]]).ewm(alpha=alpha, adjust=False).mean()
    return out


def ema(values: np.ndarray, span: int, first: int = 0) -> np.ndarray:
    """Seeded by the mean of `span` values from the place `first` on."""
    place = first + span - 1
    return seeded(values, place, float(np.mean(values[first : place + 1])), 2 / (span + 1)) if len(values) > place else np.full(len(values), np.nan)


def averages_by_talib(bars: pd.DataFrame) -> Columns:
    close = bars["close"].to_numpy(float)
    found = {f"sma_{n}": talib.SMA(close, n) for n in SPANS}
    found |= {f"ema_{n}": talib.EMA(close, n) for n in SPANS}
    found |= {f"wma_{n}": talib.WMA(close, n) for n in SPANS}
    found |= dict(zip(("bb_upper", "bb_middle", "bb_lower"), talib.BBANDS(close, 20, 2, 2), strict=True))
    return found


def averages_by_pandas(bars: pd.DataFrame) -> Columns:
    close = units(bars["close"])
    found = {f"sma_{n}": pd.Series(close).rolling(n).mean().to_numpy() for n in SPANS}
    found |= {f"ema_{n}": ema(close, n) for n in SPANS}
    found |= {f"wma_{n}": windows(close, n, lambda w, n=n: w @ np.arange(1.0, n + 1) / (n * (n + 1) / 2)) for n in SPANS}
    # By numpy and window by window, as pandas' rolling std is good to 1e-10 only where the price is still.
    deviation = windows(close, 20, lambda w: w.std(axis=1, ddof=0))
    found |= {"bb_middle": found["sma_20"], "bb_upper": found["sma_20"] + 2 * deviation, "bb_lower": found["sma_20"] - 2 * deviation}
    return {name: values * UNIT for name, values in found.items()}


def typical(bars: pd.DataFrame) -> np.ndarray:
    """Three times the typical price."""
    return units(bars["high"]) + units(bars["low"]) + units(bars["close"])


def stands_still(bars: pd.DataFrame) -> np.ndarray:
    """The price never moved, or so long ago that nothing is left of it in Wilder's means (some 900 bars)."""
    gain, loss = gains(bars)
    return ~(gain + loss > FADED * units(bars["close"]))


def gains(bars: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Wilder's means of what the close rose and of what it fell."""
    change = np.diff(units(bars["close"]), prepend=units(bars["close"])[0])
    return wilder(np.maximum(change, 0)), wilder(np.maximum(-change, 0))


def flows(bars: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Money flow of 14 bars in which the typical price rose, and in which it fell; from the 15th bar."""
    price, flow = typical(bars), typical(bars) * units(bars["volume"])
    direction = np.sign(np.diff(price, prepend=price[0]))
    sums = [windows(np.where(direction == sign, flow, 0.0), 14, lambda w: w.sum(axis=1)) for sign in (1, -1)]
    for values in sums:
        values[:14] = np.nan
    return sums[0], sums[1]


def volumes_by_talib(bars: pd.DataFrame) -> Columns:
    high, low, close, volume = (bars[name].to_numpy(float) for name in ("high", "low", "close", "volume"))
    count = len(close)
    # TA-Lib's sums run on, and remember large volumes that have left the window; so each window is its own.
    # Where nothing moved TA-Lib says 0, and Gold that there is no such ratio.
    mfi = np.full(count, np.nan)
    for end in range(15, count + 1):
        mfi[end - 1] = talib.MFI(*(np.ascontiguousarray(values[end - 15 : end]) for values in (high, low, close, volume)), 14)[-1]
    rose, fell = flows(bars)
    # MACD is shown from the 34th bar only. Until then it is the difference of its two averages, of which
    # the fast one begins late, so that both are first known at the 26th.
    fast, slow = np.full(count, np.nan), talib.EMA(close, 26)
    if count > 14:
        fast[14:] = talib.EMA(np.ascontiguousarray(close[14:]), 12)
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    return {
        "obv": talib.OBV(close, volume),
        "rsi_14": np.where(stands_still(bars), np.nan, talib.RSI(close, 14)),
        "mfi_14": np.where(rose + fell > 0, mfi, np.nan),
        "ema_12": fast,
        "ema_26": slow,
        "macd": np.where(np.isnan(macd), fast - slow, macd),
        "macd_signal": signal,
        "macd_histogram": histogram,
    }


def volumes_by_pandas(bars: pd.DataFrame, rows: pd.DataFrame) -> Columns:
    """`rows` is all that `ohlc_1m` has of the series: a volume without a price counts in the session's VWAP."""
    close, count = units(bars["close"]), len(bars)
    gain, loss = gains(bars)
    rose, fell = flows(bars)
    fast, slow = ema(close, 12, first=14), ema(close, 26)
    macd = fast - slow
    signal = np.full(count, np.nan)
    signal[25:] = ema(macd[25:], 9)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "rsi_14": np.where(stands_still(bars), np.nan, 100 * gain / (gain + loss)),
            "mfi_14": 100 * rose / (rose + fell),
            "avg_gain_14": gain * UNIT,
            "avg_loss_14": loss * UNIT,
            "ema_12": fast * UNIT,
            "ema_26": slow * UNIT,
            "macd": macd * UNIT,
            "macd_signal": signal * UNIT,
            "macd_histogram": (macd - signal) * UNIT,
        }
    return found | vwaps(bars, rows) | {"relative_volume": relative_volume(bars), "money_flow": typical(bars) / 3 * units(bars["volume"]) * UNIT**2}


def wilder(values: np.ndarray) -> np.ndarray:
    """The mean of the first 14 changes, then a fourteenth of each."""
    return seeded(values, 14, float(np.mean(values[1:15])), 1 / 14) if len(values) > 14 else np.full(len(values), np.nan)


def ratio(above: Decimal, below: Decimal) -> float:
    return float(above / below) if below else np.nan


def vwaps(bars: pd.DataFrame, rows: pd.DataFrame) -> Columns:
    """Sums of decimals, so exact up to the division."""
    days = rows.set_index("bucket_start").groupby("trading_date")[["notional", "volume"]]
    upto = days.transform(lambda of: np.cumsum(of.to_numpy())).loc[bars["bucket_start"]]
    session = [ratio(*pair) for pair in zip(upto["notional"], upto["volume"], strict=True)]
    notional, volume = (np.cumsum(np.r_[Decimal(0), bars[name].to_numpy()]) for name in ("notional", "volume"))
    last = [ratio(notional[n] - notional[n - 20], volume[n] - volume[n - 20]) if n >= 20 else np.nan for n in range(1, len(bars) + 1)]
    return {"vwap_session": np.array(session), "vwap_20": np.array(last)}


def obv(bars: pd.DataFrame) -> np.ndarray:
    """Exact."""
    close, volume = bars["close"].to_numpy(), bars["volume"].to_numpy()
    signs = [1] + [(now > before) - (now < before) for before, now in zip(close, close[1:], strict=False)]
    return np.cumsum(np.array([sign * size for sign, size in zip(signs, volume, strict=True)], dtype=object))


def relative_volume(bars: pd.DataFrame) -> np.ndarray:
    """Against the mean of the bars of the same minute on up to 20 earlier trading dates that have one."""
    volume, found = units(bars["volume"]), np.full(len(bars), np.nan)
    earlier: dict[int, list[float]] = {}
    for n, minute in enumerate(bars["minute"]):
        days = earlier.setdefault(minute, [])
        mean = np.mean(days[-EARLIER_DAYS:]) if days else 0
        found[n] = volume[n] / mean if mean else np.nan
        days.append(volume[n])
    return found
