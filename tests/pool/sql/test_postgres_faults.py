"""What networks and servers do to connections of PostgreSQL, and what the pool makes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, select

from tests.pool.sql._postgres import over
from tests.pool.sql.test_postgres import active
from tests.servers import StartServer
from tools.servers import PostgresServer
from ws_core.testing import FaultProxy
from ws_pool import PostgresPool, atomic
from ws_pool.errors import CommitUnknown, UnavailableError, WsError

pytestmark = pytest.mark.outage

TABLE = Table("fault", MetaData(), Column("id", Integer, primary_key=True), Column("number", Integer))


@asynccontextmanager
async def proxied(url: str, **options: Any) -> AsyncIterator[tuple[FaultProxy, PostgresPool]]:
    """Put a proxy between a pool and its server."""
    host, _, port = url.rpartition("@")[2].partition("/")[0].partition(":")

    async with (
        FaultProxy(host, int(port), protocol="raw", seed=3) as proxy,
        PostgresPool(proxy.url(url), **options) as pool,
    ):
        await pool.find("SELECT 1 AS one")
        yield proxy, pool


async def serves(pool: PostgresPool) -> float:
    """Wait until a pool serves, with nothing done for it, and return the seconds that it took."""
    began = time.monotonic()

    async with asyncio.timeout(30):
        while True:
            with suppress(WsError):
                assert (await pool.find("SELECT 1 AS one")).one == 1
                return time.monotonic() - began

            await asyncio.sleep(0.02)


async def test_the_pool_connects_again_without_a_call(driver: str, start_server: StartServer) -> None:
    """After SIGKILL and restart there are connections again within 2 s, before anybody asks for one."""
    server = await asyncio.to_thread(start_server, PostgresServer)

    async with PostgresPool(over(driver, server.url), min_size=2, max_size=4) as pool:
        await asyncio.to_thread(server.kill)

        with pytest.raises(UnavailableError):
            for _ in range(20):
                await pool.find("SELECT 1 AS one")

        await asyncio.to_thread(server.restart)

        async with asyncio.timeout(2):
            while pool.statistics().idle < 2 or pool.statistics().opened < 3:
                await asyncio.sleep(0.02)

        assert (await pool.find("SELECT 1 AS one")).one == 1


async def test_a_server_that_shuts_down(driver: str, start_server: StartServer) -> None:
    """What runs is an error that names the shutdown or loss; 2 s after a restart at most the pool serves."""
    server = await asyncio.to_thread(start_server, PostgresServer)

    async with PostgresPool(over(driver, server.url), max_size=2) as pool:
        running = asyncio.create_task(pool.find("SELECT pg_sleep(60)"))

        while not await active(pool, "SELECT pg_sleep(60)%"):
            await asyncio.sleep(0.01)

        await asyncio.to_thread(server.restart)

        with pytest.raises(UnavailableError, match="lost"):
            await running

        assert await serves(pool) < 2.0


async def test_a_black_hole(driver_url: str) -> None:
    """When all bytes vanish, calls fail in time; after its end they work."""
    async with proxied(driver_url, ping_after=0, ping_timeout=0.5, connect_timeout=1, max_size=2) as (
        proxy,
        pool,
    ):
        proxy.black_hole()

        with pytest.raises(UnavailableError):
            async with asyncio.timeout(30):
                await pool.find("SELECT 1 AS one")

        proxy.heal()
        await serves(pool)


async def test_a_statement_in_a_black_hole(driver_url: str) -> None:
    """Its task can be cancelled at once, and the connection is not kept for ever."""
    async with proxied(driver_url, connect_timeout=1, max_size=1) as (proxy, pool):
        proxy.black_hole()
        asking = asyncio.create_task(pool.find("SELECT 1 AS one"))
        await asyncio.sleep(0.2)
        asking.cancel()

        async with asyncio.timeout(8):  # psycopg itself gives the server ten seconds
            await asyncio.wait({asking})

        assert asking.cancelled()
        proxy.heal()
        await serves(pool)


async def test_cut_and_half_closed_connections_are_replaced(driver_url: str) -> None:
    """Idle connections that were reset, or whose server's end was closed, are not used by anybody."""
    async with proxied(driver_url, min_size=3, max_size=3, ping_after=0) as (proxy, pool):
        for fault in (proxy.cut, proxy.half_close):
            fault()
            await asyncio.sleep(0.1)
            answers = await asyncio.gather(
                *(pool.find("SELECT CAST(:n AS int) AS n", n=n) for n in range(10))
            )
            assert [row.n for row in answers] == list(range(10))


async def test_a_connection_cut_in_mid_statement(driver_url: str) -> None:
    """The statement that was running fails with the lost connection; the next is served."""
    async with PostgresPool(driver_url) as direct, proxied(driver_url, max_size=1) as (proxy, pool):
        running = asyncio.create_task(pool.find("SELECT pg_sleep(60)"))

        while not await active(direct, "SELECT pg_sleep(60)%"):
            await asyncio.sleep(0.01)

        proxy.cut()

        with pytest.raises(UnavailableError, match="lost"):
            await running

        await serves(pool)


async def test_a_lost_reply_to_commit(driver_url: str) -> None:
    """When the answer to COMMIT is lost, the error says that the outcome is unknown; here it happened."""
    async with proxied(driver_url, max_size=1) as (proxy, pool):
        await pool.create_all(TABLE.metadata)
        runs = 0

        @atomic(pool, retry_deadlocks=5)
        async def work() -> None:
            nonlocal runs
            runs += 1
            await pool.insert(TABLE, number=1)
            proxy.drop_reply(1)

        with pytest.raises(CommitUnknown, match="during COMMIT"):
            await work()

        assert runs == 1
        await serves(pool)
        assert len(await pool.select(select(TABLE))) == 1
