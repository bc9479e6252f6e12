"""Keys that begin as their user says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.redislock._helpers import until_waiting
from tools.servers import RedisServer
from ws_redislock import (
    ConfigError,
    FrequencyLimiter,
    LeaderElection,
    MultiLock,
    MutexLock,
    ReadWriteLock,
    RunClaims,
    Semaphore,
    SlidingWindowLimiter,
    TokenBucketLimiter,
)
from ws_redislock.admin import list_locks, reset_lock


class TestKeyPrefix:
    """`key_prefix` of everything that has keys."""

    async def test_of_all_kinds(self, redis: Redis, any_redis: RedisServer):
        """With rights on keys of the prefix only, everything works, and leaves no other keys."""
        rules = ["reset", "on", ">secret", "~shop:*", "resetchannels", "&wsl:hub:*", "+@all"]
        await redis.execute_command("ACL", "SETUSER", "shop", *rules)

        async with Redis(
            host=any_redis.host, port=any_redis.port, username="shop", password="secret"
        ) as client:
            mutex = MutexLock(client, "k", 60, key_prefix="shop")

            async with (
                mutex.hold(),
                Semaphore(client, "k", 2, 60, key_prefix="shop").hold(),
                ReadWriteLock(client, "k", 60, key_prefix="shop").read().hold(),
                MultiLock(client, ["a", "b"], 60, key_prefix="shop").hold(),
                LeaderElection(client, "k", key_prefix="shop") as election,
            ):
                await anext(election)
                assert len(await list_locks(client, key_prefix="shop")) == 6

            for limiter in (
                FrequencyLimiter(client, 60, 2, key_prefix="shop"),
                SlidingWindowLimiter(client, 60, 2, key_prefix="shop"),
                TokenBucketLimiter(client, 1, 2, key_prefix="shop"),
            ):
                assert (await limiter.hit("k")).remaining == 1

            claims = RunClaims(client, key_prefix="shop")
            assert await claims.claim("r", 60)
            assert (await claims.claim_run("r", 60, task="t")).claimed

        keys: list[Any] = await redis.keys("*")  # Any: typed as text, whatever the client decodes
        assert len(keys) > 10
        assert [key for key in keys if not key.startswith(b"shop:")] == []

    async def test_names_are_apart(self, redis: Redis):
        """Locks of one name under different prefixes have nothing to do with each other."""
        one, two = MutexLock(redis, "k", 60, key_prefix="one"), MutexLock(redis, "k", 60, key_prefix="two")
        assert await one.acquire()
        assert await two.acquire()
        third = MutexLock(redis, "k", 60, key_prefix="one")
        waiting = asyncio.create_task(third.acquire(10))
        await until_waiting(one)
        assert await two.release()
        assert not waiting.done()
        assert await reset_lock(redis, "k", key_prefix="one")
        assert await waiting
        assert not await one.release()
        assert await third.release()

    @pytest.mark.parametrize("prefix", ["", "a{b", "a*", "ä", "x" * 65, None, 5])
    async def test_bad_input(self, redis7: Redis, prefix: object):
        """A prefix that would move the hash tag, or that patterns read otherwise, is refused."""
        for make in (
            lambda: MutexLock(redis7, "k", 60, key_prefix=prefix),  # type: ignore[arg-type]
            lambda: RunClaims(redis7, key_prefix=prefix),  # type: ignore[arg-type]
            lambda: FrequencyLimiter(redis7, 60, 2, key_prefix=prefix),  # type: ignore[arg-type]
        ):
            with pytest.raises(ConfigError, match="key_prefix must be"):
                make()
