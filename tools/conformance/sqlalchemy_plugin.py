"""A pytest plugin: each Core statement of SQLAlchemy's own tests runs through our client as well.

For every statement that a test executes, on the same connection and each in a savepoint of its own:
first SQLAlchemy runs it, then our client, and the two answers are compared (rows, their order, keys,
rowcount, whether it fails). A query also runs as a prepared handle, twice, as `iterate`, with
``row_type=dict`` and as `count`. Then it runs as the test meant it, which knows of nothing.

What differs is appended to the file that ``CONFORMANCE_OUT`` names, a JSON object per line.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import base
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.elements import (
    ReleaseSavepointClause,
    RollbackToSavepointClause,
    SavepointClause,
)
from sqlalchemy.util.concurrency import await_only as await_  # its name in 2.0 too

from ws_pool._sql.client import SqlClient
from ws_pool._sql.compile.compiler import Compiler, CompilerSource, Prepared
from ws_pool._sql.context import SessionContext
from ws_pool._sql.mysql.connection import AiomysqlConnection, AsyncmyConnection
from ws_pool._sql.mysql.dialect import MysqlDialect
from ws_pool._sql.options import SqlOptions
from ws_pool._sql.postgres.asyncpg_connection import AsyncpgConnection
from ws_pool._sql.postgres.dialect import PostgresDialect
from ws_pool._sql.postgres.psycopg_connection import PsycopgConnection
from ws_pool._sql.session import Session
from ws_pool._sql.sqlite.connection import SqliteConnection
from ws_pool._sql.sqlite.dialect import SqliteDialect

OUT = Path(os.environ["CONFORMANCE_OUT"])
DRIVERS = ("aiomysql", "asyncmy", "aiosqlite", "asyncpg", "psycopg")
CONTROL = (
    SavepointClause,
    RollbackToSavepointClause,
    ReleaseSavepointClause,
)  # of the tests' own transactions
NOT_COMPARED = (ExecutableDDLElement, *CONTROL)
UNTESTED = ("schema_translate_map", "stream_results")  # options that make it another statement

_CLOCK = re.compile(r"\b(?:now|sysdate|utc_timestamp)\(|\b(?:current|local)_?(?:date|time)", re.IGNORECASE)

Answer = tuple[str, Any]  # Any: a comparable answer, or an error

_counts: Counter[str] = Counter()
_compilers: dict[int, tuple[Any, Compiler]] = {}
_state = SimpleNamespace(comparing=False, test="")
_execute = base.Connection.execute


def pytest_configure() -> None:
    """Put ours in the way of every statement."""
    base.Connection.execute = _compared  # type: ignore[method-assign]
    driver: Any = importlib.import_module("asyncmy.connection").Connection
    handshake = driver._get_server_information

    async def without_deprecate_eof(connection: Any) -> None:
        await handshake(connection)
        connection.server_capabilities &= ~0x1000000  # as our connector opens them

    driver._get_server_information = without_deprecate_eof


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note which test runs."""
    _state.test = item.nodeid


def pytest_sessionfinish() -> None:
    """Write the figures."""
    OUT.with_suffix(".counts").write_text(json.dumps(_counts))


def client_over(connection: Any) -> SqlClient:
    """Make our client over the driver's connection that SQLAlchemy uses, inside its transaction."""
    dialect = connection.dialect
    raw = connection.connection.driver_connection
    ours: Any

    if dialect.driver == "aiosqlite":
        kind: Any = SqliteDialect(in_memory=True)
        ours = SqliteConnection(raw, writable=True)
    elif dialect.driver == "asyncpg":
        kind = PostgresDialect()
        ours = AsyncpgConnection(raw, importlib.import_module("asyncpg"))
    elif dialect.driver == "psycopg":
        kind = PostgresDialect()
        ours = PsycopgConnection(raw)
    else:
        kind = MysqlDialect()
        make: Any = AiomysqlConnection if dialect.driver == "aiomysql" else AsyncmyConnection
        ours = make(raw, importlib.import_module(f"{dialect.driver}.connection"))

    if id(dialect) not in _compilers:
        _compilers[id(dialect)] = dialect, Compiler(_for_ours(dialect), kind.grammar)

    pool: Any = SimpleNamespace(ping_timeout=1.0, release=lambda _lease: None)
    lease: Any = SimpleNamespace(connection=ours)
    context = SessionContext("conformance", kind, pool, SqlOptions())
    unused: Any = None
    client = SqlClient(context, CompilerSource(unused), alone=True, read_only=False)
    client._compiler = _compilers[id(dialect)][1]
    client._session = client._own = Session(context, pool, lease, read_only=False)
    client._session.depth = 1  # their transaction is open
    return client


def _for_ours(dialect: Any) -> Any:
    """Return the dialect as our client has it: over psycopg, values have numbers in the place of names."""
    if dialect.driver != "psycopg":
        return dialect

    own = copy.copy(dialect)
    own.paramstyle, own.positional = "numeric_dollar", True
    own.identifier_preparer = own.preparer(own)
    own._type_memos = weakref.WeakKeyDictionary()
    return own


def _compared(self: Any, statement: Any, parameters: Any = None, *args: Any, **options: Any) -> Any:
    """Stand in the place of `Connection.execute`."""
    usual = isinstance(statement, ClauseElement) and not isinstance(statement, NOT_COMPARED)

    if _state.comparing or not usual or self.closed or self.dialect.driver not in DRIVERS:
        return _execute(self, statement, parameters, *args, **options)

    chosen = {**getattr(statement, "_execution_options", {}), **self.get_execution_options()}

    if any(chosen.get(name) for name in UNTESTED):
        _counts["not compared: options"] += 1
        return _execute(self, statement, parameters, *args, **options)

    # Without a transaction there are no savepoints to compare in.
    if self.dialect.name == "postgresql" and self.connection.dbapi_connection.autocommit:
        _counts["not compared: options"] += 1
        return _execute(self, statement, parameters, *args, **options)

    _state.comparing = True

    try:
        sequences = _sequences(self)
        theirs = _in_savepoint(self, lambda: _theirs(_execute(self, statement, parameters, *args, **options)))
        _set_sequences(self, sequences)
        many = isinstance(parameters, list | tuple) and len(parameters) > 1
        one = parameters[0] if isinstance(parameters, list | tuple) and parameters else parameters or {}
        mine = _in_savepoint(self, lambda: await_(_ours(self, statement, parameters if many else one)))
        _compare("", statement, theirs, mine)

        if theirs[0] == mine[0] == "answer" and getattr(statement, "is_select", False) and not many:
            for verb in ("handle", "handle again", "iterate", "dict", "count"):
                again = _in_savepoint(self, lambda verb=verb: await_(_query(self, verb, statement, one)))
                _compare(verb, statement, _expected(verb, theirs), again)

        _set_sequences(self, sequences)
    finally:
        _state.comparing = False

    return _execute(self, statement, parameters, *args, **options)


def _sequences(connection: Any) -> list[Any]:
    """Return the states of PostgreSQL's sequences, which no savepoint takes back."""
    if connection.dialect.name != "postgresql":
        return []

    query = "SELECT format('%I.%I', schemaname, sequencename), COALESCE(last_value, start_value), "
    query += "last_value IS NOT NULL FROM pg_sequences"
    return list(_execute(connection, text(query)).fetchall())


def _set_sequences(connection: Any, sequences: list[Any]) -> None:
    for name, value, called in sequences:
        query = text("SELECT setval(CAST(:name AS text)::regclass, :value, :called)")
        _execute(connection, query, {"name": name, "value": value, "called": called})


def _in_savepoint(connection: Any, run: Any) -> Answer:
    """Run something and undo it."""
    savepoint = connection.begin_nested()

    try:
        return "answer", run()
    except Exception as error:  # noqa: BLE001 - that it fails is the answer
        return "error", error
    finally:
        if savepoint.is_active:
            savepoint.rollback()


def _theirs(result: Any) -> Any:
    context = result.context
    changes = context.isinsert or context.isupdate or context.isdelete
    count = result.rowcount if changes and not result.returns_rows else None

    if not result.returns_rows:
        return [], None, count

    return _plain(result.fetchall()), list(result.keys()), count


async def _ours(connection: Any, statement: Any, parameters: Any) -> Any:
    result = await client_over(connection).execute(statement, *([parameters] if parameters else []))
    keys = list(result.rows[0].keys()) if result.rows else None
    return _plain(result.rows), keys, result.rowcount


async def _query(connection: Any, verb: str, statement: Any, parameters: Any) -> Any:
    client = client_over(connection)
    args = [dict(parameters)] if parameters else []

    if verb == "count":
        return await client.count(statement, *args)

    if verb == "iterate":
        return _plain([row async for row in client.iterate(statement, *args, size=2)])

    if verb == "dict":
        return [list(row.items()) for row in await client.select(statement, *args, row_type=dict)]

    handle = Prepared(statement)
    rows = await client.select(handle, *args)
    return _plain(await client.select(handle, *args) if verb == "handle again" else rows)


def _expected(verb: str, theirs: Answer) -> Answer:
    rows, keys, _ = theirs[1]

    if verb == "count":
        return "answer", len(rows)

    if verb == "dict":
        return "answer", [list(dict(zip(keys, row, strict=True)).items()) for row in rows]

    return "answer", rows


def _plain(rows: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in rows]


def _compare(verb: str, statement: Any, theirs: Answer, mine: Answer) -> None:
    """Name the difference, if there is one."""
    if theirs[0] == "error" or mine[0] == "error":
        kind = "equal: both fail"

        if theirs[0] != mine[0]:
            kind = "ours fails" if mine[0] == "error" else "theirs fails"
    elif verb:
        kind = "equal" if _shown(theirs[1]) == _shown(mine[1]) else "rows"

        if kind == "rows" and verb != "count" and _sorted(theirs[1]) == _sorted(mine[1]):
            kind = "order"
    else:
        kind = _difference(theirs[1], mine[1])

    # The same question a moment later: a second may have begun in between.
    if (
        kind == "rows"
        and verb != "count"
        and _CLOCK.search(_text(statement))
        and _length(theirs, verb) == _length(mine, verb)
    ):
        kind = "equal but for the clock"

    kind = f"{kind} ({verb})" if verb else kind
    _counts[kind] += 1

    if not kind.startswith("equal"):
        found = {
            "kind": kind,
            "test": _state.test,
            "statement": _text(statement),
            "theirs": repr(theirs[1])[:400],
            "ours": repr(mine[1])[:400],
        }

        with OUT.open("a") as out:
            out.write(json.dumps(found) + "\n")


def _length(answer: Answer, verb: str) -> int:
    return len(answer[1] if verb else answer[1][0])


def _difference(theirs: Any, mine: Any) -> str:
    if _shown(theirs[0]) != _shown(mine[0]):
        if _sorted(theirs[0]) == _sorted(mine[0]):
            return "order"

        return "numbers" if _goes_on(theirs[0], mine[0]) else "rows"

    if mine[1] is not None and theirs[1] is not None and mine[1] != theirs[1]:
        return "keys"

    return "rowcount" if theirs[2] is not None and theirs[2] >= 0 and theirs[2] != mine[2] else "equal"


def _sorted(rows: Any) -> list[str]:
    return sorted(map(_shown, rows))


def _goes_on(theirs: Any, mine: Any) -> bool:
    """Whether rows differ in generated numbers alone: ours go on where theirs ended, which ran before."""
    if len(theirs) != len(mine):
        return False

    # By their numbers: SQLAlchemy promises no order, and some tests shuffle what it returns.
    one, other = (sorted((tuple(map(_number, row)) for row in rows), key=_numbers) for rows in (theirs, mine))
    columns = zip(zip(*one, strict=True), zip(*other, strict=True), strict=True)
    return all(left == right or _is_shifted(left, right) for left, right in columns)


def _is_shifted(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Whether two columns differ by one number, which is not 0."""
    if not all(type(value) is int for value in (*left, *right)):
        return False

    return len({b - a for a, b in zip(left, right, strict=True)}) == 1


def _numbers(row: tuple[Any, ...]) -> list[int]:
    return [value for value in row if type(value) is int]


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d+", value) else value


def _shown(value: Any) -> str:
    """Return the repr, without the addresses of objects that were unpickled."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _text(statement: Any) -> str:
    try:
        return str(statement)[:400]
    except Exception:  # noqa: BLE001 - not every construct has a form without a dialect
        return type(statement).__name__
