"""The caches of one process: CacheWrap and LRUCache."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.clock import Clock
from tests.pool.cache._support import Runs
from ws_pool.cache import CacheWrap, LRUCache
from ws_pool.errors import ConfigError


class TestCacheWrap:
    def test_plain_functions(self) -> None:
        """Results are kept, exceptions are not."""
        count = 0

        @CacheWrap(maxsize=2)
        def f(n: int) -> int | None:
            nonlocal count
            count += 1

            if n < 0:
                raise ValueError(n)

            return n or None

        assert [f(1), f(1), f(0), f(0)] == [1, 1, None, None]
        assert count == 2
        f(2)
        f(1)
        assert count == 4

        for _ in range(2):
            with pytest.raises(ValueError, match="-1"):
                f(-1)

        assert count == 6
        f.cache_clear()  # type: ignore[attr-defined]
        f(1)
        assert count == 7

    async def test_coroutines(self) -> None:
        """Concurrent equal calls run once, and the result is kept."""
        runs = Runs()
        runs.gate = asyncio.Event()

        @CacheWrap(maxsize=10, ttl=60, key=lambda n: str(n % 2))
        async def f(n: int) -> Any:
            return await runs.run(n)

        tasks = [asyncio.create_task(f(n)) for n in (1, 3, 5)]
        await runs.begun.wait()
        runs.gate.set()
        assert [result["n"] for result in await asyncio.gather(*tasks)] == [1, 1, 1]
        assert (await f(7))["n"] == 1
        f.cache_clear()  # type: ignore[attr-defined]
        assert (await f(7))["n"] == 2

    def test_a_key_for_plain_functions(self) -> None:
        """The key may be of its own making."""

        @CacheWrap(key=lambda _: "same")
        def f(n: int) -> int:
            return n

        assert (f(1), f(2)) == (1, 1)


class TestLRUCache:
    def test_a_mapping(self) -> None:
        """It does what a dict does."""
        cache: LRUCache[str, int] = LRUCache(10)
        cache["a"] = 1
        cache.set("b", 2)
        assert (cache["a"], cache.get("b"), cache.get("c"), cache.get("c", 5)) == (1, 2, None, 5)
        assert ("a" in cache, "c" in cache, len(cache), sorted(cache)) == (True, False, 2, ["a", "b"])
        assert (cache.delete("a"), cache.delete("a")) == (True, False)
        del cache["b"]

        with pytest.raises(KeyError):
            cache["b"]

        cache.update(x=1)
        cache.clear()
        assert repr(cache) == "<LRUCache 0 of 10 items>"

    def test_the_least_recently_used_goes(self) -> None:
        """Reading keeps an item alive."""
        cache: LRUCache[int, int] = LRUCache(3)

        for n in (1, 2, 3):
            cache[n] = n

        assert cache[1] == 1
        cache[4] = 4
        assert sorted(cache) == [1, 3, 4]

    def test_ttl(self) -> None:
        """An item ends its time after it was set, not after it was read."""
        clock = Clock()
        cache: LRUCache[str, int] = LRUCache(3, 10, clock=clock)
        cache["a"] = 1
        clock.now += 6
        assert cache["a"] == 1
        clock.now += 6
        assert "a" not in cache

    def test_threads(self) -> None:
        """Many threads at once keep it whole."""
        cache: LRUCache[int, int] = LRUCache(50, 60)

        def work(start: int) -> None:
            for n in range(2000):
                cache[(start * n) % 97] = n
                cache.get(n % 97)
                list(cache)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]

        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()

        assert len(cache) == 50

    def test_bad_sizes(self) -> None:
        """A value that cannot be a bound is refused."""
        with pytest.raises(ConfigError, match="maximum=0"):
            LRUCache(0)

        with pytest.raises(ConfigError, match="ttl=-1"):
            LRUCache(1, -1)
