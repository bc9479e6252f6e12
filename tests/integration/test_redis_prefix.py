"""Locks on a pool with a prefix: their keys have it, and waiters are woken up all the same."""

from __future__ import annotations

import asyncio

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_pool.redis import RedisPool
from ws_redislock import MutexLock


async def test_a_waiter_is_woken_up(start_server: StartServer) -> None:
    """The scripts of locks publish to channels without the prefix, so waiters subscribe to these."""
    server = start_server(RedisServer)

    async with RedisPool(server.url, prefix="shop:") as one, RedisPool(server.url, prefix="shop:") as two:
        holder, waiter = MutexLock(one, "stock", 30), MutexLock(two, "stock", 30)
        await holder.acquire()
        waiting = asyncio.create_task(waiter.acquire(timeout=20))

        while not (channels := server.command("PUBSUB", "CHANNELS")):
            await asyncio.sleep(0.01)

        assert [channel for channel in channels if not channel.startswith("wsl:hub:")] == []
        assert server.command("KEYS", "shop:*") == server.command("KEYS", "*")
        await holder.release()
        assert await waiting
        await waiter.release()
