"""A double of Snowflake for tests: fakesnow's server (DuckDB in memory) made to do what dbt-snowflake asks of it.

It shows that the models compile for Snowflake and that their logic gives the rows that it gives on DuckDB. It cannot
show that a real account behaves so: types, precision of arithmetic, collation, time zones, transactions, locks, cost and
rights are DuckDB's or missing. What of that is known and matters is said where the SQL is written for it, and what can
be told from the words alone is refused here (`strict`). What its dynamic tables are says `dynamic`. Nobody may run
anything but tests on it: it takes any password.

Run: python double PORT
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import uuid
from typing import Any

import dynamic
import fakesnow.arrow
import fakesnow.server as fakesnow_server
import pyarrow
import snowflake.connector.errors
import sqlglot
import strict
import uvicorn
from fakesnow import transforms
from fakesnow.cursor import FakeSnowflakeCursor
from sqlglot import exp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

#: SQL that stands for what a MERGE returns. dbt only looks whether there is an answer: the counts mean nothing.
MERGED = 'select 0 as "number of rows inserted", 0 as "number of rows updated"'


def merge(statement: exp.Expr) -> list[exp.Expr]:
    """DuckDB has MERGE itself; fakesnow's own emulation of it fails on an aliased source, as dbt's is."""
    if not isinstance(statement, exp.Merge):
        return [statement]
    return [statement, sqlglot.parse_one(MERGED, read="duckdb")]


def unchanged(node: exp.Expr) -> exp.Expr:
    return node


transforms.merge = merge
# It makes doubles of what is summed, in case it is text. Sums of decimals are exact, as on Snowflake.
transforms.numeric_agg_implicit_cast = unchanged


times_as_fakesnow = fakesnow.arrow.timestamp_to_sf_struct


def times(column: pyarrow.ChunkedArray) -> pyarrow.StructArray:
    """As fakesnow has them, but null stays null: there it is the beginning of 1970."""
    known = times_as_fakesnow(column)
    return pyarrow.StructArray.from_arrays(known.flatten(), fields=list(known.type), mask=column.combine_chunks().is_null())


fakesnow.arrow.timestamp_to_sf_struct = times

execute_as_fakesnow = FakeSnowflakeCursor.execute


def execute(cursor: FakeSnowflakeCursor, *arguments: Any, **more: Any) -> FakeSnowflakeCursor:
    """What DuckDB cannot run is an error of the statement. fakesnow answers with a failure of the server, after which
    the connector asks again for minutes."""
    try:
        return execute_as_fakesnow(cursor, *arguments, **more)
    except snowflake.connector.errors.Error:
        raise
    except Exception as error:
        said = f"the double cannot run this: {type(error).__name__}: {error}"
        raise snowflake.connector.errors.ProgrammingError(msg=said[:2000], errno=603, sqlstate="XX000") from error


FakeSnowflakeCursor.execute = execute


def rewrite(sql: str) -> str:
    """What Snowflake can run and DuckDB cannot, said otherwise."""
    # DuckDB has what is temporary in a catalog of its own alone. dbt drops it itself when it is done.
    return re.sub(r"(?i)\btemporary\s+(view|table)\b", r"\1", sql, count=1)


def without_comments(sql: str) -> str:
    """dbt puts one before each statement."""
    return re.sub(r"(?s)/\*.*?\*/", " ", sql)


async def body_of(request: Request) -> dict[str, Any]:
    body = await request.body()
    return json.loads(gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body)


def with_body(request: Request, body: dict[str, Any]) -> Request:
    scope = dict(request.scope)
    scope["headers"] = [(k, v) for k, v in scope["headers"] if k not in (b"content-encoding", b"content-length")]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    return Request(scope, receive)


def failed(code: str, message: str, state: str = "42000") -> JSONResponse:
    data = {"internalError": False, "errorCode": code, "age": 0, "sqlState": state, "queryId": str(uuid.uuid4()), "line": -1, "pos": -1}
    return JSONResponse({"data": data, "code": code, "message": message, "success": False})


async def login(request: Request) -> Response:
    body = await body_of(request)
    body["data"].setdefault("SESSION_PARAMETERS", {})
    answer = json.loads((await fakesnow_server.login_request(with_body(request, body))).body)
    answer["data"] |= {"masterToken": "none", "sessionId": 1, "validityInSeconds": 3600, "masterValidityInSeconds": 14400}
    answer["data"]["sessionInfo"] |= {
        "roleName": request.query_params.get("roleName"),
        "warehouseName": request.query_params.get("warehouse"),
    }
    return JSONResponse(answer | {"code": None, "message": None})


async def query(request: Request) -> Response:
    body = await body_of(request)
    sql = without_comments(body["sqlText"])
    try:
        strict.check(sql)
    except strict.Refused as refused:
        return failed("001003", f"SQL compilation error:\n{refused}")
    for statement in dynamic.statements(sql) or [rewrite(sql)]:
        answer = await fakesnow_server.query_request(with_body(request, body | {"sqlText": statement}))
        if answer.status_code != 200 or not json.loads(answer.body)["success"]:
            break
    if answer.status_code == 500:  # a type that fakesnow has no name for
        return failed("000603", f"the double cannot answer this: {json.loads(answer.body)['message'][:2000]}", "XX000")
    return answer


OURS = [
    Route("/ready", lambda _: Response()),
    Route("/session/v1/login-request", login, methods=["POST"]),
    Route("/queries/v1/query-request", query, methods=["POST"]),
]
app = Starlette(routes=OURS + [route for route in fakesnow_server.routes if route.path not in {ours.path for ours in OURS}])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
