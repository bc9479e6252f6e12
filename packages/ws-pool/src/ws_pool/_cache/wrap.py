"""Results kept in this process, for plain and coroutine functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from ws_pool._cache.keys import KeyMaker
from ws_pool._cache.lru import NOTHING, LRUCache, check, check_function
from ws_pool._cache.single_flight import Flight, Flights

__all__ = ("CacheWrap",)

P = ParamSpec("P")
T = TypeVar("T")


class CacheWrap:
    """
    Caches results of a function in this process, for plain and coroutine functions.

    Concurrent equal calls of a coroutine function run once, as with `ShareCache`. A plain function
    may be called from several threads.

    Args:
        maxsize: How many results are kept; the least recently used go first.
        ttl: Seconds that a result is kept; 0 for ever.
        key: Makes the key text from the call's arguments, in place of all of them.

    Raises:
        ConfigError: An option is wrong.

    Example:
        >>> @CacheWrap(maxsize=100, ttl=60)
        ... def square(number: int) -> int:
        ...     print("computing")
        ...     return number * number
        >>> square(3), square(3)
        computing
        (9, 9)
    """

    def __init__(
        self, maxsize: int = 128, ttl: float = 0.0, *, key: Callable[..., str] | None = None
    ) -> None:
        check("maxsize", maxsize, more_than=0)
        check("ttl", ttl)

        if key is not None:
            check_function("key", key)

        self._maxsize = maxsize
        self._ttl = ttl
        self._key = key

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function with a cache, and with a function ``cache_clear()``."""
        cache: LRUCache[str, object] = LRUCache(self._maxsize, self._ttl)
        make_key = KeyMaker(function) if self._key is None else None
        own_key = self._key

        def key_of(args: tuple[object, ...], kwargs: dict[str, object]) -> str:
            return make_key(args, kwargs) if make_key is not None else cast("Any", own_key)(*args, **kwargs)

        if inspect.iscoroutinefunction(function):
            flights = Flights()

            @functools.wraps(function)
            async def cached_coroutine(*args: P.args, **kwargs: P.kwargs) -> object:
                key = key_of(args, kwargs)
                found = cache.get(key, NOTHING)

                if found is not NOTHING:
                    return found

                async def compute(flight: Flight) -> object:
                    value = await function(*args, **kwargs)

                    # Cleared meanwhile: the value is from before.
                    if not flight.outdated:
                        cache[key] = value

                    return value

                return await flights.run(key, compute)

            def cache_clear() -> None:
                cache.clear()
                flights.outdate()

            cached_coroutine.cache_clear = cache_clear  # type: ignore[attr-defined]
            return cast("Callable[P, T]", cached_coroutine)

        @functools.wraps(function)
        def cached(*args: P.args, **kwargs: P.kwargs) -> T:
            key = key_of(args, kwargs)
            found = cache.get(key, NOTHING)

            if found is NOTHING:
                found = cache[key] = function(*args, **kwargs)

            return cast("T", found)

        cached.cache_clear = cache.clear  # type: ignore[attr-defined]
        return cached
