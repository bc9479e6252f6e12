"""What a bus works on: ws-pool's `RedisPool`, or any client of `redis.asyncio`."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

__all__ = ("RedisSource", "repeating", "replace_connections", "resolve_source")


class RedisSource(Protocol):
    """A pool with a shared client; `RedisPool` is one."""

    @property
    def name(self) -> str:
        """The pool's name, for messages."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the pool is open."""
        ...

    @property
    def redis(self) -> Redis:
        """The client that all tasks share."""
        ...


@runtime_checkable
class _RepeatingClient(Protocol):
    """What ws-pool's clients add to redis-py's, which repeat by themselves."""

    def with_retry(self, retry: str) -> Redis:
        """Return a client with another rule for lost connections."""
        ...


@runtime_checkable
class _SharingPubSub(Protocol):
    """What ws-pool's PubSub adds to redis-py's: its connection is that of others as well."""

    def replace_connections(self) -> None:
        """Close the connections whose messages come here, so that others are opened."""


class _ClientSource:
    """A client of redis-py as a pool; its owner closes it."""

    __slots__ = ("redis",)

    name = "of a client"
    ready = True

    def __init__(self, client: Redis) -> None:
        self.redis = client


def resolve_source(pool_or_client: object) -> RedisSource:
    """Return a pool as it is, and a client as a pool."""
    if hasattr(pool_or_client, "execute_command"):
        return _ClientSource(cast("Redis", pool_or_client))

    return cast("RedisSource", pool_or_client)


def repeating(client: Redis) -> Redis:
    """Return a client that repeats each command whose reply was lost."""
    known: object = client  # to mypy, no subclass of redis-py's client can have more methods
    return known.with_retry("at_least_once") if isinstance(known, _RepeatingClient) else client


def replace_connections(pubsub: PubSub) -> None:
    """Have ws-pool's clients replace the connection of a PubSub, which others share, since it is silent."""
    known: object = pubsub

    if isinstance(known, _SharingPubSub):
        known.replace_connections()
