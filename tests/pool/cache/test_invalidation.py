"""Results that are forgotten on purpose, by key and by tag."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.pool.cache._support import Runs
from ws_pool.cache import ShareCache


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

    async def test_refresh(self, make: Callable[..., ShareCache]) -> None:
        """refresh() runs the function now, and the result replaces the old one."""
        runs = Runs()

        @make("i5")
        async def f() -> Any:
            return await runs.run()

        await f()
        assert (await f.refresh())["n"] == 2
        assert (await f())["n"] == 2
