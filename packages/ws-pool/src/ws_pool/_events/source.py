"""What a bus works on: ws-pool's `RedisPool`, or any client of `redis.asyncio`."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

__all__ = ("ClusterClient", "RedisSource", "cluster_of", "repeating", "resolve_source")


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


class _Topology(Protocol):
    """Knows which node of a cluster has which slots."""

    def refresh_soon(self) -> object:
        """Look again which node has which slots."""
        ...


@runtime_checkable
class ClusterClient(Protocol):
    """What ws-pool's client of a cluster adds to redis-py's."""

    @property
    def topology(self) -> _Topology:
        """The nodes and their slots."""
        ...

    def pubsub_of(self, channel: str) -> PubSub:
        """Make a PubSub on the node of a sharded channel."""
        ...


@runtime_checkable
class _RepeatingClient(Protocol):
    """What ws-pool's clients add to redis-py's, which repeat by themselves."""

    def with_retry(self, retry: str) -> Redis:
        """Return a client with another rule for lost connections."""
        ...


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


def cluster_of(client: Redis) -> ClusterClient | None:
    """Return ws-pool's client of a cluster as one, and None for every other client."""
    known: object = client
    return known if isinstance(known, ClusterClient) else None
