"""A bounded mapping, over cachetools, safe among threads."""

from __future__ import annotations

import inspect
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import Generic, TypeVar, cast, overload

from cachetools import LRUCache as _Lru
from cachetools import TTLCache as _Ttl

from ws_pool.errors import ConfigError

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

NOTHING: object = object()


class LRUCache(MutableMapping[K, V], Generic[K, V]):
    """
    A mapping that keeps the most recently used items, each for some time. Safe among threads.

    Args:
        maximum: How many items are kept.
        ttl: Seconds that an item is kept after it was set; 0 for ever.

    Raises:
        ConfigError: An argument is out of range.

    Example:
        >>> cache = LRUCache(2)
        >>> cache["a"], cache["b"] = 1, 2
        >>> cache["a"]
        1
        >>> cache["c"] = 3
        >>> sorted(cache)
        ['a', 'c']
    """

    def __init__(
        self, maximum: int = 128, ttl: float = 0.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        check("maximum", maximum, more_than=0)
        check("ttl", ttl)
        check_function("clock", clock)
        self._items: _Lru[K, V] | _Ttl[K, V] = _Ttl(maximum, ttl, clock) if ttl else _Lru(maximum)
        self._mutex = threading.RLock()

    def __repr__(self) -> str:
        return f"<LRUCache {len(self)} of {int(self._items.maxsize)} items>"

    def __getitem__(self, key: K) -> V:
        with self._mutex:
            return self._items[key]

    def __setitem__(self, key: K, value: V) -> None:
        with self._mutex:
            self._items[key] = value

    def __delitem__(self, key: K) -> None:
        with self._mutex:
            del self._items[key]

    def __contains__(self, key: object) -> bool:
        with self._mutex:
            return key in self._items

    def __len__(self) -> int:
        with self._mutex:
            return len(self._items)

    def __iter__(self) -> Iterator[K]:
        with self._mutex:
            return iter(list(self._items))

    @overload
    def get(self, key: K, /) -> V | None: ...

    @overload
    def get(self, key: K, default: V | T, /) -> V | T: ...

    def get(self, key: K, default: object = None, /) -> object:
        """Return an item, or the default when it is not there."""
        with self._mutex:
            return self._items.get(key, cast("V", default))

    def set(self, key: K, value: V) -> None:
        """Keep an item; the same as ``cache[key] = value``."""
        self[key] = value

    def delete(self, key: K) -> bool:
        """Remove an item, and return whether it was there."""
        with self._mutex:
            return self._items.pop(key, NOTHING) is not NOTHING

    def clear(self) -> None:
        """Remove all items."""
        with self._mutex:
            self._items.clear()


def check_function(name: str, value: object) -> None:
    """Raise ConfigError unless an option is a function; of a coroutine function nobody awaits the answer."""
    if not callable(value) or inspect.iscoroutinefunction(value):
        raise ConfigError(f"{name}={value!r:.100} is wrong: give a plain function", option=name)


def check_name(name: str, value: object) -> None:
    """Raise ConfigError unless an option can be a part of a key."""
    if not isinstance(value, str) or not value or "{" in value or "}" in value:
        raise ConfigError(f"{name}={value!r:.100} is wrong: give a name without braces", option=name)


def check(name: str, value: object, *, more_than: float | None = None, at_most: float = math.inf) -> None:
    """Raise ConfigError unless an option is a finite number within bounds; by default, 0 or more."""
    # Compared: math.isfinite() raises for a whole number that no float can hold.
    most = sys.float_info.max

    if isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most:
        enough = value >= 0 if more_than is None else value > more_than

        if enough and value <= at_most:
            return

    low = "0 or more" if more_than is None else f"more than {more_than:g}"
    high = "" if at_most == math.inf else f", at most {at_most:g}"
    raise ConfigError(f"{name}={value!r} is wrong: give {low}{high}", option=name)
