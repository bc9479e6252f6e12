"""redis-py's pipeline on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import exceptions as driver
from redis.client import NEVER_DECODE

from ws_pool._mux._commands import Route, canonical, route_of
from ws_pool._mux._pipeline import SharedPipeline
from ws_pool.errors import UsageError

if TYPE_CHECKING:
    from ws_pool._mux._cluster import ClusterRedis

__all__ = ("ClusterPipeline",)


class ClusterPipeline(SharedPipeline):
    """A pipeline whose WATCH takes a connection to the node of the watched key."""

    _client: ClusterRedis

    def _may_share(self, stack: list[Any]) -> bool:
        """Share in all cases but WATCH: a connection of one's own leads to one node only."""
        if self.connection is not None or self.watching:
            return False

        alone = [canonical(args) for args, _ in stack if route_of(args) is not Route.SHARED]
        raw = [canonical(args) for args, options in stack if self._client.decodes and NEVER_DECODE in options]

        if alone or raw:
            names = ", ".join(sorted({*alone, *raw}))
            raise UsageError(f"a pipeline on a cluster cannot hold {names}: execute it alone")

        return True

    async def immediate_execute_command(
        self, *args: Any, **options: Any
    ) -> Any:  # Any: redis-py's own signature
        """Execute at once, on the node of the first key."""
        if self.connection is None:
            topology = self._client.topology
            self.connection_pool = topology.node_of(topology.keys.slot(args)).leases

        try:
            return await super().immediate_execute_command(*args, **options)
        except driver.MovedError:
            self._client.topology.refresh_soon()
            raise
