"""The double refuses what Snowflake refuses, where words alone can tell: else a model could pass here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import snowflake.connector
from account import Account, Double
from snowflake.connector.errors import ProgrammingError

REFUSED = {
    "select start from t": "reserved",
    "create table u (rows bigint)": "reserved",
    "from t": "no SELECT",
    "select * from (from t)": "no SELECT",
    "select bool_or(a > 1) from t": "Unknown function BOOL_OR",
    "select string_split(b, ',') from t": "Unknown function STRING_SPLIT",
    "select timestamptz '2026-01-01 00:00:00+00'": "cast it",
    "select current_timestamp() + interval 1 minute": "INTERVAL",
    "select sum(a) filter (where a > 1) from t": "FILTER",
    "select distinct on (a) b from t": "DISTINCT ON",
    "insert into t by name select 1 as a": "BY NAME",
    "select t.a from t anti join t as u on t.a = u.a": "ANTI",
    "select sum(a) over w from t window w as (order by b)": "syntax error",
    "select a from t where": "syntax error",
    "select no_such_column from t": "NO_SUCH_COLUMN",
}

TAKEN = {
    'select s."start" from (select 1 as "start") s': [(1,)],
    "select boolor_agg(a > 1), booland_agg(a > 1) from t": [(True, False)],
    "select b from t qualify row_number() over (order by a desc) = 1": [("y",)],
    "select '2026-01-01 00:00:00+00'::timestamptz < '2026-01-01 00:01:00+00'::timestamptz": [(True,)],
    "select greatest(a, null), least(a, null) from t where a = 1": [(None, None)],
    "select v.n from (values (1), (2)) v(n) order by 1": [(1,), (2,)],
}


@pytest.fixture(scope="module")
def cursor(double: Double) -> Iterator[snowflake.connector.cursor.SnowflakeCursor]:
    with Account.connect(double, "DOUBLE") as connection, connection.cursor() as cursor:
        cursor.execute("create table t (a bigint, b varchar)")
        cursor.execute("insert into t values (1, 'x'), (2, 'y')")
        yield cursor


@pytest.mark.parametrize(("sql", "said"), REFUSED.items())
def test_what_snowflake_refuses_is_refused(cursor: snowflake.connector.cursor.SnowflakeCursor, sql: str, said: str) -> None:
    with pytest.raises(ProgrammingError, match=said):
        cursor.execute(sql)


#: Options and query of a dynamic table, and what is said of them.
REFUSED_DYNAMIC = {
    ("target_lag = '59 seconds' warehouse = test", "select a from t"): "TARGET_LAG",
    ("target_lag = '1 moment' warehouse = test", "select a from t"): "TARGET_LAG",
    ("warehouse = test", "select a from t"): "TARGET_LAG",
    ("target_lag = '1 minute'", "select a from t"): "WAREHOUSE",
    ("target_lag = '1 minute' warehouse = test", "select bool_or(a > 1) from t"): "Unknown function BOOL_OR",
    ("target_lag = '1 minute' warehouse = test refresh_mode = incremental", "select a, current_timestamp() as b from t"): "CURRENT_TIMESTAMP",
    ("target_lag = '1 minute' warehouse = test refresh_mode = incremental", "select a, sysdate() as b from t"): "SYSDATE",
    ("target_lag = '1 minute' warehouse = test refresh_mode = incremental", "select a from t where a in (select 1 as a)"): "subquery",
    ("target_lag = '1 minute' warehouse = test refresh_mode = incremental", "select a from t where exists (select b from t)"): "subquery",
    ("target_lag = '1 minute' warehouse = test refresh_mode = incremental", "select (select max(a) from t) as a from t"): "subquery",
}


@pytest.mark.parametrize(("options", "query", "said"), [(*made, said) for made, said in REFUSED_DYNAMIC.items()])
def test_a_dynamic_table_is_refused(cursor: snowflake.connector.cursor.SnowflakeCursor, options: str, query: str, said: str) -> None:
    with pytest.raises(ProgrammingError, match=said):
        cursor.execute(f"create dynamic table d {options} as ({query})")


def test_a_dynamic_table_follows_when_it_is_refreshed(cursor: snowflake.connector.cursor.SnowflakeCursor) -> None:
    """And with it those that it is made of, but none that is made of it."""

    def sums() -> list[int]:
        return [cursor.execute(f"select a from double.bronze.{name}").fetchone()[0] for name in ("one", "two", "three")]

    cursor.execute("create or replace table double.bronze.base (a bigint)")
    cursor.execute("insert into double.bronze.base values (1)")
    for name, of in (("one", "(select * from double.bronze.base) b"), ("two", "double.bronze.one"), ("three", "double.bronze.two")):
        cursor.execute(
            f"""create or replace dynamic table double.bronze.{name} target_lag = '1 minute' warehouse = test refresh_mode = INCREMENTAL
                as (with sums as (select sum(a) as a from {of} where current_timestamp() > '2026-01-01 00:00:00+00'::timestamptz)
                    select a from sums)"""
        )
    cursor.execute("insert into double.bronze.base values (2)")
    assert sums() == [1, 1, 1]
    cursor.execute("alter dynamic table double.bronze.two refresh")
    assert sums() == [3, 3, 1]
    (told,) = cursor.execute('show dynamic tables like \'TWO\' in schema "DOUBLE"."BRONZE"').fetchall()
    assert {column.name: value for column, value in zip(cursor.description, told, strict=True)}["target_lag"] == "1 minute"
    kinds = {row[0]: row[-1] for row in cursor.execute("show objects in double.bronze limit 100").fetchall()}
    assert (kinds["TWO"], kinds["BASE"]) == ("Y", "N")
    cursor.execute("drop dynamic table double.bronze.three")
    assert "THREE" not in {row[0] for row in cursor.execute("show objects in double.bronze limit 100").fetchall()}


@pytest.mark.parametrize(("sql", "rows"), TAKEN.items())
def test_what_snowflake_takes_is_taken(cursor: snowflake.connector.cursor.SnowflakeCursor, sql: str, rows: list[tuple]) -> None:
    assert cursor.execute(sql).fetchall() == rows


def test_decimals_are_summed_exactly_and_null_times_stay_null(cursor: snowflake.connector.cursor.SnowflakeCursor) -> None:
    sql = """select sum(x.n), min(cast(null as timestamptz)) from (values
               ('0.1000000000000001'::decimal(38, 16)), ('12345678901234567890.0000000000000002'::decimal(38, 16))) x(n)"""
    ((total, time),) = cursor.execute(sql).fetchall()
    assert (str(total), time) == ("12345678901234567890.1000000000000003", None)
