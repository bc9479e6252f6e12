"""Threads: the application has all connections of its pool in use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import BlockingConnectionPool, ConnectionPool, Redis

from tests.redislock._threads import until, waiting_for
from tools.servers import RedisServer
from ws_redislock.sync import FrequencyLimiter, MutexLock

POOLS: list[tuple[type[ConnectionPool], int]] = [
    (ConnectionPool, 1),
    (BlockingConnectionPool, 1),
    (ConnectionPool, 8),
    (BlockingConnectionPool, 8),
]


@contextlib.contextmanager
def all_taken(client: Redis) -> Iterator[None]:
    """Take every connection out of a client's pool."""
    pool: Any = client.connection_pool
    taken = [pool.get_connection() for _ in range(pool.max_connections)]

    try:
        yield
    finally:
        for connection in taken:
            pool.release(connection)


@pytest.fixture(params=POOLS, ids=lambda of: f"{of[0].__name__}-{of[1]}")
def client(request: pytest.FixtureRequest, any_redis: RedisServer) -> Iterator[Redis]:
    """Yield a client whose pool is soon exhausted."""
    kind, size = request.param

    with Redis(connection_pool=kind.from_url(any_redis.url, max_connections=size)) as client:
        yield client
        client.connection_pool.disconnect()


class TestExhausted:
    """No connection is to be had."""

    def test_a_lease_is_kept(self, client: Redis):
        """The watchdog renews; giving back and acquiring work as well."""
        lost: list[object] = []
        lock = MutexLock(client, "k", 2, on_lost=lost.append)
        assert lock.acquire()

        with all_taken(client):
            for _ in range(2):
                deadline = lock.current()._lease.deadline
                until(lambda before=deadline: lock.current()._lease.deadline > before)  # type: ignore[misc]

            assert lock.locked
            assert lock.release()
            assert lock.acquire()
            assert FrequencyLimiter(client, 60, 1).is_limited("k") is False
            assert lock.release()

        assert lost == []

    def test_waiters_are_served(self, client: Redis):
        """A waiter is woken, and what it listened on is not one of the application's connections."""
        first = MutexLock(client, "k", 60)
        second = MutexLock(client, "k", 60, heartbeat=60)
        assert first.acquire()

        with ThreadPoolExecutor() as threads:
            with all_taken(client):
                waiting = threads.submit(second.acquire, None)
                waiting_for(first)
                assert first.release()
                assert waiting.result(10)  # without a wake-up it would look after 20 s

            assert client.ping()

        assert second.release()
