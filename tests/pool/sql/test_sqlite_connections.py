"""One client of a SQLite file is one connection, for all that outlives a statement."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, select

from tests.pool.sql.backends import make_pool
from ws_pool import SqlitePool
from ws_pool._sql.pool import SqlPool
from ws_pool._sql.sqlite.clients import WriterRouting
from ws_pool._sql.sqlite.connector import SqliteConnector
from ws_pool._sql.sqlite.statement_text import leaves_clean, reads_connection, reads_only, verb
from ws_pool.errors import QueryError, UnsupportedStatement, UsageError

ITEM = Table("item", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer))


@pytest.fixture(params=["sqlite", "memory"])
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A database with one row."""
    async with make_pool(request.param, "", tmp_path) as pool:
        await pool.create_all(ITEM.metadata)
        await pool.insert(ITEM, n=1)
        yield pool


async def values(pool: SqlPool) -> list[int]:
    """Read what another client sees."""
    async with pool.get_client(alone=True) as client:
        return [row.n for row in await client.select(select(ITEM.c.n).order_by(ITEM.c.id))]


class TestText:
    """Transactions as text."""

    async def test_a_rollback_undoes(self, pool: SqlPool) -> None:
        """What was written since BEGIN is read inside, and gone after ROLLBACK."""
        async with pool.get_client() as client:
            await client.execute("BEGIN")
            await client.execute("UPDATE item SET n = 2")
            assert await client.find(select(ITEM.c.n)) == (2,)
            assert await client.execute("SELECT changes() AS n") is not None
            await client.execute("ROLLBACK")
            assert await client.find(select(ITEM.c.n)) == (1,)

        assert await values(pool) == [1]

    async def test_a_commit_keeps(self, pool: SqlPool) -> None:
        """After COMMIT others see it, and the block goes on."""
        async with pool.get_client() as client:
            await client.execute("-- mine\nbegin immediate")
            await client.insert(ITEM, n=2)
            await client.execute("COMMIT")
            await client.insert(ITEM, n=3)

        assert await values(pool) == [1, 2, 3]

    async def test_savepoints(self, pool: SqlPool) -> None:
        """SAVEPOINT opens a transaction too, and its RELEASE ends it."""
        async with pool.get_client() as client:
            await client.execute("SAVEPOINT a")
            await client.insert(ITEM, n=2)
            await client.execute("SAVEPOINT b")
            await client.insert(ITEM, n=3)
            await client.execute("ROLLBACK TO b")
            await client.execute("RELEASE a")

        assert await values(pool) == [1, 2]

    async def test_a_block_that_ends_inside(self, pool: SqlPool) -> None:
        """The next user of the pool finds no transaction, and nothing was written."""
        async with pool.get_client() as client:
            await client.execute("BEGIN")
            await client.insert(ITEM, n=2)

        assert await values(pool) == [1]
        await pool.insert(ITEM, n=3)
        assert await values(pool) == [1, 3]

    async def test_a_block_inside_a_transaction_of_text(self, pool: SqlPool) -> None:
        """It is refused, and the outer one goes on."""
        async with pool.get_client() as client:
            await client.execute("BEGIN")
            await client.insert(ITEM, n=2)

            with pytest.raises(UsageError, match="begun as text is open"):
                await client.begin().__aenter__()

            await client.insert(ITEM, n=3)
            await client.execute("COMMIT")

        assert await values(pool) == [1, 2, 3]

    async def test_without_the_pin_the_update_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The broken twin releases the writing connection after each statement."""
        unpin = WriterRouting.unpin
        monkeypatch.setattr(WriterRouting, "unpin", lambda self, on, **_: unpin(self, on, always=True))

        async with make_pool("sqlite", "", tmp_path) as pool:
            await pool.create_all(ITEM.metadata)
            await pool.insert(ITEM, n=1)

            async with pool.get_client() as client:
                await client.execute("BEGIN")
                await client.execute("UPDATE item SET n = 2")

                with pytest.raises(QueryError, match="no transaction"):
                    await client.execute("ROLLBACK")

            assert await values(pool) == [2]


class TestState:
    """What a connection keeps beside a transaction."""

    async def test_temporary_tables(self, pool: SqlPool) -> None:
        """They are there for the length of the block, in transactions too, and for no other client."""
        async with pool.get_client() as client:
            await client.execute("CREATE TEMP TABLE mine (a)")
            await client.execute("INSERT INTO mine VALUES (1)")

            async with client.begin():
                await client.execute("INSERT INTO mine VALUES (2)")

            assert [row.a for row in await client.select("SELECT a FROM mine")] == [1, 2]
            assert [row.a async for row in client.iterate("SELECT a FROM mine")] == [1, 2]

        with pytest.raises(QueryError, match="no such table"):
            await pool.execute("SELECT * FROM mine")

        with pytest.raises(QueryError, match="no such table"):
            await pool.execute("INSERT INTO mine VALUES (3)")

    async def test_attached_databases(self, pool: SqlPool, tmp_path: Path) -> None:
        """They can be written and read until the block ends."""
        async with pool.get_client() as client:
            await client.execute(f"ATTACH DATABASE '{tmp_path / 'other.db'}' AS other")
            await client.execute("CREATE TABLE other.far (a)")
            await client.execute("INSERT INTO other.far VALUES (1)")
            assert await client.find("SELECT a FROM other.far") == (1,)

        with pytest.raises(QueryError, match="no such table"):
            await pool.execute("SELECT a FROM other.far")

    async def test_settings(self, pool: SqlPool) -> None:
        """A PRAGMA counts for the statements behind it."""
        async with pool.get_client() as client:
            await client.execute("PRAGMA recursive_triggers = 1")
            assert await client.find("PRAGMA recursive_triggers") == (1,)

    async def test_other_tasks_write_meanwhile(self, pool: SqlPool) -> None:
        """A change outside of a transaction releases the writing connection at once."""
        if not isinstance(pool, SqlitePool) or pool.path == ":memory:":
            pytest.skip("a database in memory has one connection for all")

        async with pool.get_client() as client:
            await client.insert(ITEM, n=2)
            await client.execute("CREATE TABLE another (a)")

            async with asyncio.timeout(5):
                await asyncio.create_task(pool.insert(ITEM, n=3))

        assert await values(pool) == [1, 2, 3]


class TestQueriesAboutTheLastStatement:
    """``last_insert_rowid()``, ``changes()`` and ``total_changes()``."""

    async def test_in_a_transaction(self, pool: SqlPool) -> None:
        """They are about the client's own last statement."""
        async with pool.get_client() as client, client.begin():
            await client.insert(ITEM, n=2)
            assert await client.find("SELECT last_insert_rowid() AS n, changes() AS c") == (2, 1)

    async def test_outside_of_one(self, tmp_path: Path) -> None:
        """On a file they would be about another connection: they are refused, with the remedy."""
        async with make_pool("sqlite", "", tmp_path) as pool, pool.get_client() as client:
            await client.create_all(ITEM.metadata)
            await client.insert(ITEM, n=2)

            with pytest.raises(UnsupportedStatement, match=r"begin\(\) or atomic\(\)"):
                await client.find("SELECT last_insert_rowid() AS n")

            with pytest.raises(UnsupportedStatement):
                _ = [row async for row in client.iterate("SELECT changes()")]


class TestReadOnly:
    """A client that only reads."""

    async def test_it_begins_no_transaction_as_text(self, pool: SqlPool) -> None:
        """BEGIN may be followed by anything, so that it is refused."""
        async with pool.get_client(read_only=True) as client:
            with pytest.raises(UsageError, match="only reads, and BEGIN"):
                await client.execute("BEGIN")


async def test_a_writer_that_waits_is_let_in(tmp_path: Path) -> None:
    """A transaction of text keeps other writers waiting, and no longer."""
    async with make_pool("sqlite", "", tmp_path) as pool:
        await pool.create_all(ITEM.metadata)

        async with pool.get_client() as client:
            await client.execute("BEGIN IMMEDIATE")
            await client.insert(ITEM, n=1)
            other = asyncio.create_task(pool.insert(ITEM, n=2))
            await asyncio.sleep(0.05)
            assert not other.done()
            await client.execute("COMMIT")

            async with asyncio.timeout(5):
                await other

        assert sorted(await values(pool)) == [1, 2]


async def test_no_thread_outlives_a_cancelled_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of connections that were given up before their threads had begun."""
    before = set(threading.enumerate())
    connect, seconds = sqlite3.connect, iter([0.5, *[0.0] * 100])  # the first one is the last to end

    def slowly(*args: Any, **options: Any) -> Any:
        time.sleep(next(seconds))
        return connect(*args, **options)

    async with SqlitePool(f"sqlite:///{tmp_path / 'a.db'}", maxsize=3) as pool:
        connector = pool._readers.connector
        assert isinstance(connector, SqliteConnector)
        monkeypatch.setattr(sqlite3, "connect", slowly)

        for rounds in range(4):
            opening = [asyncio.ensure_future(connector.open()) for _ in range(3)]

            for _ in range(rounds):
                await asyncio.sleep(0)

            for task in opening:
                task.cancel()

            await asyncio.wait(opening)

    assert set(threading.enumerate()) <= before
    await asyncio.sleep(0.05)  # what had not begun by now begins
    assert set(threading.enumerate()) <= before


def test_the_grammar_of_sqlite() -> None:
    """A backslash escapes nothing, # begins no comment, and brackets quote a name."""
    assert verb("/* a */ -- b\n Insert into t values (1)") == "insert"
    assert not reads_only(r"SELECT '\' ; DELETE FROM t -- '")
    assert reads_only("SELECT [delete], 'insert;' FROM t -- ; update")
    assert not reads_only("WITH a AS (SELECT 1) DELETE FROM t")
    assert not reads_only("PRAGMA cache_size = 3")
    assert leaves_clean("CREATE TABLE attached (temporary_name, 'temp')")
    assert not leaves_clean("create temporary view v as select 1")
    assert reads_connection("SELECT 1 + changes ( )")
    assert not reads_connection("SELECT changes, 'changes()' FROM t")
