"""The replicas of a master that Sentinels watch, from which commands may read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ws_pool._redis.commands.table import REPLICA_READS
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.node import Balancer, Node, NodeContext, static_resolver


class Replicas:
    """Nodes of a master's replicas, kept up to date by what Sentinels report."""

    def __init__(self, context: NodeContext, master: Node, endpoint: Endpoint) -> None:
        self._context = context
        self._master = master
        self._endpoint = replace(endpoint, role="slave")
        self._balancer = Balancer(context.settings.read_from)
        self._nodes: dict[tuple[str, int], Node] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All replicas."""
        return tuple(self._nodes.values())

    def pick(self, args: Sequence[Any]) -> ReconnectingConnection:  # Any: arguments of a command
        """Choose the connection for a command: of a replica for those that only read."""
        if args[0] in REPLICA_READS:
            return self._balancer.choose(self._master, self.nodes).pick(args)

        return self._master.pick(args)

    def update(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Connect to new replicas, in the background, and leave those that have gone."""
        for address in self._nodes.keys() - set(addresses):
            task = asyncio.get_running_loop().create_task(self._nodes.pop(address).close(timeout=5.0))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

        for address in set(addresses) - self._nodes.keys():
            resolve = static_resolver(self._endpoint.at(*address))
            node = self._nodes[address] = Node(self._context, resolve, key=address)

            for shared in node.shared_connections:
                shared.start_soon()

    async def close(self, *, timeout: float) -> None:
        """Close all of them."""
        await asyncio.gather(*(node.close(timeout=timeout) for node in self.nodes), *self._leaving)
