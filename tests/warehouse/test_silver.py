"""What becomes of records on their way into Silver."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from bronze import SESSION, Bronze
from conftest import LONG, assert_same
from measure import simulate
from refining import Refiner, edit

OTHER = "0199d1f0-7c00-7000-8000-000000000002"


def rows(refiner: Refiner, query: str) -> list[tuple[Any, ...]]:
    """Asks the file after the process has ended."""
    with duckdb.connect(str(refiner.db), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        return connection.execute(query).fetchall()


def test_equal_values_are_separate_trades_and_an_equal_identity_is_a_repeat(home: Path, bronze: Bronze) -> None:
    for _ in range(3):
        bronze.add("trades")  # frames 1, 2, 3: equal in all values
    bronze.add("trades", session=OTHER, frame=1)  # another session, same frame and place
    bronze.add("trades", frame=2)  # the second of them again, later in the log: a resend
    bronze.add("trades", frame=2)
    with Refiner(home) as refiner:
        assert refiner.refine([bronze.slot("trades", 0, 1)])["rows"]["silver.trades"] == 2
        assert refiner.refine([bronze.slot("trades", 2, 3), bronze.slot("trades", 4, 5)])["rows"]["silver.trades"] == 4
        assert refiner.audit()["streams"]["trades"] == {"rows": 4, "distinct": 4, "kept": 4}
        ((bar,),) = [list(refiner.bars().values())]
        assert (bar[4], bar[6]) == (Decimal(40), 4)
    found = rows(refiner, "select session, frame, silver_run from silver.trades order by all")
    assert found == [(SESSION, 1, 1), (SESSION, 2, 1), (SESSION, 3, 2), (OTHER, 1, 2)]
    assert rows(refiner, "select model, run, arrived, kept from bronze.loads where model = 'stg_trades' order by run") == [
        ("stg_trades", 1, 2, 2),
        ("stg_trades", 2, 4, 2),
    ]


REJECTED = {
    "price_not_positive": {"price": "0"},
    "size_negative": {"size": "-1"},
    "price_missing": {"price": None},
    "size_missing": {"size": None},
    "time_missing": {"event_time": None},
    "time_out_of_range": {"event_time": "12000-01-01 00:00:00+00"},
    "symbol_missing": {"symbol": ""},
    "amount_out_of_range": {"price": "9999999999", "size": "9999999999"},
}


def test_a_broken_rule_rejects_a_trade_and_stops_nothing(home: Path, bronze: Bronze) -> None:
    for values in REJECTED.values():
        bronze.add("trades", **values)
    bronze.add("trades", price="-0.5")
    bronze.add("trades", price="0", size="0", price_update=True)  # a quote, not a trade
    bronze.add("trades", price="9999999999.99999999", size="1000.00000001")  # big and exact
    total = bronze.count("trades")
    with Refiner(home) as refiner:
        done = refiner.refine([bronze.slot("trades", 0, total - 1)])
        assert (done["rows"]["silver.trades"], done["rows"]["silver.rejected_trades"]) == (2, len(REJECTED) + 1)
        assert refiner.audit()["streams"]["trades"] == {"rows": total, "distinct": total, "kept": total}
        ((bar,),) = [list(refiner.bars().values())]
        assert bar[5] == Decimal("9999999999.99999999") * Decimal("1000.00000001")
    found = rows(refiner, "select rule from silver.rejected_trades order by frame")
    assert [rule for (rule,) in found] == [*REJECTED, "price_not_positive"]


def test_ten_thousand_of_the_largest_amounts_fit_a_bar(home: Path, bronze: Bronze) -> None:
    bronze.connection.execute(
        f"""insert into trades select '{SESSION}', i, 0, i, i, 'finnhub', 'BIG', 99999999.99999999, 99999999.99999999,
            timestamptz '2026-11-23 15:00:00+00', timestamptz '2026-11-23 15:00:01+00', null, false, false, false from range(10000) t(i)"""
    )
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 9999)])
        ((bar,),) = [list(refiner.bars().values())]
        assert bar[4] == 10000 * Decimal("99999999.99999999")
        assert bar[5] == 10000 * Decimal("99999999.99999999") ** 2


def test_late_is_told_by_the_receipt_and_the_minute(home: Path, bronze: Bronze) -> None:
    for received in ("15:00:59", "15:01:04.999999", "15:01:05", "16:30:00"):
        bronze.add("trades", event_time="2026-11-23 15:00:10+00", received_at=f"2026-11-23 {received}+00")
    with Refiner(home) as refiner:
        refiner.refine([bronze.slot("trades", 0, 3)])
    assert rows(refiner, "select late from silver.trades order by frame") == [(False,), (False,), (True,), (True,)]


def test_a_record_that_killed_its_writer_is_in_quarantine_from_raw(home: Path, bronze: Bronze) -> None:
    for stream, number in (("trades", 6), ("gaps", 2), ("quarantine", 2)):
        for _ in range(number):
            bronze.add(stream, **({"session": OTHER} if stream == "quarantine" else {}))
    bronze.connection.execute("update gaps set frame = 100 + frame")
    slots = [bronze.poisoned("trades", 0, 3, 1, 2), bronze.slot("trades", 4, 5)]
    slots += [bronze.poisoned("gaps", 0, 1, 0, 1), bronze.poisoned("quarantine", 0, 1, 0)]
    with Refiner(home) as refiner:
        done = refiner.refine(slots)["rows"]
        assert (done["silver.trades"], done["silver.gaps"], done["silver.quarantine"]) == (4, 0, 2 + 2 + 2)
        refiner.refine(slots)  # again: nothing comes twice
        streams = refiner.audit()["streams"]
        assert streams["quarantine"] == {"rows": 6, "distinct": 6, "kept": 6}
        assert refiner.refine(slots, full_refresh=True)["rows"]["silver.quarantine"] == 6
    found = rows(refiner, f"select session = '{SESSION}', frame, reason, detail, raw from silver.quarantine order by all")
    died = "the writer of {} died of it three times; please report it"
    assert found == [
        (False, 1, "poison", died.format("quarantine"), '{"p":"0"}'),
        (False, 2, "test", "test", "{}"),
        (True, 2, "poison", died.format("trades"), '{"p":"1"}'),
        (True, 3, "poison", died.format("trades"), '{"p":"2"}'),
        (True, 101, "poison", died.format("gaps"), '{"p":"0"}'),
        (True, 102, "poison", died.format("gaps"), '{"p":"1"}'),
    ]
    at = rows(refiner, "select distinct received_at from silver.quarantine where reason = 'poison'")
    assert [str(when) for (when,) in at] == ["2026-11-23 15:00:30+00:00"]


def test_a_slot_that_names_poison_which_raw_does_not_hold_is_refused(home: Path, bronze: Bronze) -> None:
    for _ in range(4):
        bronze.add("trades")
    slot = bronze.poisoned("trades", 0, 3, 1)
    slot["poison"]["offsets"] = [9]
    with Refiner(home) as refiner:
        assert "names 1 records that only" in refiner.ask([slot])["error"]
    assert rows(refiner, "select count(*) from bronze.slots") == rows(refiner, "select count(*) from bronze.poison") == [(0,)]


def test_gaps_and_quarantine_come_with_their_own_runs(home: Path, bronze: Bronze) -> None:
    bronze.add("trades")
    bronze.add("gaps", symbols="AAPL,MSFT", previous_session=OTHER, reason="closed by peer")
    bronze.add("gaps", kind="session_end", frames=12, trades=80, quarantined=1, gaps=1)
    bronze.add("quarantine", reason="not_json", raw="////", raw_base64=True)
    with Refiner(home) as refiner:
        first = refiner.refine([bronze.slot("trades", 0, 0)])
        files = refiner.manifest()["tables"]
        done = refiner.refine([bronze.slot("gaps", 0, 1), bronze.slot("quarantine", 0, 0)])
        assert (done["rows"]["silver.gaps"], done["rows"]["silver.quarantine"]) == (2, 1)
        assert refiner.manifest()["run"] == done["run"] == first["run"] + 1
        tables = refiner.manifest()["tables"]
        changed = {name for name in tables if tables[name] != files[name]}
        assert changed == {"data_quality"}, "Gold is not written again for what does not touch it"
    assert rows(refiner, "select kind, trades, symbols from silver.gaps order by frame") == [("gap", None, "AAPL,MSFT"), ("session_end", 80, None)]


def test_an_object_may_lack_a_later_column_and_have_one_that_is_not_known(home: Path, bronze: Bronze) -> None:
    bronze.add("quarantine")
    slot = bronze.slot("quarantine", 0, 0)
    bronze.connection.execute("alter table quarantine drop column detail")
    bronze.connection.execute("alter table quarantine add column unknown integer")
    bronze.connection.execute("update quarantine set frame = 2, record_offset = 1")
    with Refiner(home) as refiner:
        refiner.refine([slot, bronze.slot("quarantine", 1, 1)])
    assert rows(refiner, "select frame, detail from silver.quarantine order by frame") == [(1, "test"), (2, None)]


def test_a_record_may_be_left_out_if_it_is_named_as_poison(home: Path, bronze: Bronze) -> None:
    for _ in range(3):
        bronze.add("trades")
    slot = bronze.poisoned("trades", 0, 2, 1)
    assert slot["rows"] == 3
    with Refiner(home) as refiner:
        assert refiner.ask([{**slot, "poison": None}])["event"] == "failed", "fewer rows than the slot says"
        assert refiner.refine([slot])["rows"]["silver.trades"] == 2


def test_paths_with_quotes_and_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "o'hara's data"
    bronze = Bronze(folder / "bronze's")
    bronze.connection.execute("create table t as select 1")
    bronze.add("trades")
    slot = quoted_slot(bronze)
    with Refiner(folder) as refiner:
        assert refiner.refine([slot])["rows"]["gold.ohlc_1m"] == 1
        assert len(refiner.bars()) == 1


def quoted_slot(bronze: Bronze) -> dict[str, Any]:
    file = bronze.folder / "trades-p0-g1-0-0.parquet"
    bronze.connection.execute("copy trades to '{}' (format parquet)".format(str(file).replace("'", "''")))
    return {
        "stream": "trades", "partition": 0, "generation": 1, "start": 0, "end": 0, "kind": "data", "rows": 1,
        "typed": str(file), "archive_hour": "2026-11-23T20",
    }  # fmt: skip


@pytest.mark.parametrize("table", ["cts_utp", "lean"] if LONG else ["cts_utp"])
def test_shuffled_slots_and_repeats_give_the_bars_of_the_tape(home: Path, bronze: Bronze, made_tape: Path, expected, table: str) -> None:
    """A tape in 60 slots in any order; every third slot's rows come twice, in a slot of their own."""
    total = bronze.add_tape(made_tape)
    slots = bronze.cut("trades", 60)
    again = [bronze.slot("trades", s["start"], s["end"] - 3, generation=2) for s in slots[::3]]
    everything = slots + again
    random.Random(7).shuffle(everything)
    with Refiner(home, sale_conditions=table) as refiner:
        while everything:
            refiner.refine([everything.pop() for _ in range(min(9, len(everything)))])
        assert refiner.audit()["streams"]["trades"] == {"rows": total, "distinct": total, "kept": total}
        assert_same(refiner.bars(), expected(made_tape, table))
        before = refiner.bars()
        refiner.refine([], full_refresh=True)
        assert refiner.audit()["streams"]["trades"] == {"rows": total, "distinct": total, "kept": total}
        assert refiner.bars() == before


@pytest.mark.parametrize(("control", "outcome"), [(False, "gold"), (True, "Out of Memory")])
def test_a_first_load_fits_less_memory_than_it_has_rows(home: Path, project: Path, bronze: Bronze, outcome: str, *, control: bool) -> None:
    """A million trades with a tenth of the usual memory, as ten million would have. The control sorts whole rows."""
    edit(project, "profiles.yml", "memory_limit: 2GB", "memory_limit: 220MB")
    if control:
        model = "models/silver/stg_trades.sql"
        text = (project / model).read_text()
        edit(project, model, text[text.index("with again as") : text.index("select\n  session,\n  frame,")], "")
        sorted_rows = "from {{ typed }} qualify row_number() over (partition by {{ identity }} order by record_offset) = 1 order by received_at\n"
        edit(project, model, "from records\n", sorted_rows)
    simulate(bronze, 1_000_000, 10)
    with Refiner(home, project=project) as refiner:
        refiner.send(cmd="refine", traceparent=None, slots=[bronze.slot("trades", first, first + 249_999) for first in range(0, 1_000_000, 250_000)])
        while (event := refiner.event()).get("phase") in ("load", "silver", "test") and event["event"] == "progress":
            pass
        assert outcome in event.get("error", event["phase"])
        refiner.kill()
