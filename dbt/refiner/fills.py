"""Reads the positions file: a CSV of the user's own fills, a row each.

    account,symbol,executed_at,quantity,price,fee,currency,note
    main,AAPL,2026-11-23T15:30:00-05:00,10,187.25,1.00,USD,

`quantity` is signed: + bought, - sold. `fee`, `currency` and `note` may be left out. All that is wrong with a file is
told at once, each with its place, the value and what to do; a file that has any error is not used.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

REQUIRED = ("account", "symbol", "executed_at", "quantity", "price")
OPTIONAL = ("fee", "currency", "note")

#: So many errors of a file are told; of the rest, how many there are.
TOLD = 10

#: Amounts are below this, as those of trades are, and have at most so many decimals.
LIMIT = 10**10
DECIMALS = 8

LARGEST_FILE = 64 << 20

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
CURRENCY = re.compile(r"[A-Z]{3,5}")


class BadPositions(Exception):
    """The file cannot be used. The text tells why, an error a line."""

    def __init__(self, errors: list[str]) -> None:
        more = [f"and {len(errors) - TOLD} more"] if len(errors) > TOLD else []
        super().__init__("\n".join(errors[:TOLD] + more))


@dataclass(frozen=True)
class Fill:
    """One execution. `line` is where it stands in the file, from 1; the header is the first."""

    account: str
    symbol: str
    executed_at: datetime
    quantity: Decimal
    price: Decimal
    fee: Decimal
    currency: str
    note: str
    line: int


class Wrong(Exception):
    """A value cannot be used. The text goes on after the value: what it is, and what to do."""


def content_of(path: Path) -> bytes:
    try:
        if path.is_file():
            if path.stat().st_size > LARGEST_FILE:
                raise BadPositions([f"{path} is larger than {LARGEST_FILE >> 20} MB: it is no positions file, or one to be shortened"])
            return path.read_bytes()
    except OSError as error:
        raise BadPositions([f"{path} cannot be read ({error.strerror}): let the user that tickmint runs as read it"]) from error
    raise BadPositions([f"{path} is no file: make it, or take it out of the configuration"])


def read(path: Path, content: bytes) -> list[Fill]:
    """The fills of a file in the order of their time; those of one moment in the order of the file."""
    rows = lines(path, text_of(path, content))
    names = header(path, next(rows, None))
    errors: list[str] = []
    fills = [fill for line, row in rows if (fill := one(path, line, names, row, errors))]
    errors += mixed_currencies(path, fills)
    if errors:
        raise BadPositions(errors)
    return sorted(fills, key=lambda fill: fill.executed_at)


def text_of(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadPositions([f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8: save it as CSV in UTF-8"]) from error


def lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold something, each with the number of its (last) line."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    while True:
        try:
            row = [value.strip() for value in next(rows)]
        except StopIteration:
            return
        except csv.Error as error:
            raise BadPositions([f"{path}:{rows.line_num}: is no CSV ({error}): write a quote inside quotes twice, and close each"]) from error
        if any(row):
            yield rows.line_num, row


def header(path: Path, first: tuple[int, list[str]] | None) -> list[str]:
    if first is None:
        raise BadPositions([f"{path}:1: there is no header: begin with {','.join(REQUIRED + OPTIONAL)}"])
    line, names = first
    if len(names) == 1 and (other := next((sign for sign in ";\t|" if sign in names[0]), None)):
        raise BadPositions([f"{path}:{line}: columns are separated by {other!r}: separate them by commas"])
    known = REQUIRED + OPTIONAL
    errors = [f"{path}:{line}: column {name!r} is not known: take it out, or name it one of {', '.join(known)}" for name in names if name not in known]
    errors += [f"{path}:{line}: column {name!r} stands twice: keep one" for name in known if names.count(name) > 1]
    errors += [f"{path}:{line}: column {name!r} is missing: add it" for name in REQUIRED if name not in names]
    if errors:
        raise BadPositions(errors)
    return names


def one(path: Path, line: int, names: list[str], row: list[str], errors: list[str]) -> Fill | None:
    """The fill of a row; what is wrong goes to `errors`."""
    if len(row) != len(names):
        errors.append(f"{path}:{line}: has {len(row)} values for {len(names)} columns: write one each, and quote a value with a comma")
        return None
    values = dict.fromkeys(OPTIONAL, "") | dict(zip(names, row, strict=True))
    found: dict[str, Any] = {"line": line}
    before = len(errors)
    for name, parse in COLUMNS.items():
        try:
            found[name] = parse(values[name])
        except Wrong as wrong:
            errors.append(f"{path}:{line}: column {name!r}: {values[name]!r} {wrong}")
    return Fill(**found) if len(errors) == before else None


def mixed_currencies(path: Path, fills: list[Fill]) -> list[str]:
    """A position has one currency: what is paid in two cannot be added."""
    first: dict[tuple[str, str], Fill] = {}
    errors = []
    for fill in fills:
        other = first.setdefault((fill.account, fill.symbol), fill)
        if other.currency != fill.currency:
            errors.append(
                f"{path}:{fill.line}: column 'currency': {fill.currency!r} is not {other.currency!r} of line {other.line}: "
                f"{fill.symbol} in account {fill.account} has one currency; write it in all its rows, or use another account"
            )
    return errors


def filled(value: str) -> str:
    if not value:
        raise Wrong("is empty: write one")
    return value


def moment(value: str) -> datetime:
    try:
        found = datetime.fromisoformat(filled(value))
    except ValueError:
        raise Wrong("is no time: write it as 2026-11-23T15:30:00-05:00") from None
    if found.tzinfo is None:
        raise Wrong("has no time zone: add Z for UTC, or an offset such as -05:00")
    if not 1970 <= found.year < 2200:
        raise Wrong("is not between 1970 and 2200: correct the year")
    return found.astimezone(UTC)


def number(value: str) -> Decimal:
    if not NUMBER.fullmatch(filled(value)):
        raise Wrong("is not a number: write digits with a point, such as 1234.5, without separators or units")
    if len(value.partition(".")[2].rstrip("0")) > DECIMALS:
        raise Wrong(f"has more than {DECIMALS} decimals: round it")
    if abs(found := Decimal(value)) >= LIMIT:
        raise Wrong(f"is too large: it must be below {LIMIT}")
    return found


def quantity(value: str) -> Decimal:
    if not (found := number(value)):
        raise Wrong("buys and sells nothing: write + bought or - sold, or take the row out")
    return found


def price(value: str) -> Decimal:
    if (found := number(value)) <= 0:
        raise Wrong("is not above 0: write what one share or unit cost")
    return found


def fee(value: str) -> Decimal:
    if (found := number(value or "0")) < 0:
        raise Wrong("is below 0: write what was paid, without a sign")
    return found


def currency(value: str) -> str:
    if value and not CURRENCY.fullmatch(value):
        raise Wrong("is no currency: write its code in capitals, such as USD")
    return value


COLUMNS: dict[str, Callable[[str], Any]] = {
    "account": filled, "symbol": filled, "executed_at": moment, "quantity": quantity, "price": price, "fee": fee, "currency": currency, "note": str,
}  # fmt: skip
