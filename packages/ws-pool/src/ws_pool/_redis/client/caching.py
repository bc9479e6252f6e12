"""Client-side caching: replies are kept here until the server reports that a key has changed.

The server remembers which keys a connection has read (CLIENT TRACKING) and pushes the names of changed
keys on the same connection, so in order with its replies. A kept reply lives at most as long as the
connection that it came from.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import get_running_loop
from collections.abc import Sequence
from typing import Any, Final, Self

from ws_pool._redis.client.cache import CachePolicy, ClientCache
from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.shared import SPECIAL, SharedRedis
from ws_pool._redis.commands.command import Command
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool.errors import UsageError

CACHED: Final = frozenset(
    {
        *("BITCOUNT", "BITPOS", "EXISTS", "GET", "GETBIT", "GETRANGE", "MGET", "STRLEN", "TYPE"),
        *("HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HSTRLEN", "HVALS"),
        *("LINDEX", "LLEN", "LRANGE", "SCARD", "SISMEMBER", "SMEMBERS", "SMISMEMBER"),
        *("XLEN", "XRANGE", "XREVRANGE", "ZCARD", "ZCOUNT", "ZMSCORE", "ZRANGE", "ZRANGEBYSCORE"),
        *("ZRANK", "ZREVRANGE", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCORE"),
    }
)
"""Reads whose first argument is the key, or all of whose arguments are keys."""
_TURNS: Final = 64  # of the loop, after which the server is asked because the connection stays busy
_MANY_KEYS: Final = frozenset({"EXISTS", "MGET"})


class CachingRedis(SharedRedis):
    """A shared client that answers reads from a cache when it can."""

    def __init__(self, context: ClientContext, *args: Any, **options: Any) -> None:  # Any: of the base
        super().__init__(context, *args, **options)
        self._ttl: float | None = None
        self._caches: bool = self._policy.by_default

    @property
    def cache(self) -> ClientCache:
        """The pool's cache."""
        cache = self._context.cache
        assert cache is not None
        return cache

    @property
    def _policy(self) -> CachePolicy:
        policy = self._context.cache_policy
        assert policy is not None
        return policy

    def caching(self, ttl: float | None = None) -> Self:
        """
        Return a client on the same connections that keeps replies for at most ``ttl`` seconds.

        None stands for the pool's ``cache_ttl``. With ``cache_mode="opt_in"`` only such clients cache. With
        a ttl of 0 the client always queries the server.
        """
        if ttl is not None and ttl < 0:
            raise UsageError(f"caching() needs ttl >= 0, or None, not {ttl}", pool=self._context.name)

        client = self._copy()
        client._ttl, client._caches = ttl, ttl != 0
        return client

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Answer from the cache, or execute the command; errors as of `SharedRedis.execute_command`."""
        if self._base.execute_command is not self._method:
            return await self._execute_instrumented(args, options)

        options.pop("keys", None)

        if args[0] not in CACHED or not SPECIAL.isdisjoint(options) or len(args) < 2:
            return await self._execute_uncached(args, options)

        if not self._may_keep(args):
            return await self._execute_uncached(args, options)

        call = tuple(bytes(arg) if isinstance(arg, bytearray | memoryview) else arg for arg in args)

        if get_running_loop() is not self._loop:
            self._refuse_loop()

        hit, reply = False, None

        if await self._read_pending_pushes():
            hit, reply = self.cache.find((*call, *map(type, call)))

        if not hit:
            keys = call[1:] if args[0] in _MANY_KEYS else call[1:2]
            read = self.cache.begin(tuple(bytes(self._context.encoder.encode(key)) for key in keys))

            try:
                reply = await self.execute_raw(args)
            except BaseException:
                self.cache.end(read)
                raise

            self.cache.keep((*call, *map(type, call)), read, reply, ttl=self._ttl)

        info = self._infos.get(args[0]) or self._learn(args)

        if info.callback is None:
            return reply

        result = info.callback(reply, **options)
        return await result if info.may_await and inspect.isawaitable(result) else result

    def _may_keep(self, args: Sequence[Any]) -> bool:
        """Return whether the reply of a read may be kept: its changes must be reported."""
        prefixes = self._policy.prefixes

        if not self._caches or not prefixes:
            return self._caches

        encode = self._context.encoder.encode
        keys = args[1:] if args[0] in _MANY_KEYS else args[1:2]
        return all(bytes(encode(key)).startswith(prefixes) for key in keys)

    async def send_batch(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands as one piece, and drop cached replies that they may change."""
        self.forget(commands)

        try:
            return await super().send_batch(commands)
        finally:
            self.forget(commands)

    def forget(self, commands: Sequence[Command]) -> None:
        """Drop cached replies that commands may change."""
        for command in commands:
            if not command.read_only:
                self._forget(command)

    async def _execute_uncached(self, args: Sequence[Any], options: dict[str, Any]) -> Any:
        command = Command(args)

        if command.read_only:
            return await super().execute_command(*args, **options)

        self._forget(command)  # a read after this write must not find the old value

        try:
            return await super().execute_command(*args, **options)
        finally:
            self._forget(command)  # nor keep the one of a read that was in flight meanwhile

    def _forget(self, command: Command) -> None:
        """Drop the replies of all keys that a command names, wherever it names them."""
        if command.name in {"FLUSHALL", "FLUSHDB", "SWAPDB"}:
            self.cache.flush()
            return

        encode = self._context.encoder.encode
        self.cache.invalidate(
            bytes(encode(arg))
            for arg in command.words[1:]
            if isinstance(arg, str | bytes | bytearray | memoryview | int)
        )

    async def _read_pending_pushes(self) -> bool:
        """Let the loop read what has arrived; return False when a change may still be unread."""
        # The change of a key may lie in the socket's buffer, or behind a long reply that has arrived in
        # part. A read that trusts the cache before that would miss a write that was acknowledged.
        for _ in range(_TURNS):
            # A lost connection has emptied the cache already.
            connections = [connection for connection in self._connections() if not connection.closed]

            if any(connection.amid_reply() for connection in connections):
                return False

            if not any(connection.unread() for connection in connections):
                return True

            await asyncio.sleep(0)

        return False

    def _connections(self) -> Sequence[PipelinedConnection]:
        """Return the connections on which the server reports changes."""
        return [shared.connection for shared in self._context.shared_connections]
