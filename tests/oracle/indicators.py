#!/usr/bin/env python3
"""Holds Gold's indicators, as they are published, against TA-Lib, pandas and numpy.

    indicators.py GOLD_DIR [--without TABLE] [--min-pairs N] [--watermark SOURCE=TIME] [--warehouse FILE]

Reads the manifest and the Parquet files that it names, and nothing else but, where it is given the warehouse that they
are of, when the last trades were: else that is not judged. `ohlc_1m` is taken as given (bars.py
and compare.py judge it); all other tables are computed from it, series by series, and compared row by row:
exactly where a column is decimal, within 1e-9 of the value where it is a ratio (see `Wanted.floors`). Which bars are closed is told by
the manifest's watermark; where several sources share a Gold, each has its own and must be named. Prints for
each table what was compared and the largest relative difference; exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from decimal import getcontext
from pathlib import Path

import market
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tables
from tables import BAR, Wanted, bars_of

getcontext().prec = 60
KEYS = tables.KEYS | market.KEYS
TABLES = [*tables.TABLES, *market.TABLES]
SHOWN = 20
TOLERANCE = 1e-9


@dataclass
class Result:
    table: str
    rows: int = 0
    values: int = 0
    largest: float = 0.0
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.table}: {self.rows} rows, {self.values} values compared, largest relative difference {self.largest:.1e}"
        return said + (f", {len(self.differences)} DIFFERENCES" if self.differences else "")


class Gold:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text())

    def read(self, table: str, result: Result) -> pd.DataFrame:
        entry = self.manifest["tables"][table]
        pieces = [pq.ParquetFile(self.folder / file).read() for file in entry["files"]]
        if not pieces:
            return pd.DataFrame()
        whole = pa.concat_tables(pieces)
        if whole.num_rows != entry["rows"]:
            result.differences.append(f"{table}: {whole.num_rows} rows in the files, the manifest says {entry['rows']}")
        for name, column in zip(whole.column_names, whole.columns, strict=True):
            if pa.types.is_floating(column.type) and pc.any(pc.invert(pc.is_finite(column))).as_py():
                result.differences.append(f"{table}: {name} has a value that is no number; null is for what is not known")
        return whole.to_pandas()


def compare(result: Result, published: pd.DataFrame, wanted: Wanted) -> None:
    key = KEYS.get(result.table, BAR)
    say = result.differences.append
    names = set(wanted.rows.columns).union(*wanted.ratios.values()) if len(wanted.rows) else set(key)
    if missing := names - set(published.columns):
        if len(published) or len(wanted.rows):
            say(f"{result.table}: it lacks the columns {', '.join(sorted(missing))}")
        return
    published = published.set_index(key)
    expected = pd.MultiIndex.from_frame(wanted.rows[key])
    for row in published.index[published.index.duplicated()]:
        say(f"{result.table}: {named(row)} stands twice")
    published = published[~published.index.duplicated()]
    for row in expected.difference(published.index):
        say(f"{result.table}: {named(row)} is missing")
    for row in published.index.difference(expected):
        say(f"{result.table}: {named(row)} has no place there")
    is_there = expected.isin(published.index)
    rows, expected = wanted.rows[is_there], expected[is_there]
    published = published.loc[expected]
    result.rows = len(published)
    for name in rows.columns.difference(key):
        compare_exactly(result, expected, name, published[name], rows[name])
    for reference, columns in wanted.ratios.items():
        for name, values in columns.items():
            floor = np.broadcast_to(wanted.floors.get(name, 0.0), len(values))
            compare_ratios(result, expected, (name, reference), published[name].to_numpy(float), values[is_there], floor[is_there])


def compare_exactly(result: Result, index: pd.MultiIndex, name: str, published: pd.Series, right: pd.Series) -> None:
    result.values += len(index)
    for key, found, wanted in zip(index, published, right, strict=True):
        if not (found == wanted or (pd.isna(found) and pd.isna(wanted))):
            result.differences.append(f"{result.table}: {named(key)} {name}: {found} is published, {wanted} is right")


def compare_ratios(result: Result, index: pd.MultiIndex, column: tuple[str, str], found: np.ndarray, right: np.ndarray, floor: np.ndarray) -> None:
    name, reference = column
    distance, allowed = np.abs(found - right), np.maximum(TOLERANCE * np.abs(right), floor)
    result.values += len(index)
    compared = allowed > 0
    result.largest = max(result.largest, np.nanmax(distance[compared] / allowed[compared], initial=0.0) * TOLERANCE)
    for n in np.flatnonzero((np.isnan(found) != np.isnan(right)) | (distance > allowed)):
        result.differences.append(f"{result.table}: {named(index[n])} {name}: {found[n]} is published, {right[n]} by {reference}")


def named(key: tuple) -> str:
    return " ".join(str(part) for part in key)


def watermarks_of(gold: Gold, rows: pd.DataFrame, told: dict[str, str]) -> dict[str, pd.Timestamp]:
    """The newest event time of each source."""
    sources = list(rows["source"].unique())
    if not told and len(sources) > 1:
        sys.exit(f"the manifest has one watermark, and there are several sources ({', '.join(sources)}): name each with --watermark")
    return {source: pd.Timestamp(told[source] if told else gold.manifest["watermark"]).tz_convert("UTC") for source in sources}


def check(
    folder: Path,
    *,
    only: set[str] | None = None,
    without: set[str] = frozenset(),
    least_pairs: int = 10,
    watermarks: dict[str, str] | None = None,
    warehouse: Path | None = None,
) -> list[Result]:
    """Compares each table; `only` some of them where so asked."""
    gold = Gold(folder)
    given = Result("ohlc_1m")
    rows = bars_of(gold.read("ohlc_1m", given))
    given.rows = len(rows)
    marks = watermarks_of(gold, rows, watermarks or {})
    results = [given]
    for table in TABLES if only is None else only:
        if table in without:
            continue
        result = Result(table)
        results.append(result)
        made_of = market.MADE_OF.get(table, [])
        if missing := {table, *made_of} - gold.manifest["tables"].keys():
            result.differences += [f"{name}: the manifest does not name it" for name in sorted(missing)]
            continue
        published = gold.read(table, result)
        if table == "trading_signals":
            wanted = market.trading_signals(rows, marks, [gold.read(name, result) for name in made_of])
        elif table == "market_overview":
            trades = market.last_trades(warehouse, gold.manifest["run"], marks) if warehouse else None
            wanted = market.market_overview(rows, marks, trades)
        else:
            wanted = tables.wanted_of(table, rows, marks, least_pairs)
        compare(result, published, wanted)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gold", type=Path)
    parser.add_argument("--without", action="append", default=[], choices=TABLES, metavar="TABLE", help="leave a table out")
    parser.add_argument("--min-pairs", type=int, default=10, metavar="N", help="pairs that a correlation needs (10)")
    parser.add_argument("--watermark", action="append", default=[], metavar="SOURCE=TIME", help="the newest event time of a source")
    parser.add_argument("--warehouse", type=Path, metavar="FILE", help="the warehouse that made it, which nobody has open")
    args = parser.parse_args()
    told = dict(pair.split("=", 1) for pair in args.watermark)
    results = check(args.gold, without=set(args.without), least_pairs=args.min_pairs, watermarks=told, warehouse=args.warehouse)
    for result in results:
        print(result)
        for difference in result.differences[:SHOWN]:
            print(f"  {difference}")
    return 1 if any(result.differences for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
