"""A bounded mapping with the methods of 1.x, over `ws_pool.cache`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from wintersweet._gone import explain as _explain
from ws_pool import cache as library

__all__ = ("LRUCache",)

K = TypeVar("K")
V = TypeVar("V")

_MISSING: Final[Any] = object()  # Any: stands for a value of any type


class LRUCache(library.LRUCache[K, V]):
    """
    Keeps the most recently used items, each for some time.

    Args:
        maximum: How many items are kept.
        ttl: Seconds that an item is kept after it was put.

    Example:
        >>> cache = LRUCache(2)
        >>> cache.put("a", 1)
        >>> cache.put("b", 2)
        >>> cache.get("a"), cache.top(), cache.list()
        (1, 1, [('a', 1), ('b', 2)])
    """

    def __init__(self, maximum: int = 100, ttl: float = 3600) -> None:
        super().__init__(maximum, ttl)
        self._used: dict[K, None] = {}  # the last used is the last one

    def get(self, key: K, default: Any = None) -> Any:  # Any: as in a dict
        """Return an item, which becomes the first of `list`; or the default."""
        value = super().get(key, _MISSING)

        if value is _MISSING:
            return default

        self._note(key)
        return value

    def put(self, key: K, val: V) -> None:
        """Set an item, which becomes the first of `list`."""
        self[key] = val
        self._note(key)

    def top(self) -> V:
        """Return the item that was used last; a `LookupError` when there is none."""
        for _, value in self.list():
            return value

        raise LookupError("the cache is empty")

    def list(self) -> list[tuple[K, V]]:
        """Return the items, the last used first."""
        known = [(key, super(LRUCache, self).get(key, _MISSING)) for key in reversed(self._used)]
        return [(key, value) for key, value in known if value is not _MISSING]

    def _note(self, key: K) -> None:
        self._used.pop(key, None)
        self._used[key] = None

        if len(self._used) > 2 * len(self) + 10:  # what has been evicted or has expired
            self._used = {used: None for used in self._used if used in self}


__getattr__: Callable[[str], NoReturn] = _explain(__name__)
