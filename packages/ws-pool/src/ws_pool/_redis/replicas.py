"""The replicas of a master that Sentinels watch, from which commands may read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ws_pool._redis.commands.table import REPLICA_READS
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.node import Balancer, Node, NodeContext, ReplicaNodes


class Replicas(ReplicaNodes):
    """Replicas, kept up to date by what Sentinels report, and the choice among them."""

    def __init__(self, context: NodeContext, master: Node, endpoint: Endpoint) -> None:
        super().__init__(context, replace(endpoint, role="slave"))
        self._master = master
        self._balancer = Balancer(context.settings.read_from)

    def pick(self, args: Sequence[Any]) -> ReconnectingConnection:  # Any: arguments of a command
        """Choose the connection for a command: of a replica for those that only read."""
        if args[0] in REPLICA_READS:
            return self._balancer.choose(self._master, tuple(self.nodes.values())).pick(args)

        return self._master.pick(args)
