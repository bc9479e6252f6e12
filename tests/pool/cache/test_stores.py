"""Sharing through Redis: what is stored, one load for a cluster, and Redis being down."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.clock import Clock
from tests.pool.cache._support import Runs, turns
from ws_core.sources import client_getter
from ws_pool.cache import ShareCache


class TestRedis:
    async def test_processes_share(self, redis_url: str) -> None:
        """Two caches on one server, as in two processes, see each other's results."""
        runs = Runs()

        def make(client: Redis) -> Any:
            async def f(n: int) -> Any:
                return await runs.run(n)

            f.__qualname__ = "shared"
            cache = ShareCache("r1", redis=client, redis_timeout=30)
            return cache(f), cache

        async with Redis.from_url(redis_url) as a, Redis.from_url(redis_url) as b:
            (f, cache), (g, _) = make(a), make(b)
            assert await f(1) == await g(1)
            assert runs.count == 1
            await f.invalidate(1)
            await g(1)
            assert runs.count == 2
            await cache.invalidate()
            await g(1)
            assert runs.count == 3

    async def test_types_are_the_same_for_all(self, redis_url: str) -> None:
        """The first caller, too, gets what the codec makes of the result."""
        async with Redis.from_url(redis_url) as client:

            @ShareCache("r2", redis=client, redis_timeout=30)
            async def f() -> Any:
                return {1: (2, 3)}

            assert await f() == await f() == {"1": [2, 3]}

    async def test_what_cannot_be_encoded(self, redis_url: str) -> None:
        """A result that the codec refuses is an error, not something uncached in silence."""
        async with Redis.from_url(redis_url) as client:

            @ShareCache("r3", redis=client, redis_timeout=30)
            async def f() -> Any:
                return object()

            with pytest.raises(TypeError):
                await f()

    async def test_another_codec(self, redis_url: str) -> None:
        """A codec may return bytes of any kind."""
        codec = SimpleNamespace(dumps=pickle.dumps, loads=pickle.loads)

        async with Redis.from_url(redis_url) as client:

            @ShareCache("r4", redis=client, redis_timeout=30, codec=codec)
            async def f() -> Any:
                return {1: (2, b"\n\xff")}

            assert await f() == await f() == {1: (2, b"\n\xff")}

    async def test_rubbish_is_a_miss(self, redis_url: str) -> None:
        """A key that holds something else is computed anew."""
        async with Redis.from_url(redis_url) as client:

            @ShareCache("r5", redis=client, redis_timeout=30)
            async def f() -> int:
                return 1

            await f()
            [key] = [key async for key in client.scan_iter("*:k:*")]

            for rubbish in (b"", b"x", b"ws1 a b c", b"\xff\xff"):
                await client.set(key, rubbish)
                assert await f() == 1

    async def test_redis_is_down(self, caplog: pytest.LogCaptureFixture, unused_tcp_port: int) -> None:
        """Without Redis the function runs each time, which is logged and counted."""
        runs = Runs()

        async with Redis.from_url(f"redis://127.0.0.1:{unused_tcp_port}", retry=None) as client:
            cache = ShareCache("r6", redis=client, redis_timeout=30)

            @cache
            async def f() -> Any:
                return await runs.run()

            await f()
            await f()
            assert runs.count == 2
            assert (cache.statistics().errors, cache.statistics().bypassed) == (1, 1)
            assert "going on without" in caplog.text

            with pytest.raises(RedisConnectionError):
                await f.invalidate()

    async def test_redis_fails_between(self, caplog: pytest.LogCaptureFixture) -> None:
        """A failure to store does not fail the call."""

        class Half:
            async def mget(self, keys: list[str]) -> list[bytes | None]:
                return [b"v", None]

            async def eval(self, *_: object) -> None:
                raise OSError("gone")

        cache = ShareCache("r7", redis=Half(), redis_timeout=30)

        @cache
        async def f() -> int:
            return 1

        assert await f() == 1
        assert "cannot write" in caplog.text

    async def test_once_per_cluster(self, redis_url: str) -> None:
        """With a lock, callers in several processes run the function once."""
        runs = Runs()
        held: dict[str, asyncio.Lock] = {}

        @contextlib.asynccontextmanager
        async def lock(name: str) -> AsyncIterator[None]:
            async with held.setdefault(name, asyncio.Lock()):
                yield

        clients = [Redis.from_url(redis_url) for _ in range(5)]
        functions = []

        for client in clients:

            async def f() -> Any:
                await turns()
                return await runs.run()

            f.__qualname__ = "locked"
            functions.append(ShareCache("r8", redis=client, redis_timeout=30, lock=lock)(f))

        results = await asyncio.gather(*(function() for function in functions))
        assert [result["n"] for result in results] == [1] * 5

        for client in clients:
            await client.aclose()

    async def test_a_lock_that_fails(self, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
        """Without the lock the function runs all the same."""

        @contextlib.asynccontextmanager
        async def lock(name: str) -> AsyncIterator[None]:
            if name:
                raise OSError("no lock")

            yield

        async with Redis.from_url(redis_url) as client:

            @ShareCache("r9", redis=client, redis_timeout=30, lock=lock)
            async def f() -> int:
                return 1

            assert await f() == 1

        assert "cannot lock" in caplog.text

    async def test_renewal_takes_the_lock(self, redis_url: str) -> None:
        """One process renews; when the lock is not to be had, nobody does it twice."""
        clock, runs = Clock(), Runs()
        names: list[str] = []

        @contextlib.asynccontextmanager
        async def lock(name: str) -> AsyncIterator[None]:
            names.append(name)

            if len(names) == 2:
                raise OSError("taken")

            yield

        async with Redis.from_url(redis_url) as client:
            cache = ShareCache(
                "r10", redis=client, redis_timeout=30, lock=lock, ttl=100, jitter=0, stale=500, clock=clock
            )

            @cache
            async def f() -> Any:
                return await runs.run()

            for expected in (1, 1, 2):
                await f()
                await cache.drain()
                assert runs.count == expected
                clock.now += 120

        assert len(set(names)) == 1

    def test_what_may_be_given_as_redis(self) -> None:
        """A client, a pool, a manager, or a function that returns a client."""
        client = SimpleNamespace(mget=None)

        class Pool:
            @property
            def redis(self) -> object:
                return client

        class Manager:
            def get_pool(self) -> Pool:
                return Pool()

        for source in (client, Pool(), Manager(), lambda: client):
            assert client_getter(source, "mget")() is client
