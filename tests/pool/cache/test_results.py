"""What a cache returns back: for functions and methods, for every kind of result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.pool.cache._support import Runs
from ws_pool.cache import ShareCache


class TestResults:
    async def test_equal_calls_run_once(self, make: Callable[..., ShareCache]) -> None:
        """A second call with equal arguments is answered from the cache."""
        runs = Runs()
        cache = make("t1")

        @cache
        async def f(a: int, b: int = 2, *, c: int = 3) -> Any:
            return await runs.run((a, b, c))

        first = await f(1)
        assert await f(1, 2) == await f(a=1, c=3) == first
        assert runs.count == 1
        await f(2)
        assert runs.count == 2
        statistics = cache.statistics()
        assert (statistics.hits, statistics.misses) == (2, 2)

    @pytest.mark.parametrize("value", [0, "", [], {}, False, None])
    async def test_falsy_results_are_results(self, make: Callable[..., ShareCache], value: object) -> None:
        """Nothing false about them: they are kept like others."""
        count = 0

        @make("t2")
        async def f() -> object:
            nonlocal count
            count += 1
            return value

        assert await f() == await f() == value
        assert count == 1

    async def test_none_is_kept_only_if_told(self, make: Callable[..., ShareCache]) -> None:
        """With cache_none=False None is not kept, but other falsy results are."""
        results: list[Any] = [None, 0, 1]

        @make("t3", cache_none=False)
        async def f() -> Any:
            return results.pop(0)

        assert [await f(), await f(), await f()] == [None, 0, 0]

    async def test_names_of_functions_are_kept(self, make: Callable[..., ShareCache]) -> None:
        """The cached function looks like the function."""

        @make("t4")
        async def f() -> None:
            """Do it."""

        assert (f.__name__, f.__doc__) == ("f", "Do it.")  # type: ignore[attr-defined]
        assert asyncio.iscoroutinefunction(f)

    async def test_methods(self, make: Callable[..., ShareCache]) -> None:
        """A method is cached by a key of its own making."""

        class Shop:
            def __init__(self, name: str) -> None:
                self.name = name

            @make("t5", key=lambda self, item: f"{self.name}/{item}")
            async def price(self, item: str) -> str:
                return f"{self.name} {item}"

        assert await Shop("a").price("x") == "a x"
        assert await Shop("b").price("x") == "b x"

    async def test_long_arguments(self, make: Callable[..., ShareCache]) -> None:
        """Long keys are replaced by a digest."""
        runs = Runs()

        @make("t6")
        async def f(text: str) -> Any:
            return await runs.run()

        for _ in range(2):
            await f("x" * 10_000 + "a")
            await f("x" * 10_000 + "b")

        assert runs.count == 2
