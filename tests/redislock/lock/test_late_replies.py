"""Acquisitions whose replies are late, missing or a refusal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.redislock._helpers import until_waiting
from tools.servers import RedisServer
from ws_redislock import LeaderElection, MutexLock
from ws_redislock._coordination.coordinator import coordinator_for
from ws_redislock._lease.lease import boot_time
from ws_redislock._lock import acquisition
from ws_redislock._redis.script_client import ScriptClient
from ws_redislock.errors import UnavailableError


class TestAcquire:
    """AcquireProtocol against odds."""

    async def test_late_reply(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """A reply that comes after its own lease acquires nothing, and leaves nothing on the server."""
        lock = MutexLock(redis7, "k", 60)

        with monkeypatch.context() as patch:
            now = boot_time
            patch.setattr(acquisition, "boot_time", lambda: now() + 61)
            assert not await lock.acquire()

        await lock.aclose()
        assert not await lock.exists()

    async def test_refused_by_the_server(self, redis7: Redis):
        """A waiter whose acquisition was given up on the server says so instead of waiting on."""
        first, second = MutexLock(redis7, "k", 60), MutexLock(redis7, "k", 60)
        assert await first.acquire()
        waiting = asyncio.create_task(second.acquire(None))
        await until_waiting(first)
        coordinator = coordinator_for(redis7)
        (token,) = coordinator._waiters
        await second._protocol._abandon(coordinator, token, 5.0)
        coordinator.wake([token])

        with pytest.raises(UnavailableError, match="gave up this acquisition"):
            await waiting

        assert await first.release()
        await second.aclose()

    async def test_without_an_answer_from_replicas(self, redis7: Redis, monkeypatch: pytest.MonkeyPatch):
        """Without an answer about the replicas the lock is not held, and is undone on the server."""
        confirmed = ScriptClient.confirmed

        async def lose_reply(*args: Any, **kwargs: Any) -> Any:  # Any: passed on
            await confirmed(*args, **{**kwargs, "replicas": 0})
            raise exceptions.TimeoutError("the reply was lost")

        monkeypatch.setattr(ScriptClient, "confirmed", lose_reply)
        lock = MutexLock(redis7, "k", 60, min_replicas=1)

        with pytest.raises(UnavailableError, match="did not answer: the reply was lost"):
            await lock.acquire()

        await lock.aclose()
        assert not await lock.exists()

    async def test_a_key_of_another_type_with_replicas(self, redis7: Redis):
        """A mistake in the data stays what it is."""
        await redis7.set("wsl:m:{k}:holders", "x")
        lock = MutexLock(redis7, "k", 1, min_replicas=1)  # WAIT takes a quarter of it, without replicas

        with pytest.raises(exceptions.ResponseError, match=r"WRONGTYPE|caused error"):
            await lock.acquire()

        await lock.aclose()


async def test_leader_without_credentials(redis_server: RedisServer):
    """A candidate whose credentials are refused stops standing for election."""
    host, port = redis_server.address

    async with (
        Redis(
            host=host, port=port, username="nobody", password="wrong", retry=Retry(NoBackoff(), 0)
        ) as client,
        LeaderElection(client, "k", lease=1) as election,
    ):
        with pytest.raises(UnavailableError) as caught:
            await anext(election)

        assert isinstance(caught.value.__cause__, exceptions.AuthenticationError)
        assert not election.leading
