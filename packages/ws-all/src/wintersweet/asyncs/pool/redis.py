"""Redis pools, clients, locks, limiters and the event bus as in 1.x, over `ws_pool` and `ws_redislock`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import ws_redislock
from wintersweet._eager import begin
from wintersweet.asyncs.pool.base import BasePool, BasePoolManager
from wintersweet.asyncs.pool.context import ClientContext
from ws_core.errors import ConfigError, UsageError
from ws_pool.base import BasePoolManager as LibraryManager
from ws_pool.events import RedisEventBus as LibraryBus
from ws_pool.redis import RedisPool as LibraryPool
from ws_pool.redis import redis_pool_manager as library_manager

__all__ = (
    "FrequencyLimiter",
    "MutexLock",
    "Redis",
    "RedisEventBus",
    "RedisPool",
    "RedisPoolManager",
    "redis_pool_manager",
)

# Any below: commands, their arguments and replies, as in redis-py.


class Redis:
    """
    redis-py's client, with the calls of aioredis 1 that differ from its own.

    Whatever is not here is redis-py's. Where a call could be meant in either way, both are taken.
    """

    SET_IF_NOT_EXIST: Final = "SET_IF_NOT_EXIST"
    SET_IF_EXIST: Final = "SET_IF_EXIST"

    def __init__(self, client: Any, end: Callable[[], Awaitable[Any]] | None = None) -> None:
        self._client = client
        self._end = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __repr__(self) -> str:
        return repr(self._client)

    @property
    def closed(self) -> bool:
        """Whether the client was given back."""
        return self._client is None

    async def set(
        self,
        key: Any,
        value: Any,
        *,
        expire: int = 0,
        pexpire: int = 0,
        exist: str | None = None,
        **options: Any,
    ) -> Any:
        """Set a value; ``expire`` in seconds or ``pexpire`` in milliseconds, ``exist`` as in aioredis 1."""
        options |= {"ex": expire} if expire else {}
        options |= {"px": pexpire} if pexpire else {}
        options |= {"nx": True} if exist == self.SET_IF_NOT_EXIST else {}
        options |= {"xx": True} if exist == self.SET_IF_EXIST else {}
        return await self._client.set(key, value, **options)

    async def hmset_dict(self, key: Any, *args: Any, **fields: Any) -> Any:
        """Set fields of a hash from a dict, keywords, or both."""
        return await self._client.hset(key, mapping={**(args[0] if args else {}), **fields})

    async def zadd(self, key: Any, score: Any, *rest: Any, **options: Any) -> Any:
        """Add members: ``score, member, …`` as in aioredis 1, or a mapping as in redis-py."""
        if isinstance(score, dict):
            return await self._client.zadd(key, score, *rest, **options)

        pairs = (score, *rest)
        return await self._client.zadd(key, dict(zip(pairs[1::2], pairs[::2], strict=True)), **options)

    async def zrange(self, key: Any, start: int = 0, stop: int = -1, **options: Any) -> Any:
        """Return members of a sorted set by their places."""
        return await self._client.zrange(key, start, stop, **options)

    async def eval(self, script: str, keys: Any = (), args: Any = (), *rest: Any) -> Any:
        """Run a script: lists of keys and arguments as in aioredis 1, or redis-py's number of keys."""
        if isinstance(keys, int):
            return await self._client.eval(script, keys, *([args] if args != () else []), *rest)

        return await self._client.eval(script, len(keys), *keys, *args)

    async def execute(self, command: str, *args: Any) -> Any:
        """Run any command."""
        return await self._client.execute_command(command, *args)

    async def _close(self) -> None:
        end, self._end = self._end, None

        if end is not None:
            await end()


class RedisPool(BasePool):
    """A Redis pool with the methods of 1.x; what is missing is the library's."""

    library: LibraryPool

    def __init__(self, address: str | None = None, **options: Any) -> None:
        self._take_over(LibraryPool(address, **options), started=False)

    @property
    def redis(self) -> Any:
        """The library's shared client, which locks, limiters and buses work on."""
        return self.library.redis

    @property
    def closed(self) -> bool:
        """Whether the pool is not open."""
        return not self.library.ready

    @property
    def minsize(self) -> int:
        """Dedicated connections kept open."""
        return self.library.statistics().dedicated[0].min_size

    @property
    def maxsize(self) -> int:
        """Most dedicated connections."""
        return self.library.statistics().dedicated[0].max_size

    @property
    def db(self) -> int:
        """The number of the database."""
        number = urlsplit(self.library.url).path.strip("/")
        return int(number) if number.isdigit() else 0

    def get_client(self, alone: bool = False) -> ClientContext[Redis]:
        """Take a client: ``client = await pool.get_client()`` and ``pool.release(client)``, or a block."""
        return ClientContext(self._take, alone=alone)

    get_context_manager_client = get_client

    def get_context_client(self) -> Redis | None:
        """Return the client that tasks share."""
        return Redis(self.library.redis) if self.library.ready else None

    async def release(self, client: Redis) -> None:
        """Release a client that was taken with ``await``."""
        await client._close()

    async def _take(self, alone: bool) -> tuple[Redis, Callable[[], Awaitable[Any]]]:
        block = self.library.get_client(alone=alone)
        client = Redis(await block.__aenter__(), lambda: block.__aexit__(None, None, None))
        return client, client._close


class MutexLock(ws_redislock.MutexLock):
    """A lock with the arguments of 1.x; ``expire`` must be above 3 seconds, as there."""

    def __init__(self, redis_pool: Any, key: str, expire: float = 60, **options: Any) -> None:
        if not expire > 3:
            message = f"expire={expire!r} of lock {key!r} is too small: above 3 s, or use ws_redislock"
            raise ConfigError(message, option="expire")

        super().__init__(redis_pool, key, expire, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{self.name}>"

    async def wait(self, timeout: float | None = 0) -> bool:
        """Wait until the lock is free, at most ``timeout`` seconds; return whether it is."""
        return await super().wait(timeout)


class FrequencyLimiter(ws_redislock.FrequencyLimiter):
    """
    A rate limiter with the arguments of 1.x.

    ``conn_num``, ``alone`` and ``ntp`` change nothing any more: connections are shared, and the
    time is that of the Redis server.
    """

    def __init__(
        self,
        redis_pool: Any,
        granularity: float,
        limit: int,
        conn_num: int = 1,
        alone: bool = False,
        ntp: object = None,
        **options: Any,
    ) -> None:
        super().__init__(redis_pool, granularity, limit, **options)
        self._most = limit

    async def incrby(self, key: str, incr_num: int = 1) -> int:
        """Count hits, and return how many the window has; a number above the limit was not counted."""
        verdict = await self.hit(key, incr_num)
        return self._most - verdict.remaining if verdict.allowed else self._most + incr_num

    async def release(self) -> None:
        """Close what the limiter has opened itself."""
        await self.aclose()


class RedisEventBus(LibraryBus):
    """An event bus that starts by itself, with the arguments of 1.x."""

    def __init__(self, redis_pool: Any, channel_name: str, **options: Any) -> None:
        super().__init__(redis_pool, channel_name, **options)
        self._starting: asyncio.Task[None] | None = begin(super().start(), f"event bus {channel_name!r}")

    async def start(self) -> None:
        """Wait until the bus has started."""
        if self._starting is not None:
            await asyncio.shield(self._starting)

    def add_listener(self, tag: str, callback: Callable[..., Awaitable[object]]) -> None:
        """Call a coroutine function with the arguments of each event of a tag."""
        if not inspect.iscoroutinefunction(callback):
            message = f"listener of {tag!r} must be a coroutine function, not {callback!r}"
            raise UsageError(message)

        super().add_listener(tag, callback)

    async def publish(self, tag: str, /, *args: Any, **kwargs: Any) -> int:
        """Publish an event; returns how many subscribers Redis sent it to."""
        await self.start()
        return await super().publish(tag, *args, **kwargs)


class RedisPoolManager(BasePoolManager):
    """The Redis pools of REDIS_CONFIG, with shortcuts to locks, limiters and buses."""

    library: ClassVar[LibraryManager[Any, Any]] = library_manager

    def __init__(self) -> None:
        self._buses: dict[tuple[str, str], RedisEventBus] = {}

    def get_pool(self, pool_name: str = "default") -> RedisPool:
        """Return a started pool by its name."""
        return RedisPool.of(self.library.get_pool(pool_name))

    def pool_status(self, pool_name: str = "default") -> str:
        """Describe a pool in one line of text; ``statistics()`` of the pool has the numbers."""
        pool = self.get_pool(pool_name)
        return f"<[{pool_name}] {pool.library.url} [db:{pool.db}, size:[{pool.minsize}:{pool.maxsize}]]>"

    def allocate_lock(
        self, key: str, expire: float = 60, pool_name: str = "default", **options: Any
    ) -> MutexLock:
        """Make a lock on a pool."""
        return MutexLock(self.get_pool(pool_name), key, expire, **options)

    def allocate_limiter(
        self,
        pool_name: str = "default",
        granularity: float = 1,
        limit: int = 10,
        conn_num: int = 1,
        alone: bool = False,
        ntp: object = None,
    ) -> FrequencyLimiter:
        """Make a rate limiter on a pool: ``limit`` hits in ``granularity`` seconds."""
        return FrequencyLimiter(self.get_pool(pool_name), granularity, limit, conn_num, alone, ntp)

    def allocate_event_bus(self, pool_name: str = "default", channel_name: str = "default") -> RedisEventBus:
        """Return the bus of a channel, the same each time; it starts by itself."""
        bus = self._buses.get((pool_name, channel_name))

        if bus is None:
            bus = RedisEventBus(self.get_pool(pool_name), channel_name)
            self._buses[pool_name, channel_name] = bus

        return bus

    async def _close(self) -> None:
        buses, self._buses = list(self._buses.values()), {}
        await asyncio.gather(*(bus.close() for bus in buses), return_exceptions=True)
        await super()._close()


redis_pool_manager: Final = RedisPoolManager()
"""The application's Redis pools."""
