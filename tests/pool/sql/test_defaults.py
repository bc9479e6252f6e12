"""Defaults of columns that the server has to compute first, and servers that write strings differently."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    bindparam,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite

from tests.pool.sql.backends import BACKENDS, make_pool
from ws_pool import MysqlPool
from ws_pool._sql.compile.compiler import Compiler
from ws_pool._sql.mysql.connection import MysqlConnection
from ws_pool._sql.sqlite import statement_text
from ws_pool.errors import QueryError, UnsupportedStatement, UsageError

METADATA = MetaData()
KEYED = Table(
    "keyed",
    METADATA,
    Column("id", String(20), primary_key=True, default=func.lower("KEY")),
    Column(
        "n",
        Integer,
        default=lambda: 4,
        onupdate=lambda context: context.get_current_parameters()["id_1"] and 9,
    ),
)
COUNTED = Table(
    "counted", METADATA, Column("id", Integer, Sequence("numbers"), primary_key=True), Column("n", Integer)
)


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
async def test_keys_that_the_server_computes_are_asked_for_first(driver: str, mysql_url: str):
    """Without RETURNING a key's SQL default and a sequence are fetched, then inserted."""
    async with MysqlPool(mysql_url.replace("mysql://", f"mysql+{driver}://", 1)) as pool:
        await pool.execute("CREATE SEQUENCE numbers START WITH 40")
        await pool.create_all(METADATA)
        dialect: Any = pool.compiler.dialect
        dialect.insert_returning = False
        await pool.insert(KEYED)
        assert await pool.select(select(KEYED)) == [("key", 4)]
        await pool.insert(COUNTED, n=1)
        await pool.insert_many(COUNTED, [{"n": 2}, {"n": 3}])
        assert await pool.select(select(COUNTED).order_by(COUNTED.c.id)) == [(40, 1), (41, 2), (42, 3)]
        assert await pool.update(update(KEYED).where(KEYED.c.id == "key")) == 1
        assert (await pool.select(select(KEYED)))[0].n == 9


ASKING = Table(
    "asking",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("n", Integer, default=lambda context: context.connection.scalar(text("SELECT 1"))),
)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_default_that_runs_statements_itself_is_refused(backend: str, mysql_url: str, tmp_path: Path):
    """It would run them in SQLAlchemy's connection, which there is none of: nothing is inserted."""
    async with make_pool(backend, mysql_url, tmp_path) as pool:
        await pool.create_all(ASKING.metadata)
        inserts: list[Callable[[], Awaitable[object]]] = [
            lambda: pool.insert(ASKING, id=1),
            lambda: pool.execute(ASKING.insert(), [{"id": 1}, {"id": 2}]),
            lambda: pool.insert_many(ASKING, [{"id": 1}, {"id": 2}]),
        ]

        for run in inserts:
            with pytest.raises(UnsupportedStatement, match=r"context\.connection.*use engine\(\)"):
                await run()

        assert await pool.count(ASKING) == 0
        assert await pool.insert(ASKING, id=1, n=5) == 1


def test_a_compiler_falls_back_to_the_public_compile():
    """A construct without a cache key is compiled for each execution."""
    compiler = Compiler(sqlite.dialect(paramstyle="qmark"), statement_text)

    class Uncached(type(select(1))):  # type: ignore[misc]
        inherit_cache = False

    statement = Uncached(text("1"))
    plan, binds, params = compiler.plan(statement, {"a": 1})
    assert (plan.sql.split(), binds, params) == (["SELECT", "1"], None, {"a": 1})
    assert len(compiler) == 0

    with pytest.raises(UsageError, match="a statement is a string or a SQLAlchemy construct, not a int"):
        compiler.plan(5, None)  # type: ignore[arg-type]


async def test_a_sqlalchemy_without_cache_keys_is_used_through_its_public_interface(
    monkeypatch: pytest.MonkeyPatch, mysql_url: str
):
    """When the private parts that caching needs are missing, everything works, only slower."""

    def missing(_statement: object) -> None:
        raise AttributeError

    monkeypatch.setattr("sqlalchemy.sql.selectable.Select._generate_cache_key", missing)
    assert not Compiler(sqlite.dialect(), statement_text).cached
    monkeypatch.undo()
    assert Compiler(sqlite.dialect(), statement_text).cached
    monkeypatch.setattr("ws_pool._sql.compile.compiler._can_cache", lambda _dialect: False)

    async with MysqlPool(mysql_url) as pool:
        assert not pool.compiler.cached
        await pool.create_all(METADATA)
        await pool.insert_many(KEYED, [{"id": str(n), "n": n} for n in range(5)])
        query = pool.prepare(select(KEYED.c.n).where(KEYED.c.id.in_(bindparam("ids", expanding=True))))
        assert len(await pool.select(query, ids=["1", "2"])) == 2
        assert await pool.count(select(KEYED).where(KEYED.c.n > 2, KEYED.c.id != "3")) == 1
        assert await pool.update(update(KEYED).where(KEYED.c.id == bindparam("id_1")), id_1="1", n=7) == 1
        assert len(pool.compiler) == 0


async def test_values_that_do_not_fit_their_placeholders_are_refused(mysql_url: str):
    """Too few or too many values are an error before anything is sent."""
    async with MysqlPool(mysql_url) as pool:
        with pytest.raises(UnsupportedStatement, match="do not fit"):
            await pool.select("SELECT %s, %s", 1)

        async with pool.get_client() as client:
            assert isinstance(client.connection, MysqlConnection)
            assert "MysqlConnection" in repr(client.connection)
            assert "pool 'default'" in repr(client)

            with pytest.raises(QueryError):
                await client.execute("SELECT")
