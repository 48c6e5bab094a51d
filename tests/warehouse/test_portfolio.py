"""The portfolio: positions by average cost, against a calculation in fractions that shares nothing with them; a positions
file that is wrong is told, and stops nothing."""

from __future__ import annotations

import random
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bronze import Bronze
from refining import PROJECT, Refiner, audit_of

sys.path.insert(0, str(PROJECT))

from refiner import fills, positions  # noqa: E402

HEADER = "account,symbol,executed_at,quantity,price,fee,currency,note\n"

#: What is stored has 8 decimals.
ROUNDING = Fraction(1, 10**8)

Row = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What is held after a fill: so many at an average cost each, and what was realised."""

    quantity: Fraction = Fraction(0)
    average: Fraction = Fraction(0)
    realized: Fraction = Fraction(0)

    def piece(self, quantity: Fraction, price: Fraction, fee: Fraction) -> Wanted:
        """After a fill that does not cross zero."""
        total = self.quantity + quantity
        if self.quantity * quantity >= 0:
            return Wanted(total, (self.quantity * self.average + quantity * price + fee) / total, self.realized)
        gained = (self.average - price) * quantity - fee
        return Wanted(total, self.average if total else Fraction(0), self.realized + gained)

    def after(self, quantity: Fraction, price: Fraction, fee: Fraction) -> Wanted:
        if self.quantity and (self.quantity > 0) != (self.quantity + quantity > 0) and self.quantity + quantity:
            share = abs(self.quantity / quantity)
            return self.piece(-self.quantity, price, fee * share).piece(self.quantity + quantity, price, fee * (1 - share))
        return self.piece(quantity, price, fee)


def wanted_of(found: list[fills.Fill]) -> list[Wanted]:
    now: dict[tuple[str, str], Wanted] = defaultdict(Wanted)
    after = []
    for fill in found:
        key = fill.account, fill.symbol
        now[key] = now[key].after(Fraction(fill.quantity), Fraction(fill.price), Fraction(fill.fee))
        after.append(now[key])
    return after


def some_fills(chance: random.Random, number: int) -> list[fills.Fill]:
    """In a few positions, that are closed, crossed and taken up again; with large and tiny amounts among them."""

    def amount(most: int, decimals: int) -> Decimal:
        return Decimal(chance.randint(1, most * 10**decimals)).scaleb(-decimals)

    at = datetime(2026, 11, 2, tzinfo=UTC)
    found, held = [], defaultdict(Decimal)
    for line in range(number):
        account, symbol = chance.choice(["main", "ira"]), chance.choice(["AAPL", "BINANCE:BTCUSDT"])
        quantity = amount(*chance.choice([(20, 0), (3, 8), (10**9, 2)])) * chance.choice([1, -1])
        if chance.random() < 0.2 and held[account, symbol]:
            quantity = -held[account, symbol]
        held[account, symbol] += quantity
        price, fee = amount(*chance.choice([(500, 2), (10**9, 8), (1, 8)])), chance.choice([Decimal(0), amount(20, 4)])
        found.append(fills.Fill(account, symbol, at + timedelta(hours=line), quantity, price, fee, "USD", "", line + 2))
    return found


def assert_same(found: list[fills.Fill]) -> None:
    paid: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
    for (fill, holding), wanted in zip(positions.holdings(found), wanted_of(found), strict=True):
        assert Fraction(holding.quantity) == wanted.quantity, fill
        for value, exact in ((holding.cost, wanted.quantity * wanted.average), (holding.realized, wanted.realized)):
            assert abs(Fraction(value) - exact) < ROUNDING / 1000, fill
        average = holding.average_cost()
        assert (average is None) == (not wanted.quantity), fill
        assert average is None or abs(Fraction(average) - wanted.average) < ROUNDING / 1000, fill
        paid[fill.account, fill.symbol] += Fraction(fill.quantity) * Fraction(fill.price) + Fraction(fill.fee)
        left = Fraction(holding.realized) - (Fraction(holding.cost) - paid[fill.account, fill.symbol])
        assert abs(left) < ROUNDING / 1000, "no money comes from nowhere"


@pytest.mark.parametrize("seed", range(60))
def test_average_cost_and_realised_p_and_l_of_random_fills(seed: int) -> None:
    chance = random.Random(f"fills {seed}")
    assert_same(some_fills(chance, chance.randint(1, 120)))


def test_the_check_of_fills_would_see_a_wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    found, right = some_fills(random.Random("control"), 100), positions.Holding.after
    no_fee = lambda self, fill: right(self, replace(fill, fee=Decimal(0)))  # noqa: E731
    no_crossing = lambda self, fill: replace(right(self, fill), cost=self.cost + fill.quantity * fill.price)  # noqa: E731
    for wrong in (no_fee, no_crossing):
        monkeypatch.setattr(positions.Holding, "after", wrong)
        with pytest.raises(AssertionError):
            assert_same(found)


def test_a_sale_a_short_position_and_a_crossing_in_numbers() -> None:
    at = datetime(2026, 11, 2, tzinfo=UTC)

    def after(*trades: tuple[str, str, str]) -> tuple[Decimal, ...]:
        found = [fills.Fill("a", "AAPL", at, *map(Decimal, trade), "USD", "", 2) for trade in trades]
        holding = positions.holdings(found)[-1][1]
        return holding.quantity, holding.average_cost(), holding.realized

    assert after(("10", "100", "5"), ("10", "110", "0")) == (20, Decimal("105.25"), 0), "the fee is part of the cost"
    assert after(("10", "100", "0"), ("-4", "120", "1")) == (6, 100, 79), "4 x 20 - 1"
    assert after(("-10", "100", "5"), ("4", "90", "1")) == (-6, Decimal("99.5"), 37), "4 x 9.5 - 1"
    assert after(("10", "100", "0"), ("-30", "130", "3")) == (-20, Decimal("129.9"), 299), "10 x 30 - 1; 2 of the fee are of the short one"
    assert after(("10", "100", "0"), ("-10", "90", "0")) == (0, None, -100)


BAD = {
    "empty": ("", ":1: there is no header"),
    "unknown": (HEADER.replace("note", "notes"), ":1: column 'notes' is not known: take it out, or name it one of account, symbol"),
    "missing": ("account,symbol,executed_at,price\n", ":1: column 'quantity' is missing: add it"),
    "twice": ("account,symbol,executed_at,quantity,price,price\n", ":1: column 'price' stands twice: keep one"),
    "semicolons": (HEADER.replace(",", ";"), ":1: columns are separated by ';': separate them by commas"),
    "too_few": (HEADER + "main,AAPL\n", ":2: has 2 values for 8 columns"),
    "too_many": (HEADER + "main,AAPL,2026-11-23T15:30:00Z,1,000,5,,,\n", ":2: has 9 values for 8 columns: write one each, and quote"),
    "quote": (HEADER + 'main,AAPL,2026-11-23T15:30:00Z,1,5,,,"a\n', ":2: is no CSV"),
    "no_account": ((" ", "AAPL", "2026-11-23T15:30:00Z", "1", "5", "", ""), "column 'account': '' is empty: write one"),
    "no_symbol": (("main", "", "2026-11-23T15:30:00Z", "1", "5", "", ""), "column 'symbol': '' is empty: write one"),
    "no_time": (("main", "AAPL", "23/11/2026", "1", "5", "", ""), "column 'executed_at': '23/11/2026' is no time: write it as 2026-"),
    "no_zone": (("main", "AAPL", "2026-11-23T15:30:00", "1", "5", "", ""), "has no time zone: add Z for UTC, or an offset such as -05:00"),
    "year": (("main", "AAPL", "2226-11-23T15:30:00Z", "1", "5", "", ""), "is not between 1970 and 2200: correct the year"),
    "word": (("main", "AAPL", "2026-11-23T15:30:00Z", "ten", "5", "", ""), "column 'quantity': 'ten' is not a number: write digits with a point"),
    "nan": (("main", "AAPL", "2026-11-23T15:30:00Z", "1", "NaN", "", ""), "column 'price': 'NaN' is not a number"),
    "exponent": (("main", "AAPL", "2026-11-23T15:30:00Z", "1e3", "5", "", ""), "column 'quantity': '1e3' is not a number"),
    "separator": (("main", "AAPL", "2026-11-23T15:30:00Z", "1", '"1,000"', "", ""), "column 'price': '1,000' is not a number"),
    "zero": (("main", "AAPL", "2026-11-23T15:30:00Z", "0.0", "5", "", ""), "column 'quantity': '0.0' buys and sells nothing: write + bought"),
    "free": (("main", "AAPL", "2026-11-23T15:30:00Z", "1", "0", "", ""), "column 'price': '0' is not above 0"),
    "negative": (("main", "AAPL", "2026-11-23T15:30:00Z", "1", "-5", "", ""), "column 'price': '-5' is not above 0"),
    "decimals": (("main", "AAPL", "2026-11-23T15:30:00Z", "0.123456789", "5", "", ""), "column 'quantity': '0.123456789' has more than 8 decimals"),
    "large": (("main", "AAPL", "2026-11-23T15:30:00Z", "1", "10000000000", "", ""), "column 'price': '10000000000' is too large"),
    "paid_back": (("main", "AAPL", "2026-11-23T15:30:00Z", "1", "5", "-1", ""), "column 'fee': '-1' is below 0: write what was paid, without a sign"),
    "fee_word": (("main", "AAPL", "2026-11-23T15:30:00Z", "1", "5", "$1", ""), "column 'fee': '$1' is not a number"),
    "currency": (("main", "AAPL", "2026-11-23T15:30:00Z", "1", "5", "", "dollar"), "column 'currency': 'dollar' is no currency"),
    "two_currencies": (
        HEADER + "main,AAPL,2026-11-23T15:30:00Z,1,5,,USD,\nira,AAPL,2026-11-23T15:30:00Z,1,5,,EUR,\nmain,AAPL,2026-11-23T15:30:00Z,1,5,,,\n",
        ":4: column 'currency': '' is not 'USD' of line 2",
    ),
    "too_much": (HEADER + 11 * "main,AAPL,2026-11-23T15:30:00Z,9999999999,5,,,\n", ":12: makes a position of 109999999989 AAPL in account main"),
    "latin": (HEADER.encode() + "main,AAPL,2026-11-23T15:30:00Z,1,5,,,für\n".encode("latin-1"), ":2: byte 0xfc is not UTF-8: save it as CSV in UTF-8"),
    "utf_16": (HEADER.encode("utf-16"), ":1: byte 0xff is not UTF-8"),
}  # fmt: skip


def content(text: Any) -> bytes:
    text = HEADER + ",".join(text) + ",\n" if isinstance(text, tuple) else text
    return text.encode() if isinstance(text, str) else text


@pytest.mark.parametrize("name", BAD)
def test_each_error_is_told_with_its_place_and_what_to_do(tmp_path: Path, name: str) -> None:
    text, said = BAD[name]
    path = tmp_path / "positions.csv"
    path.write_bytes(content(text))
    with duckdb.connect() as connection:
        connection.execute("create schema bronze")
        connection.execute(positions.TABLES)
        error = positions.load(connection, path)
        assert error, "taken for good"
        assert error.startswith(f"{path}:"), error
        assert said in error, error
        assert connection.execute("select count(*) from bronze.positions").fetchone() == (0,)


def test_all_errors_are_told_at_once_up_to_ten(tmp_path: Path) -> None:
    path = tmp_path / "positions.csv"
    path.write_text(HEADER + "main,,x,y,z,,,\n" + 20 * "main,AAPL,x,1,5,,,\n")
    with pytest.raises(fills.BadPositions) as told:
        fills.read(path, path.read_bytes())
    lines = str(told.value).splitlines()
    assert len(lines) == 11
    assert [line.split(": ")[0] for line in lines[:5]] == 4 * [f"{path}:2"] + [f"{path}:3"]
    assert lines[-1] == "and 14 more"


def test_what_spreadsheets_write_can_be_read(tmp_path: Path) -> None:
    """A mark at the beginning, line ends of Windows, quotes, blank rows, blanks, columns in another order and left out."""
    text = '\ufeffprice, quantity,account,symbol,executed_at,note\r\n"5.5", +2,main,BRK.B,2026-11-23 10:30:00-05:00,"a, ""b""\r\nc"\r\n,,,,,\r\n'
    text += ".5,-1.,main,BRK.B,2026-11-23T15:29:59Z,\r\n"
    first, second = fills.read(tmp_path, text.encode())
    assert (first.quantity, first.price, first.line) == (-1, Decimal("0.5"), 5)
    assert (second.quantity, second.price, second.fee, second.currency, second.note) == (2, Decimal("5.5"), 0, "", 'a, "b"\r\nc')
    assert second.executed_at - first.executed_at == timedelta(seconds=1)


# The table, in the warehouse.

#: Times of day in UTC (winter), and what they are for New York.
TIMES = {"13:00": "pre", "15:00": "regular", "20:30": "regular", "22:00": "post"}
SYMBOLS = ["AAPL", "MSFT", "BINANCE:BTCUSDT", "NEVER"]
COLUMNS = (
    "quantity", "average_cost", "cost", "last_price", "price_date", "market_value", "realized_pnl", "unrealized_pnl", "total_pnl",
    "exposure", "account_market_value", "account_pnl", "account_unpriced", "drawdown", "max_drawdown",
)  # fmt: skip


def add_trades(bronze: Bronze, chance: random.Random, days: range) -> None:
    for day in days:
        for symbol in SYMBOLS[:3]:
            for time in TIMES:
                at = datetime.fromisoformat(f"2026-11-{day:02} {time}+00:00")
                # MSFT is first traded later, and on its first day out of hours alone; the US do not trade at the weekend.
                is_open = symbol == "BINANCE:BTCUSDT" or (at.weekday() < 5 and (symbol != "MSFT" or day > 10 or (day == 10 and time == "22:00")))
                if is_open and chance.random() < 0.7:
                    bronze.add("trades", symbol=symbol, event_time=at, price=str(Decimal(chance.randint(10000, 14000)).scaleb(-2)), size="1", received_at=at)


def closes(bronze: Bronze) -> dict[tuple[str, bool], dict[date, Fraction]]:
    """By symbol and whether it is the main session, the last price of each date."""
    found: dict[tuple[str, bool], dict[date, Fraction]] = defaultdict(dict)
    for symbol, at, price in bronze.connection.execute("select symbol, event_time, price from trades order by event_time").fetchall():
        is_main = ":" in symbol or TIMES[f"{at.astimezone(UTC):%H:%M}"] == "regular"
        found[symbol, is_main][at.astimezone(UTC).date()] = Fraction(price)
    return found


def portfolio_of(found: list[fills.Fill], prices: dict[tuple[str, bool], dict[date, Fraction]]) -> dict[tuple[str, str, date], Row]:
    """The table, computed here."""

    def date_of(fill: fills.Fill) -> date:
        return (fill.executed_at - timedelta(hours=0 if ":" in fill.symbol else 5)).date()

    dates = sorted({day for by_day in prices.values() for day in by_day} | {date_of(fill) for fill in found})
    after = list(zip(found, wanted_of(found), strict=True))
    rows: dict[tuple[str, str, date], Row] = {}
    peak: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
    deepest: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
    for day in dates:
        held = {(fill.account, fill.symbol): (fill.currency, holding) for fill, holding in after if date_of(fill) <= day}
        today: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for (account, symbol), (currency, holding) in held.items():
            main = [d for d in prices[symbol, True] if d <= day]
            other = [d for d in prices[symbol, False] if d <= day]
            at = max(main or other, default=None)
            price = None if at is None else prices[symbol, bool(main)][at]
            value = Fraction(0) if not holding.quantity else None if price is None else holding.quantity * price
            cost = holding.quantity * holding.average
            row = {
                "quantity": holding.quantity, "average_cost": holding.average if holding.quantity else None, "cost": cost, "last_price": price,
                "price_date": at, "market_value": value, "realized_pnl": holding.realized,
                "unrealized_pnl": None if value is None else value - cost, "total_pnl": None if value is None else holding.realized + value - cost,
            }  # fmt: skip
            rows[account, symbol, day] = row
            today[account, currency].append(row)
        for key, of_account in today.items():
            values = [row["market_value"] for row in of_account if row["market_value"] is not None]
            pnl = sum(row["realized_pnl"] if row["total_pnl"] is None else row["total_pnl"] for row in of_account)
            peak[key] = max(peak[key], pnl)
            deepest[key] = max(deepest[key], peak[key] - pnl)
            gross = sum(abs(value) for value in values)
            for row in of_account:
                row |= {
                    "account_market_value": sum(values), "account_pnl": pnl, "account_unpriced": len(of_account) - len(values),
                    "drawdown": peak[key] - pnl, "max_drawdown": deepest[key],
                    "exposure": row["market_value"] / gross if gross and row["market_value"] is not None else None,
                }  # fmt: skip
    return rows


def published(refiner: Refiner) -> dict[tuple[str, str, date], Row]:
    table = refiner.manifest()["tables"]["portfolio"]
    with duckdb.connect() as connection:
        found = connection.execute("from read_parquet(?)", [[str(refiner.gold / file) for file in table["files"]]]) if table["files"] else None
        names = [column[0] for column in found.description] if found else []
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()] if found else []
    by_key = {(row["account"], row["symbol"], row["trading_date"]): row for row in rows}
    assert len(by_key) == len(rows) == table["rows"]
    return by_key


def assert_portfolio(found: dict[tuple[str, str, date], Row], wanted: dict[tuple[str, str, date], Row]) -> None:
    assert found.keys() == wanted.keys()
    for key, row in found.items():
        for name in COLUMNS:
            value, exact = row[name], wanted[key][name]
            if value is None or exact is None or name == "price_date":
                assert value == exact, (key, name)
            elif name == "exposure":
                assert value == pytest.approx(float(exact), rel=1e-9), (key, name)
            else:
                assert abs(Fraction(value) - exact) < 10 * ROUNDING, (key, name, value, float(exact))


def write(path: Path, chance: random.Random, number: int) -> list[fills.Fill]:
    """Fills of two accounts from before the first bar to after the last, in any order, one account in two currencies;
    beside them one that loses from its first day, and one whose fill is of the evening before in New York."""
    rows = ["loser,AAPL,2026-11-06T15:00:00+00:00,1,500,,USD,\n", "night,AAPL,2026-11-06T02:00:00+00:00,1,100,,USD,\n"]
    for _ in range(number):
        symbol = chance.choice(SYMBOLS)
        at = datetime(2026, 10, 28, tzinfo=UTC) + timedelta(minutes=chance.randrange(24 * 24 * 60))
        account, quantity = chance.choice(["main", "ira"]), chance.choice([1, -1]) * Decimal(chance.randint(1, 9999)).scaleb(-2)
        currency = "USDT" if ":" in symbol and account == "main" else "" if account == "ira" else "USD"
        price, fee = Decimal(chance.randint(1, 50000)).scaleb(-2), chance.choice(["", "0.35"])
        rows.append(f"{account},{symbol},{at.isoformat()},{quantity},{price},{fee},{currency},\n")
    path.write_text(HEADER + "".join(rows))
    return fills.read(path, path.read_bytes())


def test_the_table_is_what_fills_and_closes_give(home: Path, bronze: Bronze, tmp_path: Path) -> None:
    chance, path = random.Random("portfolio"), tmp_path / "my positions.csv"
    add_trades(bronze, chance, range(5, 11))
    first = bronze.count("trades")
    found = write(path, chance, 15)
    with Refiner(home, positions=str(path)) as refiner:
        assert refiner.refine([bronze.slot("trades", 0, first - 1)])["portfolio_error"] is None
        wanted = portfolio_of(found, closes(bronze))
        assert any(row["last_price"] is None for row in wanted.values())
        assert any(row["drawdown"] for row in wanted.values())
        assert_portfolio(published(refiner), wanted)
        add_trades(bronze, chance, range(11, 18))
        last = bronze.slot("trades", first, bronze.count("trades") - 1)
        refiner.refine([last])
        assert_portfolio(published(refiner), portfolio_of(found, closes(bronze)))
        files = refiner.manifest()["tables"]
        found = write(path, chance, 60)
        refiner.refine([])
        wanted = portfolio_of(found, closes(bronze))
        assert_portfolio(published(refiner), wanted)
        tables = refiner.manifest()["tables"]
        assert {name for name in tables if tables[name] != files[name]} == {"portfolio"}, "the positions alone have changed"
        run = refiner.manifest()["run"]
        assert refiner.refine([])["run"] == run
        refiner.refine([], full_refresh=True)
        assert_portfolio(published(refiner), wanted)
    assert audit_of(home)["gold"]["faults"] == []
    assert audit_of(home)["gold"]["notes"] == [], "where the positions lie is no rule"


def test_a_bad_file_is_told_and_the_last_good_positions_stay(home: Path, bronze: Bronze, tmp_path: Path) -> None:
    path, good = tmp_path / "positions.csv", HEADER + "main,AAPL,2026-11-23T15:30:00Z,2,90,,USD,\n"
    for _ in range(20):
        bronze.add("trades")
    with Refiner(home, positions=str(path)) as refiner:
        done = refiner.refine([bronze.slot("trades", 0, 4)])
        assert "is no file: make it" in done["portfolio_error"]
        assert published(refiner) == {}
        path.write_text(good)
        assert refiner.refine([])["portfolio_error"] is None
        held = published(refiner)
        assert [(row["quantity"], row["unrealized_pnl"]) for row in held.values()] == [(2, 20)]
        for bad in (lambda: path.write_text(good + "main,AAPL\n"), path.unlink):
            bad()
            done = refiner.refine([bronze.slot("trades", 5, 9)])
            assert f"{path}" in done["portfolio_error"]
            assert done["rows"]["silver.trades"] == 10, "the feed goes on"
            assert published(refiner) == held
            assert not refiner.manifest().get("failing")
        path.write_text(good)
        assert refiner.refine([])["portfolio_error"] is None
    with Refiner(home) as refiner:
        refiner.refine([])
        assert published(refiner) == {}, "no file is configured: there are no positions"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x.is_main = (p.main_date is not null)", "x.is_main"),
        ("greatest(0, max(pnl)", "(max(pnl)"),
        ("{{ trading_date('symbol', 'executed_at') }}", "cast(executed_at as date)"),
    ],
)
def test_the_check_would_see_a_wrong_table(home: Path, bronze: Bronze, tmp_path: Path, old: str, new: str) -> None:
    project = Path(shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__")))
    model = project / "models/gold/portfolio.sql"
    text = model.read_text()
    assert text.count(old) == 1
    model.write_text(text.replace(old, new))
    chance, path = random.Random("control"), tmp_path / "positions.csv"
    add_trades(bronze, chance, range(5, 14))
    found = write(path, chance, 60)
    with Refiner(home, positions=str(path), project=project) as refiner:
        refiner.refine([bronze.slot("trades", 0, bronze.count("trades") - 1)])
        with pytest.raises(AssertionError):
            assert_portfolio(published(refiner), portfolio_of(found, closes(bronze)))
