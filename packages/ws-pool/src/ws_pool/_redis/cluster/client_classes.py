"""Which client a pool has: by its server, by whether it has a cache, and whether keys have a prefix."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Final

from ws_pool._redis.client.caching import CachingRedis
from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.shared import SharedRedis
from ws_pool._redis.cluster.client import ClusterRedis
from ws_pool._redis.cluster.topology import Topology
from ws_pool._redis.commands.prefix import KeyPrefix
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.options import RedisOptions


class Prefixed(SharedRedis):
    """Adds the prefix to what is executed, so that all below it sees whole keys only."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Execute a command with the prefix before its keys; errors as of `SharedRedis.execute_command`."""
        if (prefix := self.key_prefix) is not None:
            args = tuple(prefix.apply(args))

        return await super().execute_command(*args, **options)

    def use_callbacks(self, callbacks: MutableMapping[Any, Any]) -> None:
        """Use other response callbacks, and take the prefix off the keys of replies."""
        prefix = self.key_prefix
        super().use_callbacks(callbacks if prefix is None else prefix.callbacks(callbacks))

    @property
    def unprefixed(self) -> SharedRedis:
        """The same client without the prefix: for keys and channels that were agreed on with others."""
        client = self._copy()
        client.applies_prefix = False
        client.use_callbacks(KeyPrefix.plain_callbacks(self.response_callbacks))
        return client


class PrefixedRedis(Prefixed):
    """Of one server."""


class PrefixedCachingRedis(Prefixed, CachingRedis):  # type: ignore[misc]  # as redis-py's mixins clash
    """Of one server, with a cache."""


class CachingClusterRedis(CachingRedis, ClusterRedis):  # type: ignore[misc]  # the same
    """Of a cluster, with a cache."""

    def _connections(self) -> Sequence[PipelinedConnection]:
        return [shared.connection for node in self.topology.nodes for shared in node.shared_connections]


class PrefixedClusterRedis(Prefixed, ClusterRedis):  # type: ignore[misc]  # the same
    """Of a cluster, with a key prefix."""


class PrefixedCachingClusterRedis(Prefixed, CachingClusterRedis):  # type: ignore[misc]  # the same
    """Of a cluster, with a key prefix and a cache."""


# By whether there is a cache, and whether there is a prefix.
_CLIENTS: Final = {
    (False, False): SharedRedis,
    (True, False): CachingRedis,
    (False, True): PrefixedRedis,
    (True, True): PrefixedCachingRedis,
}
_CLUSTER_CLIENTS: Final = {
    (False, False): ClusterRedis,
    (True, False): CachingClusterRedis,
    (False, True): PrefixedClusterRedis,
    (True, True): PrefixedCachingClusterRedis,
}


def make_client(context: ClientContext, settings: RedisOptions, topology: Topology | None) -> SharedRedis:
    """Make the shared client of a pool; all nodes are connected."""
    kind = (context.cache is not None, context.prefix is not None)

    if topology is None:
        return _CLIENTS[kind](context, retry=settings.retry)

    return _CLUSTER_CLIENTS[kind](context, topology, retry=settings.retry, read_from=settings.read_from)
