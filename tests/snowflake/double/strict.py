"""Refuses what fakesnow, or DuckDB under it, takes and Snowflake does not. It sees words, not types or values."""

from __future__ import annotations

import re

import dynamic
import sqlglot
from sqlglot import exp
from sqlglot.tokens import Token, TokenType

#: Words that are no name without quotes.
RESERVED = frozenset(
    """
    all alter and any as between by case cast check column connect connection constraint create cross current database
    delete distinct drop else exists false following for from full grant group having ilike in increment inner insert
    intersect into is issue join lateral left like localtime localtimestamp minus natural not null of on or order
    organization qualify regexp revoke right rlike row rows sample schema select set some start table tablesample then to
    trigger true try_cast union unique update using values view when whenever where with
    """.split()
)

#: Functions that Snowflake's reference has. fakesnow hands a name that it does not know to DuckDB, which has many that
#: Snowflake lacks. Whoever needs another one looks it up there and adds it.
FUNCTIONS = frozenset(
    """
    abs array_agg array_construct array_generate_range array_size avg booland_agg boolor_agg ceil coalesce concat
    convert_timezone corr count covar_pop current_timestamp date_part date_trunc dateadd datediff dayofweekiso
    dense_rank div0 exp extract first_value flatten floor greatest iff ifnull lag last_value lead least left length
    listagg ln lower ltrim max max_by median min min_by mod ntile nullif nvl object_construct
    object_construct_keep_null parse_json percent_rank percentile_cont percentile_disc position power rank replace
    right round row_number rtrim sign split split_part sqrt stddev_pop stddev_samp strtok substr substring sum sysdate
    to_char to_date to_decimal to_json to_number to_timestamp_tz to_varchar trim trunc try_cast
    try_to_number upper var_pop variance_pop zeroifnull
    """.split()
)

#: Other words that a parenthesis may follow: types and clauses.
CLAUSES = frozenset(
    """
    char decimal exclude identifier materialized number numeric over overwrite timestamp_ntz timestamp_tz values varchar
    within
    """.split()
)

#: Statements that are the double's, the test's or dbt's own housekeeping.
EXEMPT = re.compile(r"(?i)\s*(show|describe|desc|use|alter session|copy|put|create (or replace )?(stage|file format|schema|database))\b")

#: What a dynamic table's lag may be.
LAG = re.compile(r"(?i)(\d+) (second|minute|hour|day)s?")
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
LEAST_LAG = 60

#: Another value at another time.
VOLATILE = (exp.CurrentTimestamp, exp.CurrentDate, exp.CurrentTime, exp.Rand, exp.Uuid)


class Refused(Exception):
    """Snowflake would not compile it. The text is what it would say, more or less."""


def check(sql: str) -> None:
    if EXEMPT.match(sql):
        return
    if made := dynamic.read(sql):
        look_at_dynamic(made)
        sql = made.query
    tokens = sqlglot.tokenize(sql, read="snowflake")
    for n, token in enumerate(tokens):
        before = tokens[n - 1] if n else None
        after = tokens[n + 1] if n + 1 < len(tokens) else None
        look(before, token, after)
    for statement in parsed(sql):
        for node in statement.walk() if statement else ():
            look_at_node(node)


def look_at_dynamic(made: dynamic.Dynamic) -> None:
    """Of what Snowflake demands of a dynamic table that it is to refresh by what has changed."""
    lag, warehouse, mode = (made.options.get(option, "") for option in ("target_lag", "warehouse", "refresh_mode"))
    if not warehouse:
        raise Refused("a dynamic table needs a WAREHOUSE")
    found = LAG.fullmatch(lag)
    if lag.lower() != "downstream" and not (found and int(found[1]) * SECONDS[found[2].lower()] >= LEAST_LAG):
        raise Refused(f"invalid TARGET_LAG '{lag}': DOWNSTREAM, or at least {LEAST_LAG} seconds")
    if mode.lower() != "incremental":
        return
    for statement in parsed(made.query):
        for node in statement.walk() if statement else ():
            if isinstance(node, VOLATILE) and not node.find_ancestor(exp.Where, exp.Having, exp.Qualify):
                raise Refused(f"incremental refresh: {node.sql('snowflake')} outside of WHERE, HAVING and QUALIFY")
            if isinstance(node, exp.Select) and isinstance(node.parent, (exp.Exists, exp.In, exp.Subquery)) and not is_relation(node):
                raise Refused("incremental refresh: a subquery outside of FROM")


def is_relation(select: exp.Select) -> bool:
    """It stands where a table may, or is the whole statement in parentheses."""
    outer = select.parent
    while isinstance(outer, exp.Subquery) and isinstance(outer.parent, exp.Subquery):
        outer = outer.parent
    return isinstance(outer, exp.Subquery) and (outer.parent is None or isinstance(outer.parent, (exp.From, exp.Join, exp.Lateral)))


def parsed(sql: str) -> list[exp.Expr | None]:
    try:
        return sqlglot.parse(sql, read="snowflake")
    except sqlglot.ParseError as error:
        raise Refused(f"syntax error: {error.errors[0]['description'] if error.errors else error}") from error


def look(before: Token | None, token: Token, after: Token | None) -> None:
    if token.token_type in (TokenType.STRING, TokenType.IDENTIFIER, TokenType.NUMBER):
        return
    word = token.text.lower()
    follows = after.token_type if after else None
    if word == "from" and (before is None or before.token_type == TokenType.L_PAREN):
        raise Refused("syntax error: unexpected 'FROM' (no SELECT)")
    if word in ("timestamptz", "timestamp_tz") and follows == TokenType.STRING:
        raise Refused(f"syntax error: unexpected string after '{word}' (cast it instead)")
    if word == "interval" and follows != TokenType.STRING:
        raise Refused("syntax error: INTERVAL takes one string")
    if word in ("anti", "semi", "positional") and after and after.text.lower() == "join":
        raise Refused(f"syntax error: {word.upper()} JOIN")
    called = follows == TokenType.L_PAREN and re.fullmatch(r"[a-z_]\w*", word)
    # After these it is the name of a table or an alias, with its columns.
    named = before is not None and (before.token_type in (TokenType.DOT, TokenType.R_PAREN) or before.text.lower() in ("into", "table", "view", "as"))
    if called and not named and word not in FUNCTIONS | CLAUSES | RESERVED:
        raise Refused(f"Unknown function {word.upper()}")


def look_at_node(node: exp.Expr) -> None:
    if isinstance(node, exp.Identifier) and not node.quoted and node.name.lower() in RESERVED:
        raise Refused(f"syntax error: unexpected '{node.name}' (a reserved word)")
    if isinstance(node, exp.Filter):
        raise Refused("syntax error: FILTER of an aggregate")
    if isinstance(node, exp.Insert) and node.args.get("by_name"):
        raise Refused("syntax error: INSERT BY NAME")
    if isinstance(node, exp.Distinct) and node.args.get("on"):
        raise Refused("syntax error: DISTINCT ON")
