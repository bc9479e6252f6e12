"""What a bus works on: ws-pool's `RedisPool`, its manager, or any client of `redis.asyncio`."""

from __future__ import annotations

import inspect
from typing import Protocol, cast, runtime_checkable

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from ws_core.redaction import mask_text
from ws_pool.errors import UsageError


class RedisSource(Protocol):
    """A pool with a shared client; `RedisPool` is one."""

    @property
    def name(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    @property
    def redis(self) -> Redis: ...


@runtime_checkable
class RedisManager(Protocol):
    """Named pools; `RedisPoolManager` is one."""

    @property
    def ready(self) -> bool: ...
    def get_pool(self, name: str = "default", /) -> RedisSource: ...


@runtime_checkable
class _RepeatingClient(Protocol):
    """What ws-pool's clients add to redis-py's, which repeat by themselves."""

    def with_retry(self, retry: str) -> Redis: ...


@runtime_checkable
class _SharingPubSub(Protocol):
    """What ws-pool's PubSub adds to redis-py's: its connection is that of others as well."""

    def replace_connections(self) -> None: ...


class _ClientSource:
    """A client of redis-py as a pool; its owner closes it."""

    name = "of a client"
    ready = True

    def __init__(self, client: Redis) -> None:
        self.redis = client


class _ManagerSource:
    """The default pool of a manager, which may be started later, and again."""

    name = "default"

    def __init__(self, manager: RedisManager) -> None:
        self._manager = manager

    @property
    def ready(self) -> bool:
        return self._manager.ready

    @property
    def redis(self) -> Redis:
        return self._manager.get_pool().redis


def resolve_source(source: object) -> RedisSource:
    """Return a pool as it is, and a client or a manager as a pool."""
    if isinstance(source, RedisManager):
        return _ManagerSource(source)

    if hasattr(source, "execute_command"):
        return _ClientSource(cast("Redis", source))

    # Not asked for its client yet: a pool that is not started has none.
    if inspect.getattr_static(source, "redis", None) is None:
        given = mask_text(repr(source))
        raise UsageError(f"an event bus needs a RedisPool, a manager of pools or a Redis client, not {given}")

    return cast("RedisSource", source)


def repeating(client: Redis) -> Redis:
    """Return a client that repeats each command whose reply was lost."""
    known: object = client  # to mypy, no subclass of redis-py's client can have more methods
    return known.with_retry("at_least_once") if isinstance(known, _RepeatingClient) else client


def replace_connections(pubsub: PubSub) -> None:
    """Have ws-pool's clients replace the connection of a PubSub, which others share, since it is silent."""
    known: object = pubsub

    if isinstance(known, _SharingPubSub):
        known.replace_connections()
