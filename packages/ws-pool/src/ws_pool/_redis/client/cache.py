"""The store of client-side caching: replies, and the keys that each depends on. Pure."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ws_pool._redis.statistics import CacheStatistics

Key = bytes
Call = tuple[Any, ...]  # Any: a command as it was called, with the types of its arguments


class CachePolicy(NamedTuple):
    """What is kept."""

    by_default: bool  # reads of the pool's own client; else those of `CachingRedis.caching` only
    prefixes: tuple[bytes, ...]  # beginnings of keys whose changes are reported; empty for all that are read


@dataclass(slots=True, eq=False, repr=False)
class _Read:
    """A read in flight; its reply may be kept unless one of its keys changes before."""

    keys: tuple[Key, ...]
    valid: bool = True


class ClientCache:
    """
    Replies by command, and which keys they depend on.

    Example:
        >>> cache = ClientCache(10, ttl=60, clock=lambda: 0.0)
        >>> cache.keep(("GET", "k"), cache.begin((b"k",)), b"value")
        >>> cache.find(("GET", "k")), cache.invalidate([b"k"]), cache.find(("GET", "k"))
        ((True, b'value'), None, (False, None))
    """

    def __init__(self, size: int, *, ttl: float, clock: Callable[[], float]) -> None:
        self._size = size
        self._ttl = ttl
        self._clock = clock
        self._replies: OrderedDict[Call, tuple[Any, float, tuple[Key, ...]]] = OrderedDict()
        self._by_key: defaultdict[Key, set[Call]] = defaultdict(set)
        self._reads: defaultdict[Key, set[_Read]] = defaultdict(set)
        self._hits = self._misses = self._invalidations = self._flushes = 0

    def find(self, call: Call) -> tuple[bool, Any]:
        """Return whether a reply is kept, and a copy of it."""
        found = self._replies.get(call)

        if found is None:
            self._misses += 1
            return False, None

        if found[1] <= self._clock():
            self._drop(call)
            self._misses += 1
            return False, None

        self._hits += 1
        self._replies.move_to_end(call)
        return True, fresh(found[0])

    def begin(self, keys: tuple[Key, ...]) -> _Read:
        """Note that a read is sent; pass the result to `keep` or `end`."""
        read = _Read(keys)

        for key in keys:
            self._reads[key].add(read)

        return read

    def end(self, read: _Read) -> None:
        """Note that a read has failed, or its reply was taken."""
        for key in read.keys:
            reads = self._reads.get(key)

            if reads is not None:
                reads.discard(read)

                if not reads:
                    del self._reads[key]

    def keep(self, call: Call, read: _Read, reply: Any, *, ttl: float | None = None) -> None:
        """Keep a reply for at most ``ttl`` seconds, unless a key has changed since the read was sent."""
        self.end(read)

        if not read.valid:
            return

        self._drop(call)
        self._replies[call] = (fresh(reply), self._clock() + min(self._ttl, ttl or self._ttl), read.keys)

        for key in read.keys:
            self._by_key[key].add(call)

        while len(self._replies) > self._size:
            self._drop(next(iter(self._replies)))

    def invalidate(self, keys: Iterable[Key]) -> None:
        """Drop the replies that depend on keys, both kept and in flight."""
        for key in keys:
            self._invalidations += 1

            for read in self._reads.pop(key, ()):
                read.valid = False

            for call in list(self._by_key.get(key, ())):
                self._drop(call)

    def flush(self) -> None:
        """Drop everything."""
        self._flushes += 1
        self._replies.clear()
        self._by_key.clear()

        for reads in self._reads.values():
            for read in reads:
                read.valid = False

        self._reads.clear()

    def _drop(self, call: Call) -> None:
        found = self._replies.pop(call, None)

        for key in () if found is None else found[2]:
            calls = self._by_key[key]
            calls.discard(call)

            if not calls:
                del self._by_key[key]

    def statistics(self) -> CacheStatistics:
        """Return a frozen snapshot."""
        return CacheStatistics(
            len(self._replies), self._hits, self._misses, self._invalidations, self._flushes
        )


def fresh(reply: Any) -> Any:
    """Copy a reply as deep as callers can change it."""
    if isinstance(reply, list):
        return [fresh(item) for item in reply]

    if isinstance(reply, dict):
        return {key: fresh(value) for key, value in reply.items()}

    return set(reply) if isinstance(reply, set) else reply
