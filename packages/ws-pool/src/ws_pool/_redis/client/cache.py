"""Client-side caching: replies kept here until the server says that a key has changed.

The server remembers which keys a connection has read (CLIENT TRACKING) and pushes their names when
somebody changes them, on the same connection, so in order with its replies. What is cached lives at
most as long as the connection that vouches for it.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import get_running_loop
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from ws_pool._redis.client.shared import SPECIAL, SharedRedis
from ws_pool._redis.commands.table import canonical, is_read_only, split
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.statistics import CacheStatistics

__all__ = ("CachingClient", "CachingRedis", "ClientCache")

CACHED: Final = frozenset(
    {
        *("BITCOUNT", "BITPOS", "EXISTS", "GET", "GETBIT", "GETRANGE", "MGET", "STRLEN", "TYPE"),
        *("HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HSTRLEN", "HVALS"),
        *("LINDEX", "LLEN", "LRANGE", "SCARD", "SISMEMBER", "SMEMBERS", "SMISMEMBER"),
        *("XLEN", "XRANGE", "XREVRANGE", "ZCARD", "ZCOUNT", "ZMSCORE", "ZRANGE", "ZRANGEBYSCORE"),
        *("ZRANK", "ZREVRANGE", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCORE"),
    }
)
"""Reads of which the first argument is the key, or all of them are."""
_TURNS: Final = 64  # of the loop, before a busy connection is asked instead of the cache
_MANY_KEYS: Final = frozenset({"EXISTS", "MGET"})

Key = bytes
Question = tuple[Any, ...]  # Any: a command as it was called


class _Read:
    """A read on its way; it may be kept unless one of its keys changes before."""

    __slots__ = ("keys", "valid")

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys
        self.valid = True


class ClientCache:
    """
    Replies by command, and which keys they depend on.

    Args:
        size: Most replies to keep; the least recently used goes first.
        ttl: Seconds to keep one at most, whatever the server says.
        clock: Gives the time in seconds.

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
        self._replies: OrderedDict[Question, tuple[Any, float, tuple[Key, ...]]] = OrderedDict()
        self._by_key: defaultdict[Key, set[Question]] = defaultdict(set)
        self._reads: defaultdict[Key, set[_Read]] = defaultdict(set)
        self._hits = self._misses = self._invalidations = self._flushes = 0

    def find(self, question: Question) -> tuple[bool, Any]:
        """
        Look for a reply.

        Args:
            question: The command.

        Returns:
            Whether there is one, and a copy of it.
        """
        found = self._replies.get(question)

        if found is None:
            self._misses += 1
            return False, None

        if found[1] <= self._clock():
            self._drop(question)
            self._misses += 1
            return False, None

        self._hits += 1
        self._replies.move_to_end(question)
        return True, fresh(found[0])

    def begin(self, keys: tuple[Key, ...]) -> _Read:
        """
        Note that a read is sent.

        Args:
            keys: The keys it reads.

        Returns:
            To be given to `keep` or `end`.
        """
        read = _Read(keys)

        for key in keys:
            self._reads[key].add(read)

        return read

    def end(self, read: _Read) -> None:
        """Forget a read."""
        for key in read.keys:
            reads = self._reads.get(key)

            if reads is not None:
                reads.discard(read)

                if not reads:
                    del self._reads[key]

    def keep(self, question: Question, read: _Read, reply: Any) -> None:
        """
        Keep a reply, unless a key has changed since the read was sent.

        Args:
            question: The command.
            read: What `begin` gave.
            reply: The server's reply.
        """
        self.end(read)

        if not read.valid:
            return

        self._drop(question)
        self._replies[question] = (fresh(reply), self._clock() + self._ttl, read.keys)

        for key in read.keys:
            self._by_key[key].add(question)

        while len(self._replies) > self._size:
            self._drop(next(iter(self._replies)))

    def invalidate(self, keys: Iterable[Key]) -> None:
        """
        Drop what depends on keys, kept or on its way.

        Args:
            keys: The keys that have changed.
        """
        for key in keys:
            self._invalidations += 1

            for read in self._reads.pop(key, ()):
                read.valid = False

            for question in list(self._by_key.get(key, ())):
                self._drop(question)

    def flush(self) -> None:
        """Drop everything."""
        self._flushes += 1
        self._replies.clear()
        self._by_key.clear()

        for reads in self._reads.values():
            for read in reads:
                read.valid = False

        self._reads.clear()

    def _drop(self, question: Question) -> None:
        found = self._replies.pop(question, None)

        for key in () if found is None else found[2]:
            questions = self._by_key[key]
            questions.discard(question)

            if not questions:
                del self._by_key[key]

    def statistics(self) -> CacheStatistics:
        """Freeze the present state."""
        return CacheStatistics(
            len(self._replies), self._hits, self._misses, self._invalidations, self._flushes
        )


class CachingClient(SharedRedis):
    """Looks into the cache before it asks the server."""

    cache: ClientCache

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Answer from the cache, or execute the command; see `SharedRedis.execute_command` for errors."""
        options.pop("keys", None)

        if args[0] not in CACHED or not SPECIAL.isdisjoint(options) or len(args) < 2:
            return await self._execute_uncached(args, options)

        question = tuple(bytes(arg) if isinstance(arg, bytearray | memoryview) else arg for arg in args)

        if get_running_loop() is not self._loop:
            self._refuse_loop()

        hit, reply = False, None

        if await self._read_on():
            hit, reply = self.cache.find((*question, *map(type, question)))

        if not hit:
            keys = question[1:] if args[0] in _MANY_KEYS else question[1:2]
            read = self.cache.begin(tuple(bytes(self._core.packer.encode(key)) for key in keys))

            try:
                reply = await self.ask(args)
            except BaseException:
                self.cache.end(read)
                raise

            self.cache.keep((*question, *map(type, question)), read, reply)

        plan = self._plans.get(args[0]) or self._learn(args)

        if plan.callback is None:
            return reply

        result = plan.callback(reply, **options)
        return await result if plan.may_await and inspect.isawaitable(result) else result

    async def send_batch(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands as one piece, and forget what they may change."""
        self.forget(commands)

        try:
            return await super().send_batch(commands)
        finally:
            self.forget(commands)

    def forget(self, commands: Sequence[Sequence[Any]]) -> None:
        """Forget what commands may change; see `SharedRedis.forget`."""
        for command in commands:
            if not is_read_only(command):
                self._forget(command)

    async def _execute_uncached(self, args: Sequence[Any], options: dict[str, Any]) -> Any:
        if is_read_only(args):
            return await super().execute_command(*args, **options)

        self._forget(args)  # a read that comes after this write must not find the old value

        try:
            return await super().execute_command(*args, **options)
        finally:
            self._forget(args)  # nor one that was sent before and has come back meanwhile

    def _forget(self, args: Sequence[Any]) -> None:
        """Drop what a command may change: whatever one of its arguments names."""
        if canonical(args) in {"FLUSHALL", "FLUSHDB", "SWAPDB"}:
            self.cache.flush()
            return

        encode = self._core.packer.encode
        self.cache.invalidate(
            bytes(encode(arg))
            for arg in split(args)[1:]
            if isinstance(arg, str | bytes | bytearray | memoryview | int)
        )

    async def _read_on(self) -> bool:
        """
        Let what has arrived be read, for the change of a key may be among it.

        Returns:
            Whether all is known; not so when a long reply is on its way, with news behind it perhaps.
        """
        for _ in range(_TURNS):
            links = [link for link in self._links() if not link.closed]  # what is lost has emptied the cache

            if any(link.amid_reply() for link in links):
                return False

            if not any(link.unread() for link in links):
                return True

            await asyncio.sleep(0)

        return False

    def _links(self) -> Sequence[PipelinedConnection]:
        """Give the connections on which the server tells of changes."""
        return [lane.link for lane in self._core.lanes]


class CachingRedis(CachingClient):
    """A shared client with a cache of its own."""


def fresh(reply: Any) -> Any:
    """
    Copy a reply as deep as it can be changed.

    Args:
        reply: The reply.

    Returns:
        The copy; the same object when it cannot be changed.
    """
    if isinstance(reply, list):
        return [fresh(item) for item in reply]

    if isinstance(reply, dict):
        return {key: fresh(value) for key, value in reply.items()}

    return set(reply) if isinstance(reply, set) else reply
