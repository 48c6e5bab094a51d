"""The user's positions, by the method of average cost, and where they stand in the warehouse.

A position is signed: below 0 it is short. What opens or adds to it changes its cost, the fee included; what reduces it
realises (price - average cost) x what was sold, mirrored for a short one, less the fee, and leaves the average cost as it
is. A fill that crosses zero closes the one position and opens the other, and its fee is split in that proportion. So at
any moment realised P&L = cost - all that was paid, fees included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from pathlib import Path

import duckdb

from .fills import BadPositions, Fill, content_of, read

#: `fills` is in the order of time. `positions` holds one row: the content that `fills` was made from and the code that
#: made them, by their hash (empty if there is no file), and the one that the portfolio was made from.
TABLES = """
create table if not exists bronze.fills (place bigint not null, line bigint not null, account varchar not null,
  symbol varchar not null, executed_at timestamptz not null, quantity decimal(18, 8) not null, price decimal(18, 8) not null,
  fee decimal(18, 8) not null, currency varchar not null, note varchar not null, held decimal(38, 8) not null,
  cost decimal(38, 8) not null, average_cost decimal(38, 8), realized_pnl decimal(38, 8) not null);
create table if not exists bronze.positions (content varchar not null, used varchar);
"""

TYPES = ("bigint", "bigint", "varchar", "varchar", "timestamptz", *["decimal(18, 8)"] * 3, "varchar", "varchar", *["decimal(38, 8)"] * 4)

#: A cost is divided by quantities again and again; what is stored of it has 8 decimals.
EXACT = Context(prec=60)
STORED = Decimal("1e-8")

#: A position as large as this has no market value that a DECIMAL(38,16) holds.
LARGEST = 10**11

#: What decides what is made of a file: a version of this program that counts otherwise reads it again.
CODE = b"".join(Path(__file__).with_name(name).read_bytes() for name in ("fills.py", "positions.py"))

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True)
class Holding:
    """What an account has of a symbol: `quantity` shares or units, bought (or sold short: then both are below 0) for
    `cost`, and what it has realised so far."""

    quantity: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    realized: Decimal = Decimal(0)

    def average_cost(self) -> Decimal | None:
        return self.cost / self.quantity if self.quantity else None

    def after(self, fill: Fill) -> Holding:
        closes = Decimal(0)
        if self.quantity * fill.quantity < 0:
            closes = min(abs(fill.quantity), abs(self.quantity)).copy_sign(fill.quantity)
        opens = fill.quantity - closes
        fee_of_closing = fill.fee * closes / fill.quantity
        cost_of_closed = -self.cost * closes / self.quantity if closes else Decimal(0)
        return Holding(
            self.quantity + fill.quantity,
            self.cost - cost_of_closed + opens * fill.price + (fill.fee - fee_of_closing),
            self.realized - closes * fill.price - cost_of_closed - fee_of_closing,
        )


def holdings(fills: Iterable[Fill]) -> list[tuple[Fill, Holding]]:
    """Each fill, in order, with what the account has of the symbol after it."""
    now: dict[tuple[str, str], Holding] = {}
    found = []
    with localcontext(EXACT):
        for fill in fills:
            key = fill.account, fill.symbol
            now[key] = now.get(key, Holding()).after(fill)
            found.append((fill, now[key]))
    return found


def load(connection: Connection, path: Path | None) -> str | None:
    """Stores what the file says, if that is new. Returns why it cannot be used, and then what is stored stays."""
    try:
        content = content_of(path) if path else b""
        digest = hashlib.sha256(CODE + content).hexdigest() if path else ""
        if connection.execute("select content from bronze.positions").fetchone() != (digest,):
            found = holdings(read(path, content)) if path else []
            check(path, found)
            store(connection, digest, found)
    except BadPositions as error:
        return str(error)
    return None


def check(path: Path | None, found: list[tuple[Fill, Holding]]) -> None:
    too_large = [
        f"{path}:{fill.line}: makes a position of {holding.quantity} {fill.symbol} in account {fill.account}: "
        f"it must be below {LARGEST}; correct the column 'quantity'"
        for fill, holding in found
        if abs(holding.quantity) >= LARGEST
    ]
    if too_large:
        raise BadPositions(too_large)


def store(connection: Connection, digest: str, found: list[tuple[Fill, Holding]]) -> None:
    with localcontext(EXACT):
        rows = [
            [
                place, fill.line, fill.account, fill.symbol, fill.executed_at.isoformat(), fill.quantity, fill.price, fill.fee,
                fill.currency, fill.note, holding.quantity, holding.cost, holding.average_cost(), holding.realized,
            ]
            for place, (fill, holding) in enumerate(found)
        ]  # fmt: skip
        columns = [[stored(value) for value in column] for column in zip(*rows, strict=True)]
    connection.begin()
    try:
        connection.execute("delete from bronze.fills")
        if columns:
            values = ", ".join(f"cast(unnest(?::varchar[]) as {kind})" for kind in TYPES)
            connection.execute(f"insert into bronze.fills select {values}", columns)
        connection.execute("delete from bronze.positions")
        connection.execute("insert into bronze.positions values (?, null)", [digest])
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def stored(value: object) -> str | None:
    """As text, a number with 8 decimals."""
    if isinstance(value, Decimal):
        value = f"{value.quantize(STORED):f}"
    return None if value is None else str(value)


def are_new(connection: Connection) -> bool:
    """Whether the portfolio was made from other positions than those that are stored."""
    return connection.execute("select count(*) > 0 from bronze.positions where used is distinct from content").fetchone()[0]


def there_are(connection: Connection) -> bool:
    return connection.execute("select count(*) > 0 from bronze.fills").fetchone()[0]
