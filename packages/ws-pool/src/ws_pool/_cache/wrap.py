"""Results kept in this process, for plain and coroutine functions."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import ParamSpec, TypeAlias, TypeVar, cast

from ws_pool._cache.keys import KeyMaker, own_key_text
from ws_pool._cache.lru import NOTHING, LRUCache, check, check_function
from ws_pool._cache.single_flight import Flight, Flights
from ws_pool.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")
KeyOf: TypeAlias = Callable[[tuple[object, ...], Mapping[str, object]], str]


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
        UsageError: When it is applied: the function is a generator function.

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
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            message = (
                f"CacheWrap: {function.__qualname__} is a generator function, whose result can be read once: "
                "cache one that returns a list"
            )
            raise UsageError(message)

        cache: LRUCache[str, object] = LRUCache(self._maxsize, self._ttl)
        own_key = self._key
        key_of: KeyOf = (
            KeyMaker(function)
            if own_key is None
            else lambda args, kwargs: own_key_text(own_key, args, kwargs)
        )

        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, T]", _cached_coroutine(function, cache, key_of))

        return _cached(function, cache, key_of)


def _cached_coroutine(
    function: Callable[P, Awaitable[T]], cache: LRUCache[str, object], key_of: KeyOf
) -> Callable[P, Awaitable[T]]:
    flights = Flights()

    @functools.wraps(function)
    async def cached(*args: P.args, **kwargs: P.kwargs) -> T:
        key = key_of(args, kwargs)
        found = cache.get(key, NOTHING)

        if found is not NOTHING:
            return cast("T", found)

        async def compute(flight: Flight) -> object:
            value = await function(*args, **kwargs)

            # Cleared meanwhile: the value is from before.
            if not flight.outdated:
                cache[key] = value

            return value

        return cast("T", await flights.run(key, compute))

    def cache_clear() -> None:
        cache.clear()
        flights.outdate()

    cached.cache_clear = cache_clear  # type: ignore[attr-defined]
    return cached


def _cached(function: Callable[P, T], cache: LRUCache[str, object], key_of: KeyOf) -> Callable[P, T]:
    clears = itertools.count(1)
    cleared = 0

    @functools.wraps(function)
    def cached(*args: P.args, **kwargs: P.kwargs) -> T:
        key = key_of(args, kwargs)
        found = cache.get(key, NOTHING)

        if found is NOTHING:
            before = cleared
            found = function(*args, **kwargs)
            cache[key] = found

            # Cleared meanwhile, by another thread or the function itself: the value is from before.
            if before != cleared:
                cache.delete(key)

        return cast("T", found)

    def cache_clear() -> None:
        nonlocal cleared
        cleared = next(clears)
        cache.clear()

    cached.cache_clear = cache_clear  # type: ignore[attr-defined]
    return cached
