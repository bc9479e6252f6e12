"""The application has all connections of its pool in use, or the pool is a small one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis

from tests.redislock._helpers import until_waiting
from tools.servers import RedisServer
from ws_redislock import FrequencyLimiter, MutexLock
from ws_redislock._coordination.coordinator import coordinator_for
from ws_redislock._redis.scripts import load

POOLS: list[tuple[type[ConnectionPool], int]] = [
    (ConnectionPool, 1),
    (BlockingConnectionPool, 1),
    (ConnectionPool, 8),
    (BlockingConnectionPool, 8),
]


@contextlib.asynccontextmanager
async def all_taken(client: Redis) -> AsyncIterator[None]:
    """Block every connection of a client's pool by a command that waits on the server."""
    pool: Any = client.connection_pool
    tasks = [asyncio.create_task(client.execute_command("BLPOP", "never", 0)) for _ in range(8)]

    while pool.can_get_connection():
        await asyncio.sleep(0)

    try:
        yield
    finally:
        for task in tasks:
            task.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)


async def renewed(lock: MutexLock, deadline: float) -> float:
    """Wait until the watchdog has moved a deadline; return the new one."""
    while lock.current()._lease.deadline == deadline:
        lock.check()
        await asyncio.sleep(0.01)

    return lock.current()._lease.deadline


@pytest.fixture(params=POOLS, ids=lambda of: f"{of[0].__name__}-{of[1]}")
async def client(request: pytest.FixtureRequest, any_redis: RedisServer) -> AsyncIterator[Redis]:
    """Yield a client whose pool is soon exhausted."""
    kind, size = request.param
    pool = kind.from_url(any_redis.url, max_connections=size)

    async with Redis.from_pool(pool) as client:
        yield client


class TestExhausted:
    """Blocking commands have all connections."""

    async def test_a_lease_is_kept(self, client: Redis):
        """The watchdog renews; giving back and acquiring work as well."""
        lost: list[object] = []
        lock = MutexLock(client, "k", 2, on_lost=lost.append)
        assert await lock.acquire()
        deadline = lock.current()._lease.deadline

        async with all_taken(client):
            for _ in range(2):
                deadline = await renewed(lock, deadline)

            assert await lock.release()
            assert await lock.acquire()
            assert await FrequencyLimiter(client, 60, 1).is_limited("k") is False
            assert await lock.release()

        assert lost == []

    async def test_waiters_are_served(self, client: Redis):
        """A waiter is woken, and what it listened on is not one of the application's connections."""
        first = MutexLock(client, "k", 60)
        second = MutexLock(client, "k", 60, heartbeat=60)
        assert await first.acquire()

        async with all_taken(client):
            waiting = asyncio.create_task(second.acquire(None))
            await until_waiting(first)

            async with asyncio.timeout(10):  # without a wake-up it would look after 20 s
                assert await first.release()
                assert await waiting

        assert await client.ping()
        assert await second.release()

    async def test_heartbeats_go_on(self, client: Redis):
        """Waiters on several locks do not count as dead."""
        holders = [MutexLock(client, f"k{number}", 60) for number in range(3)]
        waiters = [MutexLock(client, f"k{number}", 60, heartbeat=0.5) for number in range(3)]
        assert all([await lock.acquire() for lock in holders])

        async with all_taken(client):
            tasks = [asyncio.create_task(lock.acquire(None)) for lock in waiters]

            for lock in holders:
                await until_waiting(lock)

            await asyncio.sleep(1.0)  # twice what a waiter without a heartbeat has
            assert [await lock.waiters() for lock in holders] == [1, 1, 1]

        for lock in holders:
            await lock.release()

        assert all(await asyncio.gather(*tasks))

        for lock in waiters:
            await lock.release()

    async def test_replicas_are_asked(self, client: Redis):
        """The acquisition that replicas must confirm finds a connection, too."""
        async with all_taken(client):
            _, reply, count = await coordinator_for(client).scripts.confirmed(
                load("claim"), (b"k",), ("x", 60_000), replicas=0, within=1.0
            )

        assert (reply, count) == ([1], 0)

    async def test_nothing_is_left_open(self, client: Redis, any_redis: RedisServer):
        """Connections that were made beside the pool are closed with their last reply."""
        async with Redis.from_url(any_redis.url) as other, all_taken(client):
            before = len(await other.client_list())
            locks = [MutexLock(client, f"k{number}", 60) for number in range(20)]
            assert all(await asyncio.gather(*(lock.acquire() for lock in locks)))
            assert all(await asyncio.gather(*(lock.release() for lock in locks)))

            async with asyncio.timeout(10):
                while len(await other.client_list()) > before:
                    await asyncio.sleep(0.01)

    async def test_given_up_calls_leave_nothing_open(self, client: Redis, any_redis: RedisServer):
        """A connection whose callers are all cancelled is closed, though its reply has not come."""
        async with all_taken(client):
            wire = coordinator_for(client).scripts._sender._shared
            assert wire is not None

            if wire._link is not None:
                wire._link.abort()

            task = asyncio.create_task(wire.call(("BLPOP", "never", 0), 30))

            while wire._link is None or wire._link.closed:
                await asyncio.sleep(0)

            link = wire._link
            task.cancel()
            await asyncio.wait([task])
            assert link.closed


class TestSmallPool:
    """A pool with few connections, not all in use."""

    async def test_a_waiter_takes_none_for_long(self, any_redis: RedisServer):
        """While a task waits, the application still has its only connection."""
        pool = ConnectionPool.from_url(any_redis.url, max_connections=1)

        async with (
            Redis.from_pool(pool) as client,
            Redis.from_url(any_redis.url) as onlooker,
            MutexLock(any_redis.url, "k", 60) as first,
        ):
            assert await first.acquire()
            second = MutexLock(client, "k", 60)
            waiting = asyncio.create_task(second.acquire(None))
            await until_waiting(first)

            while not await onlooker.pubsub_channels("wsl:hub:*"):
                await asyncio.sleep(0.01)

            async with asyncio.timeout(5):
                while not pool.can_get_connection():
                    await asyncio.sleep(0.01)

            assert await client.ping()
            assert await first.release()
            assert await waiting
            assert await second.release()
            assert await client.ping()
