"""How long a result is kept, and who renews it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.clock import Clock
from tests.pool.cache._support import Runs, turns
from ws_pool.cache import ShareCache


class TestTime:
    async def test_ttl_with_jitter(self) -> None:
        """A result lives between (1 - jitter)·ttl and ttl."""
        clock, runs = Clock(), Runs()

        @ShareCache("e1", ttl=100, jitter=0.2, clock=clock)
        async def f() -> Any:
            return await runs.run()

        await f()
        clock.now += 79.9
        await f()
        assert runs.count == 1
        clock.now += 20.2
        await f()
        assert runs.count == 2

    async def test_redis_forgets(self, redis_url: str) -> None:
        """Every key in Redis that holds a value has a time to live."""
        async with Redis.from_url(redis_url) as client:

            @ShareCache("e2", ttl=100, jitter=0, stale=50, redis=client, redis_timeout=30)
            async def f() -> int:
                return 1

            await f()
            await f.invalidate()
            await f.refresh()
            [key] = [key async for key in client.scan_iter("*:k:*")]
            assert 149 <= await client.ttl(key) <= 150

    async def test_stale_while_revalidate(self, make: Callable[..., ShareCache]) -> None:
        """After its time the old result is given while one run makes a new one."""
        clock, runs = Clock(), Runs()
        cache = make("e3", ttl=100, jitter=0, stale=50, clock=clock)

        @cache
        async def f() -> Any:
            return await runs.run()

        assert (await f())["n"] == 1
        clock.now += 120
        runs.gate = asyncio.Event()
        assert [(await f())["n"] for _ in range(3)] == [1, 1, 1]
        await asyncio.wait_for(runs.begun.wait(), 5)
        runs.gate.set()
        await cache.drain()
        assert (await f())["n"] == 2
        assert (runs.count, cache.statistics().refreshes) == (2, 1)

    async def test_a_failed_renewal_keeps_the_old(self, caplog: pytest.LogCaptureFixture) -> None:
        """An error while renewing is logged; the old result stays as long as it may."""
        clock, runs = Clock(), Runs()
        cache = ShareCache("e4", ttl=100, jitter=0, stale=50, clock=clock)

        @cache
        async def f() -> Any:
            return await runs.run()

        await f()
        clock.now += 120
        runs.fail = ValueError("no")
        assert (await f())["n"] == 1
        await cache.drain()
        assert "could not be renewed" in caplog.text
        clock.now += 40

        with pytest.raises(ValueError, match="no"):
            await f()

    async def test_expiry_while_renewing(self) -> None:
        """When the old result ends while a new one is made, that one is waited for."""
        clock, runs = Clock(), Runs()
        cache = ShareCache("e5", ttl=100, jitter=0, stale=50, clock=clock)

        @cache
        async def f() -> Any:
            return await runs.run()

        await f()
        clock.now += 120
        runs.gate = asyncio.Event()
        await f()
        await turns()
        clock.now += 100
        late = asyncio.create_task(f())
        await turns()
        runs.gate.set()
        assert (await late)["n"] == 2
        assert runs.count == 2

    async def test_early_renewal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Shortly before the end, by chance and by cost, a result is renewed in the background."""
        clock, runs = Clock(), Runs()
        monkeypatch.setattr("ws_pool._cache.share.time.perf_counter", clock)
        cache = ShareCache("e6", ttl=100, jitter=0, early=1, clock=clock)

        @cache
        async def f() -> Any:
            clock.now += 10
            return await runs.run()

        await f()
        monkeypatch.setattr("ws_pool._cache.share.spread", lambda *_: 0.99)
        clock.now += 50
        assert (await f())["n"] == 1
        await cache.drain()
        assert runs.count == 1, "46 s before its time at the most"
        clock.now += 10
        assert (await f())["n"] == 1
        await cache.drain()
        assert runs.count == 2
