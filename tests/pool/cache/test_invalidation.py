"""Results that are forgotten on purpose, by key and by tag."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.pool.cache._support import Runs, turns
from ws_pool.cache import CacheWrap, ShareCache


class TestInvalidation:
    async def test_by_key(self, make: Callable[..., ShareCache]) -> None:
        """Only the call that is named is forgotten."""
        runs = Runs()

        @make("i1")
        async def f(n: int) -> Any:
            return await runs.run(n)

        await f(1)
        await f(2)
        await f.invalidate(n=1)
        await f(2)
        assert runs.count == 2
        assert (await f(1))["n"] == 3
        assert (await f(1))["n"] == 3

    async def test_by_tag(self, make: Callable[..., ShareCache]) -> None:
        """All functions with the tag forget, others do not."""
        runs = Runs()
        one, other = make("i2"), make("i3")

        @one
        async def f() -> Any:
            return await runs.run()

        @make("i2")
        async def g() -> Any:
            return await runs.run()

        @other
        async def h() -> Any:
            return await runs.run()

        for function in (f, g, h):
            await function()

        await one.invalidate()

        for function in (f, g, h):
            await function()

        assert runs.count == 5

    @pytest.mark.parametrize("by_tag", [False, True])
    async def test_while_it_is_computed(self, make: Callable[..., ShareCache], *, by_tag: bool) -> None:
        """What was read before an invalidation is never stored after it."""
        runs = Runs()
        runs.gate = asyncio.Event()
        cache = make("i4")

        @cache
        async def f() -> Any:
            return await runs.run()

        old = asyncio.create_task(f())
        await runs.begun.wait()
        await (cache.invalidate() if by_tag else f.invalidate())
        runs.gate.set()
        assert (await old)["n"] == 1
        assert cache.statistics().rejected == 1
        assert (await f())["n"] == 2
        assert (await f())["n"] == 2

    @pytest.mark.parametrize("by_tag", [False, True])
    async def test_a_read_that_begins_after_it(
        self, make: Callable[..., ShareCache], *, by_tag: bool
    ) -> None:
        """A call in flight is not joined by one that begins after the invalidation."""
        runs = Runs()
        runs.gate = asyncio.Event()
        cache = make("i6")

        @cache
        async def f() -> Any:
            return await runs.run()

        old = asyncio.create_task(f())
        await runs.begun.wait()
        await (cache.invalidate() if by_tag else f.invalidate())
        new = asyncio.create_task(f())
        await turns()
        runs.gate.set()
        assert (await old)["n"] == 1
        assert (await new)["n"] == 2
        assert (await f())["n"] == 2

    async def test_a_read_after_an_invalidation_by_another_process(self, redis_url: str) -> None:
        """Calls that joined one in flight look again when its result was refused."""
        runs = Runs()
        runs.gate = asyncio.Event()

        async with Redis.from_url(redis_url) as client:
            here, there = (ShareCache("i7", redis=client, redis_timeout=30) for _ in range(2))

            @here
            async def f() -> Any:
                return await runs.run()

            old = asyncio.create_task(f())
            await runs.begun.wait()
            await there.invalidate()
            new = [asyncio.create_task(f()) for _ in range(3)]
            await turns()
            runs.gate.set()
            assert (await old)["n"] == 1
            assert [(await task)["n"] for task in new] == [2, 2, 2]

    async def test_a_wrap_that_is_cleared_while_it_computes(self) -> None:
        """CacheWrap does not keep what was computed before it was cleared, nor hand it on."""
        runs = Runs()
        runs.gate = asyncio.Event()

        @CacheWrap()
        async def f() -> Any:
            return await runs.run()

        old = asyncio.create_task(f())
        await runs.begun.wait()
        f.cache_clear()  # type: ignore[attr-defined]
        new = asyncio.create_task(f())
        await turns()
        runs.gate.set()
        assert ((await old)["n"], (await new)["n"], (await f())["n"]) == (1, 2, 2)

    async def test_refresh(self, make: Callable[..., ShareCache]) -> None:
        """refresh() runs the function now, and the result replaces the old one."""
        runs = Runs()

        @make("i5")
        async def f() -> Any:
            return await runs.run()

        await f()
        assert (await f.refresh())["n"] == 2
        assert (await f())["n"] == 2


async def test_an_invalidation_that_makes_room() -> None:
    """A small cache drops the note of an invalidation, and remembers all the same that there was one."""
    runs = Runs()
    runs.gate = asyncio.Event()

    @ShareCache("room", maxsize=1)
    async def f(n: int) -> Any:
        return await runs.run(n) if n == 1 else n

    early = asyncio.create_task(f(1))
    await runs.begun.wait()
    await f.invalidate(1)
    await f(2)
    runs.gate.set()
    assert (await early)["n"] == 1
    assert (await f(1))["n"] == 2


async def test_a_run_that_outlasts_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that took longer than invalidations are remembered may be from before one: it is not kept."""
    monkeypatch.setattr("ws_pool._cache.share._COMPUTING", -60.0)
    runs = Runs()

    @ShareCache("long", ttl=60)
    async def f() -> Any:
        return await runs.run()

    assert [(await f())["n"], (await f())["n"]] == [1, 2]


def test_a_plain_function_while_the_cache_is_cleared() -> None:
    """What was computed from before the clear is not kept after it."""
    numbers = iter(range(9))

    @CacheWrap()
    def f() -> int:
        number = next(numbers)

        if not number:
            f.cache_clear()  # type: ignore[attr-defined]

        return number

    assert [f(), f(), f()] == [0, 1, 1]
