"""A statement whose caller has gone is stopped on the server, and never another's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.pool.sql.backends import MYSQL, make_pool
from ws_core.testing import FaultProxy
from ws_pool import MysqlPool
from ws_pool._sql.mysql.connector import MysqlConnector
from ws_pool._sql.pool import SqlPool
from ws_pool.errors import QueryTimeout

pytestmark = pytest.mark.outage

RUNNING = (
    "SELECT COUNT(*) AS n FROM information_schema.PROCESSLIST WHERE COMMAND = 'Query' AND INFO LIKE :what "
    "AND ID <> CONNECTION_ID()"
)
LONG = "SELECT SLEEP(30) AS mine"


@pytest.fixture(params=MYSQL)
async def pool(request: pytest.FixtureRequest, mysql_url: str, tmp_path: Path) -> AsyncIterator[SqlPool]:
    """A pool with room for 24."""
    async with make_pool(request.param, mysql_url, tmp_path, max_size=24) as pool:
        yield pool


async def running(pool: SqlPool, what: str = "%SLEEP(30)%") -> int:
    """Count the statements that the server is at."""
    return int((await pool.find(RUNNING, what=what)).n)


async def until(pool: SqlPool, count: int, what: str = "%SLEEP(30)%") -> None:
    """Wait until the server is at so many statements."""
    async with asyncio.timeout(10):
        while await running(pool, what) != count:
            await asyncio.sleep(0.02)


def stopper(pool: Any) -> Any:
    """Return what stops a pool's statements."""
    connector: MysqlConnector = pool._pool.connector
    return connector.stopper


async def test_twenty_that_are_cancelled(pool: SqlPool) -> None:
    """All end on the server, and those of others go on."""
    other = asyncio.create_task(pool.find("SELECT SLEEP(3) AS others"))
    tasks = [asyncio.create_task(pool.find(LONG)) for _ in range(20)]
    await until(pool, 20)

    for task in tasks:
        task.cancel()

    await until(pool, 0)
    await stopper(pool).aclose()
    assert stopper(pool).stopped == 20
    assert await other == (0,)  # SLEEP gives 1 when it was interrupted


async def test_a_statement_that_takes_too_long(mysql_url: str, tmp_path: Path) -> None:
    """A QueryTimeout stops it too, before the block ends; a handle and an iteration as well."""
    for backend in MYSQL:
        async with (
            make_pool(backend, mysql_url, tmp_path, query_timeout=1.5) as pool,
            make_pool(backend, mysql_url, tmp_path) as watching,
        ):
            handle = pool.prepare("SELECT SLEEP(:n) AS mine")

            for run in (
                lambda client: client.find(LONG),
                lambda client, handle=handle: client.select(handle, n=30),
                lambda client: anext(client.iterate(LONG)),
            ):
                async with pool.get_client() as client:
                    with pytest.raises(QueryTimeout):
                        await run(client)

                    await until(watching, 0)

            await stopper(pool).aclose()
            assert stopper(pool).stopped == 3


async def test_locks_are_given_up(pool: SqlPool) -> None:
    """A change that waited for a lock, and those that it held, are undone at once."""
    await pool.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
    await pool.execute("INSERT INTO t VALUES (1, 1), (2, 2)")

    async def change() -> None:
        async with pool.atomic() as client:
            await client.execute("UPDATE t SET n = 9 WHERE id = 1")
            await client.execute("UPDATE t SET n = SLEEP(30) WHERE id = 2")

    task = asyncio.create_task(change())
    await until(pool, 1)
    task.cancel()
    await asyncio.wait({task})
    start = time.monotonic()
    await pool.execute("UPDATE t SET n = 5 WHERE id IN (1, 2)")
    assert time.monotonic() - start < 5
    assert [row.n for row in await pool.select("SELECT n FROM t")] == [5, 5]


async def test_through_a_proxy_nothing_is_killed(mysql_url: str, tmp_path: Path) -> None:
    """Behind a proxy the server sees another port: it cannot be shown that it is the same connection."""
    parts = urlsplit(mysql_url)
    assert parts.hostname is not None
    assert parts.port is not None

    async with (
        FaultProxy(parts.hostname, parts.port, protocol="mysql") as proxy,
        make_pool("aiomysql", mysql_url, tmp_path) as direct,
        MysqlPool(f"mysql://root@{proxy.host}:{proxy.port}{parts.path}") as pool,
    ):
        task = asyncio.create_task(pool.find(LONG))
        await until(direct, 1)
        task.cancel()
        await asyncio.wait({task})
        await stopper(pool).aclose()
        assert stopper(pool).stopped == 0
        assert await running(direct) == 1
        await direct.execute(f"KILL QUERY {await thread_of(direct)}")


async def thread_of(pool: SqlPool) -> int:
    """Return the number of the connection that sleeps."""
    sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP(30)%'"
    return int((await pool.find(sql)).ID)


async def test_a_server_that_does_not_answer(mysql_url: str) -> None:
    """Nothing is stopped, nothing hangs, and the pool closes in time."""
    parts = urlsplit(mysql_url)
    assert parts.hostname is not None
    assert parts.port is not None

    async with FaultProxy(parts.hostname, parts.port, protocol="mysql") as proxy:
        pool = MysqlPool(f"mysql://root@{proxy.host}:{proxy.port}{parts.path}")
        await pool.start()
        task = asyncio.create_task(pool.find("SELECT SLEEP(0.5)"))
        await asyncio.sleep(0.1)
        proxy.black_hole()
        task.cancel()
        await asyncio.wait({task})
        start = time.monotonic()
        await pool.close(timeout=1)
        assert time.monotonic() - start < 5
        proxy.heal()


async def test_a_commit_is_left_alone(pool: SqlPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not known whether it is done: killing it would only make that less known."""
    async with pool.get_client() as client:
        conn: Any = client.connection
        hang: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def send(_query: bytes) -> Any:
            return await hang

        monkeypatch.setattr(conn, "send", send)
        task = asyncio.create_task(conn.run("COMMIT", None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert conn.cut

    await stopper(pool).aclose()
    assert stopper(pool).stopped == 0
