"""Transactions that end while something else holds their connection: what was not committed is undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.pool.sql.backends import BACKENDS, POSTGRES, make_requested
from ws_core.testing import FaultProxy
from ws_pool import MysqlPool, SqlitePool
from ws_pool._sql.client import SqlClient
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import CommitUnknown, QueryError, QueryTimeout, UnavailableError, WsError

pytestmark = pytest.mark.outage

MANY = "SELECT a FROM note"


@pytest.fixture(params=(*BACKENDS, *POSTGRES))
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool with a table of fifty rows."""
    async with make_requested(request, tmp_path, max_size=2) as pool:
        await pool.execute("CREATE TABLE note (a INTEGER)")
        await pool.insert_many("INSERT INTO note VALUES (:a)", [{"a": 0}] * 50)
        yield pool


async def written(pool: SqlPool) -> list[int]:
    """Look up what the test has written."""
    return [row.a for row in await pool.select("SELECT a FROM note WHERE a > 0 ORDER BY a")]


class BrokenOffError(Exception):
    """What the block is left with."""


class TestIterationsLeftEarly:
    """A block that fails in the middle of its iteration, which ends a little later."""

    async def leave(self, client: SqlClient) -> None:
        """Write, and fail in the middle of an iteration."""
        rows = client.iterate(MANY, size=2)

        with pytest.raises(BrokenOffError):
            async with client.begin():
                await client.insert("INSERT INTO note VALUES (2)")

                async for _ in rows:
                    raise BrokenOffError

        await rows.aclose()  # as the loop does with a generator that was dropped, in its own time

    async def test_an_inner_block_is_undone(self, pool: SqlPool):
        """The outer one either goes on without it, or cannot; it never commits what the inner one did."""
        told: Exception | None = None

        try:
            async with pool.atomic() as client:
                await client.insert("INSERT INTO note VALUES (1)")
                await self.leave(client)
        except UnavailableError as error:
            told = error

        assert not isinstance(told, CommitUnknown), "no COMMIT was sent"
        assert (told is None) == isinstance(pool, SqlitePool)
        assert await written(pool) == ([] if told else [1])

    async def test_what_follows_is_written_or_refused(self, pool: SqlPool):
        """Nothing goes into the transaction that has ended, to be undone with it unseen."""
        refused = False

        async with pool.get_client() as client:
            await self.leave(client)

            try:
                await client.insert("INSERT INTO note VALUES (3)")
            except UnavailableError:
                refused = True

        assert refused != isinstance(pool, SqlitePool)
        assert await written(pool) == ([] if refused else [3])


async def test_whoever_is_cancelled_before_his_turn_undoes_all(pool: SqlPool):
    """On a shared client, while another iterates: nothing is written, and a database in memory is kept."""
    inside, held, leave, end = (asyncio.Event() for _ in range(4))

    async with pool.get_client() as client:
        client.share()

        async def write() -> None:
            async with client.begin():
                await client.insert("INSERT INTO note VALUES (1)")
                inside.set()
                await leave.wait()

        async def read() -> None:
            async for _ in client.iterate(MANY, size=2):
                held.set()
                await end.wait()

        writing = asyncio.create_task(write())
        await inside.wait()
        reading = asyncio.create_task(read())
        await held.wait()
        leave.set()

        for _ in range(5):  # until it waits for its turn to commit
            await asyncio.sleep(0)

        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        end.set()
        await asyncio.wait([reading])
        assert isinstance(reading.exception(), WsError | None)

    assert await written(pool) == []
    assert await pool.count("SELECT * FROM note") == 50


async def test_a_block_may_end_in_another_task(pool: SqlPool):
    """As fixtures of tests do: it is committed all the same."""
    block = pool.atomic()
    client = await asyncio.create_task(block.__aenter__())
    await client.insert("INSERT INTO note VALUES (1)")
    await block.__aexit__(None, None, None)
    assert await written(pool) == [1]


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
async def test_a_commit_without_an_answer_is_told_apart(driver: str, mysql_url: str):
    """With query_timeout a COMMIT that is not answered in time is unknown, and not waited for for ever."""
    host, _, port = mysql_url.rpartition("@")[2].partition("/")[0].partition(":")

    async with FaultProxy(host, int(port), protocol="mysql") as proxy:
        url = proxy.url(mysql_url).replace("mysql://", f"mysql+{driver}://", 1)

        async with MysqlPool(url, max_size=1, query_timeout=1.5) as pool:
            await pool.execute("CREATE TABLE note (a INTEGER)")

            with pytest.raises(CommitUnknown, match="no answer to COMMIT"):
                async with asyncio.timeout(10), pool.atomic() as client:
                    await client.insert("INSERT INTO note VALUES (1)")
                    proxy.black_hole()

            proxy.heal()


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
async def test_a_transaction_begins_in_time(driver: str, mysql_url: str):
    """A server that has fallen silent is not waited for longer than query_timeout, also by BEGIN."""
    host, _, port = mysql_url.rpartition("@")[2].partition("/")[0].partition(":")

    async with FaultProxy(host, int(port), protocol="mysql") as proxy:
        url = proxy.url(mysql_url).replace("mysql://", f"mysql+{driver}://", 1)

        async with MysqlPool(url, max_size=1, query_timeout=1.5) as pool, asyncio.timeout(10):
            async with pool.get_client() as client:
                proxy.black_hole()

                with pytest.raises(QueryTimeout):
                    await client.begin().__aenter__()

            proxy.heal()
            assert await pool.select("SELECT 1") == [(1,)]


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
async def test_a_level_without_a_transaction_is_not_left_to_the_next(
    driver: str, mysql_url: str, monkeypatch: pytest.MonkeyPatch
):
    """SET TRANSACTION counts for the next transaction, whoever begins it: the session is reset."""
    async with MysqlPool(mysql_url.replace("mysql://", f"mysql+{driver}://", 1), max_size=1) as pool:
        async with pool.get_client() as client:
            kind, run = type(client.connection), type(client.connection).run

            async def refuse(self: Any, sql: str, values: Any) -> Any:  # any connection and statement
                return await run(self, sql.replace("BEGIN", "BEGIN nonsense"), values)

            with monkeypatch.context() as patch, pytest.raises(QueryError):
                patch.setattr(kind, "run", refuse)
                await client.begin(isolation="SERIALIZABLE").__aenter__()

            assert client.connection.dirty

        async with pool.get_client() as client:
            assert not client.connection.dirty

            async with client.begin(isolation="SERIALIZABLE"):
                pass

            assert not client.connection.dirty  # the transaction has used it up
