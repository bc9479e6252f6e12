"""Listing locks, and taking them away by name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from tests.redislock._helpers import until_waiting
from tools.servers import ClusterServers, RedisServer
from ws_redislock import (
    ConfigError,
    FrequencyLimiter,
    LeaderElection,
    MutexLock,
    ReadWriteLock,
    RunClaims,
    Semaphore,
    UnavailableError,
)
from ws_redislock.admin import LockInfo, list_locks, reset_lock


class TestListLocks:
    """Which locks there are."""

    async def test_of_all_kinds(self, redis: Redis):
        """Each kind is listed with its holders, their time, its waiters and its fence; nothing else is."""
        readers = ReadWriteLock(redis, "rw", 60)
        permits = [Semaphore(redis, "s", 2, 60) for _ in range(2)]
        mutex, waiting = MutexLock(redis, "{odd}%", 60), MutexLock(redis, "{odd}%", 60)
        election = LeaderElection(redis, "l", lease=60)
        assert await FrequencyLimiter(redis, 60, 2).is_limited("k") is False
        assert await RunClaims(redis).claim("run", 60)
        await redis.set("wsl:m:{no}:holdersx", "x")

        async with readers.read().hold() as reader, mutex.hold() as held, election:
            await anext(election)
            assert all([await lock.acquire() for lock in permits])
            task = asyncio.create_task(waiting.acquire(None))
            await until_waiting(mutex)
            leader, first, second, third = await list_locks(redis)
            assert (leader.kind, leader.name, list(leader.holders)) == (
                "election",
                "l",
                [await election.leader()],
            )
            assert (first.kind, first.name, first.waiters, first.fence) == ("mutex", "{odd}%", 1, held.fence)
            assert list(first.holders) == [held.token]
            assert 59 < first.holders[held.token] <= 60
            assert (second.kind, list(second.holders)) == ("read_write", [reader.token])
            assert (third.kind, set(third.holders)) == (
                "semaphore",
                {lock.current().token for lock in permits},
            )
            task.cancel()
            await asyncio.wait([task])

            for lock in permits:
                await lock.release()

        assert await list_locks(redis) == []

    async def test_by_a_pattern(self, redis: Redis):
        """Only names that match are listed, and at most so many."""
        locks = [MutexLock(redis, f"{kind}:{number}", 60) for kind in "ab" for number in range(150)]
        assert all(await asyncio.gather(*(lock.acquire() for lock in locks)))
        assert [lock.name for lock in await list_locks(redis, "a:1?")] == [
            f"a:{number}" for number in range(10, 20)
        ]
        assert len(await list_locks(redis, "b*")) == 150
        assert len(await list_locks(redis, limit=7)) == 7
        await asyncio.gather(*(lock.release() for lock in locks))

    async def test_decoded_replies(self, any_redis: RedisServer):
        """A client that decodes replies works the same."""
        async with (
            Redis.from_url(any_redis.url, decode_responses=True) as client,
            MutexLock(client, "k", 60).hold() as held,
        ):
            [lock] = await list_locks(client)
            assert isinstance(lock, LockInfo)
            assert list(lock.holders) == [held.token]

    async def test_in_a_cluster(self, cluster_servers: ClusterServers):
        """Locks are found on all nodes."""
        async with RedisCluster.from_url(cluster_servers.url) as client:
            locks = [MutexLock(client, f"k{number}", 60) for number in range(12)]
            assert all([await lock.acquire() for lock in locks])
            assert {lock.name for lock in await list_locks(client)} == {lock.name for lock in locks}
            assert all([await lock.release() for lock in locks])

    async def test_a_client_of_its_own(self, redis: Redis, any_redis: RedisServer):
        """One that was made from a URL is closed."""
        lock = MutexLock(redis, "k", 60)
        assert await lock.acquire()
        before = len(await redis.client_list())
        assert [found.name for found in await list_locks(any_redis.url)] == ["k"]
        assert await reset_lock(any_redis.url, "k")

        while len(await redis.client_list()) > before:
            await asyncio.sleep(0.01)

        assert not await lock.release()

    async def test_errors(self, redis7: Redis):
        """What cannot work is refused; rights that are missing and silence are named."""
        for limit in (0, True, "1"):
            with pytest.raises(ConfigError, match="limit must be"):
                await list_locks(redis7, limit=limit)  # type: ignore[arg-type]

        with pytest.raises(ConfigError, match="pattern's name"):
            await list_locks(redis7, "")

        with pytest.raises(UnavailableError, match="did not answer SCAN"):
            await list_locks("redis://127.0.0.1:1/0")

    async def test_without_rights(self, redis_server: RedisServer, redis7: Redis):
        """The error names the command that was refused, and where the rights are listed."""
        await redis7.execute_command("ACL", "SETUSER", "viewer", "reset", "on", ">secret", "~*", "+get")
        login: dict[str, Any] = {"username": "viewer", "password": "secret"}

        async with (
            MutexLock(redis7, "k", 60).hold(),
            Redis(host=redis_server.host, port=redis_server.port, **login) as viewer,
        ):
            with pytest.raises(UnavailableError, match=r"refused SCAN.*under 'Rights'"):
                await list_locks(viewer)

            await redis7.execute_command("ACL", "SETUSER", "viewer", "+scan", "+evalsha", "+eval")

            with pytest.raises(UnavailableError, match=r"refused DESCRIBE.*under 'Rights'"):
                await list_locks(viewer)

    async def test_a_key_of_another_type(self, redis7: Redis):
        """A mistake in the data is not hidden."""
        await redis7.set("wsl:m:{k}:holders", "x")

        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await list_locks(redis7)


class TestResetLock:
    """Taking a lock away by its name."""

    async def test_of_each_kind(self, redis: Redis):
        """The holder loses it, and the next waiter has it."""
        first, second = MutexLock(redis, "k", 60), MutexLock(redis, "k", 60)
        assert await first.acquire()
        waiting = asyncio.create_task(second.acquire(10))
        await until_waiting(first)
        assert await reset_lock(redis, "k")
        assert await waiting
        assert not await first.release()
        assert await second.release()
        assert not await reset_lock(redis, "k")

        async with Semaphore(redis, "s", 2, 60) as semaphore:
            assert await semaphore.acquire()
            assert await reset_lock(redis, "s", "semaphore")
            assert await semaphore.holders() == []

    async def test_an_unknown_kind(self, redis7: Redis):
        """It is refused, and the error lists the kinds."""
        with pytest.raises(ConfigError, match="kind must be one of mutex, semaphore"):
            await reset_lock(redis7, "k", "lock")  # type: ignore[arg-type]
