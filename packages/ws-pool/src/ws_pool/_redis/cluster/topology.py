"""The nodes of a cluster and the hash slots they serve, kept up to date.

While a node is unreachable the topology is refreshed repeatedly, from the other nodes or the seeds of
the options: another node may have taken over its slots, and commands wait for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import RedisError

from ws_core import backoff
from ws_pool._core.background import TaskSet, cancel_and_wait
from ws_pool._redis.commands.command import text_of
from ws_pool._redis.commands.keys import SLOTS, KeySpecs
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.one_shot import request_once
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.errors import ConnectionLost, UnavailableError
from ws_pool._redis.node import Balancer, Node, NodeContext, ReplicaNodes, static_resolver
from ws_pool._redis.options import ReadFrom
from ws_pool.errors import WsError

_logger: Final = logging.getLogger("ws_pool.redis")
_PAUSES: Final = (0.05, 1.0)  # seconds between two refreshes while a node is unreachable
POLL_INTERVAL: Final = 5.0
"""Seconds between two looks for replicas, when commands may read from them."""

_SLOTS: Final = ("CLUSTER", "SLOTS")
_FAILURES: Final = (RedisError, WsError, ConnectionLost, OSError, TimeoutError)

Address = tuple[str, int]


class Topology:
    """Which node serves which hash slots."""

    def __init__(self, context: NodeContext, seeds: Sequence[Endpoint]) -> None:
        self._context = context
        self._seeds = tuple(seeds)
        self._pass_loss_on = context.on_down
        context.on_down = self._lost
        self._nodes: dict[Address, Node] = {}
        self._owner: list[Address | None] = [None] * SLOTS
        self._balancer = Balancer(context.settings.read_from)
        self._replicas = ReplicaNodes(context, replace(self._seeds[0], reads_only=True))
        self._replicas_of: dict[Address, list[Address]] = {}
        self._polling: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._given_up: set[int | None] = set()
        self._opening: dict[Address, asyncio.Task[None]] = {}
        self._leaving = TaskSet()
        self._closed = False
        self.keys = KeySpecs((), context.encoder.encode)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All masters."""
        return tuple(self._nodes.values())

    @property
    def replicas(self) -> tuple[Node, ...]:
        """All replicas, when commands may read from them."""
        return tuple(self._replicas.nodes.values())

    @property
    def closed(self) -> bool:
        """Whether the pool was closed."""
        return self._closed

    @property
    def outage_timeout(self) -> float:
        """Seconds to wait for a cluster that is not whole."""
        return self._context.settings.limits.outage_timeout

    async def start(self) -> None:
        """Find the nodes and connect to them; the seeds are tried one after the other."""
        for index, endpoint in enumerate(self._seeds):
            seed = self._node((endpoint.host, endpoint.port))

            try:
                await seed.start()
                await self._learn(await seed.request(_SLOTS), endpoint.host)
            except _FAILURES as error:
                if index == len(self._seeds) - 1:
                    raise

                _logger.warning("redis pool %r skips the seed %s: %s", self._context.name, endpoint, error)
                del self._nodes[endpoint.host, endpoint.port]
                await seed.close(timeout=0)
            else:
                break

        # Not by the seed, which may have another address in the cluster and be closed by now.
        commands = await self.node_of(None).request(("COMMAND",))
        self.keys = KeySpecs(commands, self._context.encoder.encode)

        if self._balancer.strategy != "master":
            self._polling = asyncio.get_running_loop().create_task(
                self._poll(), name="ws-pool cluster replicas"
            )

    async def close(self, *, timeout: float) -> None:
        """Close all nodes."""
        self._closed = True
        tasks = (self._polling, self._watching, self._refreshing, *self._opening.values())
        await cancel_and_wait(*(task for task in tasks if task is not None))
        nodes, self._nodes = self.nodes, {}
        await asyncio.gather(
            *(node.close(timeout=timeout) for node in nodes),
            self._replicas.close(timeout=timeout),
            *self._leaving,
        )

    def node_of(self, slot: int | None) -> Node:
        """Return the node of a slot, or any node for None."""
        address = next(iter(self._nodes), None) if slot is None else self._owner[slot]
        node = None if address is None else self._nodes.get(address)

        if node is None:
            what = "any node" if slot is None else f"a node that serves slot {slot}"
            raise UnavailableError(f"redis pool {self._context.name!r} does not know {what} of its cluster")

        return node

    def reader_of(self, slot: int | None, strategy: ReadFrom) -> Node:
        """Return the node to read from: the master of a slot, or one of its replicas."""
        master = self.node_of(slot)

        if strategy == "master" or slot is None or master.key is None:
            return master

        known = [self._replicas.nodes.get(address) for address in self._replicas_of.get(master.key, ())]
        return self._balancer.choose(master, [node for node in known if node is not None])

    def any_node(self) -> Node:
        """Return a node that is connected, or any when none is."""
        return next((node for node in self.nodes if node.pick().connected), None) or self.node_of(None)

    async def node_at(self, host: str, port: int, known: Node) -> Node:
        """Return the node at an address that a redirection names, after an attempt to connect to it."""
        address = (host or _host_of(known), port)
        node = self._nodes.get(address)

        if node is None:
            node = self._node(address)
            task = asyncio.get_running_loop().create_task(self._connect(node), name="ws-pool cluster node")
            self._opening[address] = task
            task.add_done_callback(lambda _: self._opening.pop(address))

        if address in self._opening:
            await asyncio.wait([self._opening[address]])  # a cancelled caller does not stop it for the others

        return node

    async def moved(self, slot: int, host: str, port: int, known: Node) -> None:
        """Note a slot's new node, and refresh the others soon."""
        node = await self.node_at(host, port, known)
        self._owner[slot] = node.key
        self.refresh_soon()

    def give_up(self, slot: int | None) -> None:
        """Note that a command of a slot has waited until its timeout for a cluster that is down."""
        self._given_up.add(slot)

    def is_given_up(self, slot: int | None) -> bool:
        """Return whether the last command of a slot that waited has timed out."""
        return slot in self._given_up

    def served(self, slot: int | None) -> None:
        """Note that a command of a slot was answered."""
        if self._given_up:
            self._given_up.discard(slot)

    def refresh_soon(self) -> asyncio.Task[None]:
        """Refresh the topology in the background; return the task, which concurrent callers share."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

        return self._refreshing

    # Inside -----------------------------------------------------------------------------------

    def _node(self, address: Address) -> Node:
        resolve = static_resolver(self._seeds[0].at(*address))
        node = self._nodes[address] = Node(self._context, resolve, key=address)
        return node

    def _lost(self, connection: PipelinedConnection) -> None:
        self._pass_loss_on(connection)
        self._watch_soon()

    def _watch_soon(self) -> None:
        """Start to refresh the topology repeatedly until all nodes are connected."""
        if not self._closed and (self._watching is None or self._watching.done()):
            self._watching = asyncio.get_running_loop().create_task(
                self._watch(), name="ws-pool cluster watch"
            )

    async def _watch(self) -> None:
        attempt = 0

        while not all(shared.connected for node in self.nodes for shared in node.shared_connections):
            attempt += 1
            await asyncio.sleep(backoff.delay(attempt, *_PAUSES))
            await asyncio.wait([self.refresh_soon()])

    async def _poll(self) -> None:
        """Refresh the topology from time to time: nothing else reports replicas that come and go."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            await asyncio.wait([self.refresh_soon()])

    async def _refresh(self) -> None:
        """Refresh from the first connected node that answers, or else from a seed."""
        limit = self._context.settings.limits.connect_timeout

        for node in self.nodes:
            if not node.pick().connected:
                continue

            try:
                async with asyncio.timeout(limit):
                    ranges = await node.request(_SLOTS)
                await self._learn(ranges, _host_of(node))
            except _FAILURES as error:
                _logger.warning("redis pool %r got no topology from %r: %s", self._context.name, node, error)
            else:
                return

        for seed in self._seeds:
            try:
                ranges = await request_once(seed, self._context.encoder, *_SLOTS, timeout=limit)
                await self._learn(ranges, seed.host)
            except _FAILURES as error:
                _logger.info("redis pool %r got no topology from %s: %s", self._context.name, seed, error)
            else:
                return

    async def _learn(self, ranges: Any, source: str) -> None:  # Any: a reply
        """Take over which node serves which slots, and connect to new nodes."""
        owner: list[Address | None] = [None] * SLOTS
        replicas: dict[Address, list[Address]] = {}

        for first, last, *nodes in ranges:
            addresses = [(text_of(node[0]) if node[0] else source, int(node[1])) for node in nodes]
            owner[first : last + 1] = [addresses[0]] * (last + 1 - first)
            replicas[addresses[0]] = addresses[1:]

        wanted = {address for address in owner if address is not None}

        if not wanted:
            raise UnavailableError(f"redis pool {self._context.name!r}: its cluster serves no slots yet")

        fresh = [self._node(address) for address in wanted - self._nodes.keys()]
        await asyncio.gather(*map(self._connect, fresh))
        self._owner = owner

        for address in self._nodes.keys() - wanted:
            self._leaving.spawn(self._nodes.pop(address).leave())

        if self._balancer.strategy != "master":
            self._replicas_of = replicas
            self._replicas.update({address for addresses in replicas.values() for address in addresses})

    async def _connect(self, node: Node) -> None:
        """Connect now, or in the background when the node is down: another may soon take its slots."""
        try:
            await node.start()
        except WsError:
            await node.start_in_outage()
            self._watch_soon()


def _host_of(node: Node) -> str:
    return "" if node.key is None else node.key[0]
