"""Dedicated connections: one user at a time, replaced when their session was changed."""

from __future__ import annotations

import asyncio

import pytest
from redis import exceptions as driver

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_pool.errors import AcquireTimeout, MaybeExecuted, UnavailableError
from ws_pool.redis import RedisPool


class TestDedicated:
    """Connections that one task has for itself."""

    async def test_the_single_connection_client(self, redis_url: str) -> None:
        """``client()`` acquires a connection at its first use and releases it."""
        async with RedisPool(url=redis_url) as pool:
            async with pool.redis.client() as single:
                first = await single.client_id()
                assert await single.client_id() == first
                assert pool.statistics().leased[0].leased == 1

            assert pool.statistics().leased[0].leased == 0
            await pool.redis.aclose()
            assert await pool.redis.ping()
            assert "SharedRedis of redis pool 'default'" in repr(pool.redis)
            assert "DedicatedConnections" in repr(pool.redis.connection_pool)

    async def test_dedicated_connections_are_replaced_on_request(self, redis_url: str) -> None:
        """Redis-py's ``disconnect`` of the connection pool replaces the dedicated connections."""
        async with RedisPool(url=redis_url) as pool:
            await pool.redis.blpop("empty", timeout=0.001)
            before = pool.statistics().leased[0].opened
            await pool.redis.connection_pool.disconnect()
            await pool.redis.connection_pool.aclose()
            await pool.redis.blpop("empty", timeout=0.001)
            assert pool.statistics().leased[0].opened == before + 1

    async def test_what_a_user_leaves_behind_is_noticed(self, redis_url: str) -> None:
        """A connection with an unread reply is never used again."""
        async with RedisPool(url=redis_url, maxsize=1) as pool:
            connections = pool.redis.connection_pool
            connection = await connections.get_connection()
            await connection.send_command("ECHO", "left behind")
            await connections.release(connection)
            await connections.release(connection)

            async with pool.get_client(alone=True) as alone:
                assert await alone.echo("mine") == b"mine"

    async def test_a_leased_command_that_takes_too_long(self, start_server: StartServer) -> None:
        """A command on a dedicated connection has its timeout too; its connection is closed."""
        server = start_server(RedisServer)

        async with (
            RedisPool(url=server.url, command_timeout=1.5) as pool,
            pool.get_client(alone=True) as alone,
        ):
            await alone.ping()
            server.pause()

            with pytest.raises(MaybeExecuted, match=r"PING.*no reply within 1\.5 s"):
                await alone.ping()

            server.resume()


async def test_errors_of_dedicated_connections_are_redis_pys_too(start_server: StartServer) -> None:
    """No connection free in time, and no server, are redis-py's ConnectionError as well."""
    server = start_server(RedisServer)

    async with RedisPool(
        url=server.url, minsize=1, maxsize=1, acquire_timeout=0.05, outage_timeout=0.05
    ) as pool:
        while not pool.statistics().leased[0].idle:
            await asyncio.sleep(0.01)

        async with pool.get_client(alone=True):
            with pytest.raises(driver.ConnectionError) as caught:
                await pool.redis.blpop("q", timeout=1)

            assert isinstance(caught.value, AcquireTimeout)

        await asyncio.to_thread(server.kill)

        with pytest.raises(driver.ConnectionError) as other:
            await pool.redis.blpop("q", timeout=1)

        assert isinstance(other.value, UnavailableError)
