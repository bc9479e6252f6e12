"""Connections: how many are used, and that none is left behind."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from redis.asyncio import ConnectionPool, Redis

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_redislock import (
    FrequencyLimiter,
    LockNotAcquired,
    MultiLock,
    MutexLock,
    ReadWriteLock,
    RunClaims,
    TokenBucketLimiter,
)
from ws_redislock._redis import connection


class TestOnePool:
    """All that works on one pool shares one of its connections."""

    async def test_many_limiters_and_locks(self, any_redis: RedisServer):
        """However many limiters, claims and coordinators there are, the pool keeps its connections."""
        pool = ConnectionPool.from_url(any_redis.url, max_connections=10, client_name="these")

        async with Redis.from_pool(pool) as client:
            for number in range(15):
                assert await FrequencyLimiter(client, 60, 5).hit(f"k{number}")
                assert await TokenBucketLimiter(client, 5, 5).hit(f"k{number}")
                assert await RunClaims(client).claim(f"run{number}", 60)

                async with MutexLock(client, f"k{number}", 60).hold():
                    pass

                gc.collect()

            assert await client.ping()
            # Of this test: connections of others may still be about to close.
            ours = [entry for entry in await client.client_list() if entry["name"] == "these"]
            assert 1 <= len(ours) <= 2

    async def test_lives_as_long_as_its_connection(self, redis: Redis, monkeypatch: pytest.MonkeyPatch):
        """A wire that nobody uses is found again while it has a connection, and then is forgotten."""
        monkeypatch.setattr(connection, "IDLE", 0.3)

        async with MutexLock(redis, "k", 60).hold():
            wire = weakref.ref(connection.SharedConnection.to(redis.connection_pool))

        gc.collect()
        assert wire() is connection.SharedConnection.to(redis.connection_pool)

        while wire() is not None:
            await asyncio.sleep(0.01)
            gc.collect()


async def clients_of(server: RedisServer) -> int:
    """Count a server's connections beside the one that calls."""
    async with Redis(host=server.host, port=server.port, db=15) as client:
        return sum(entry["db"] != "15" for entry in await client.client_list())


class TestOwnClients:
    """Clients made from a URL."""

    @pytest.mark.parametrize("fails", [False, True])
    async def test_hold_closes_them(self, start_server: StartServer, fails: bool):
        """A hold() outside of any block leaves no connection, whether it got the lock or not."""
        server = start_server(RedisServer)
        blockers = (
            [MutexLock(server.url, "a", 60), ReadWriteLock(server.url, "a", 60).write()] if fails else []
        )

        for blocker in blockers:
            assert await blocker.acquire()

        before = await clients_of(server)
        several = MultiLock(server.url, ["a", "b", "c"], 60)

        for holding in (
            MutexLock(server.url, "a", 60).hold(0),
            ReadWriteLock(server.url, "a", 60).read().hold(0),
            several.hold(2.0 if fails else 30.0),
            several.hold(2.0 if fails else 30.0),
        ):
            if fails:
                with pytest.raises(LockNotAcquired):
                    await holding.__aenter__()
            else:
                async with holding:
                    assert await clients_of(server) == before + 1

        while await clients_of(server) > before:
            await asyncio.sleep(0.01)

        for blocker in blockers:
            await blocker.aclose()

    async def test_a_block_keeps_them(self, any_redis: RedisServer):
        """In a block of the lock's own the client serves every hold()."""
        async with MutexLock(any_redis.url, "a", 60) as lock, MultiLock(any_redis.url, ["b", "c"]) as several:
            for _ in range(2):
                async with lock.hold(), several.hold():
                    coordinator, other = lock._coordinator, several._locks[0]._coordinator

                assert lock._coordinator is coordinator
                assert several._locks[0]._coordinator is other

        assert lock._coordinator is None

    async def test_a_nested_hold_keeps_them(self, any_redis: RedisServer):
        """The end of an inner hold() of a reentrant lock releases neither lock nor client."""
        lock = MutexLock(any_redis.url, "k", 60, reentrant=True)

        async with lock.hold() as outer:
            async with lock.hold():
                pass

            assert outer.locked
            assert await lock.exists()

        assert lock._coordinator is None


class TestEndOfTheLoop:
    """Connections that are on their way back when a loop ends."""

    async def test_one_that_was_given_up_is_closed_at_once(self, redis: Redis):
        """Its streams are closed without another turn of the loop, and the next call has a new one."""
        lock = MutexLock(redis, "k", 60)
        assert await lock.acquire()
        wire = connection.SharedConnection.to(redis.connection_pool)
        link = wire._link
        assert link is not None
        link.abort()
        assert not link._connection.is_connected
        assert await lock.release()
