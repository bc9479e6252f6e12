"""Metrics of a pool, under the names of the OpenTelemetry conventions."""

from __future__ import annotations

import asyncio

import pytest

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_pool.errors import AcquireTimeout
from ws_pool.redis import RedisPool

PREFIX = "db.client.connection."
COUNT = f'{PREFIX}count{{{PREFIX}state="%s"}}'


async def test_metrics_follow_the_conventions(redis_url: str) -> None:
    """Shared and dedicated connections are counted together, under the names of the pool core."""
    async with RedisPool(url=redis_url, maxsize=7, shared_connections=2) as pool:
        async with pool.get_client(alone=True) as alone:
            await alone.ping()
            metrics = pool.statistics().metrics()
            assert (metrics[COUNT % "used"], metrics[COUNT % "idle"]) == (3, 0)

        while not (metrics := pool.statistics().metrics())[COUNT % "idle"]:
            await asyncio.sleep(0)

        assert (metrics[COUNT % "used"], metrics[COUNT % "idle"]) == (2, 1)
        assert metrics[f"{PREFIX}max"] == 9
        assert metrics[f"{PREFIX}create_time.count"] == 3
        assert metrics[f"{PREFIX}create_time.sum"] > 0
        assert metrics[f"{PREFIX}use_time.count"] == 1
        assert metrics.keys() == pool.statistics().leased[0].metrics().keys()


async def test_who_waits_for_room_waits_for_a_connection(start_server: StartServer) -> None:
    """Commands in front of a full line are pending requests, and their waits are counted."""
    server = start_server(RedisServer)

    async with RedisPool(url=server.url, max_pending=1) as pool:
        server.pause()
        commands = [asyncio.ensure_future(pool.redis.echo("x")) for _ in range(3)]
        await asyncio.sleep(0)
        before = pool.statistics().metrics()
        assert before[f"{PREFIX}pending_requests"] == 2
        server.resume()
        await asyncio.gather(*commands)
        after = pool.statistics().metrics()
        assert after[f"{PREFIX}pending_requests"] == 0
        assert after[f"{PREFIX}wait_time.count"] == before[f"{PREFIX}wait_time.count"] + 2


async def test_who_waits_in_vain_is_a_timeout(start_server: StartServer) -> None:
    """Commands that found no room, at once or in time, are timeouts."""
    server = start_server(RedisServer)

    async with RedisPool(
        url=server.url, max_pending=1, max_queue=2, acquire_timeout=0.05, command_timeout=60
    ) as pool:
        server.pause()
        first, *late = [asyncio.ensure_future(pool.redis.echo("x")) for _ in range(4)]

        for command in late:
            with pytest.raises(AcquireTimeout):
                await command

        assert pool.statistics().metrics()[f"{PREFIX}timeouts"] == 3
        assert pool.statistics().status()["timeouts"] == 3
        server.resume()
        assert await first == b"x"
