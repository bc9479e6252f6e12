"""The nodes of a cluster and the slots they serve, kept up to date.

While a node is out of reach the others are asked again and again, and when none answers those that
were named at the start: its slots may be another's by now, and commands wait for it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import RedisError

from ws_pool._core.background import cancel_and_wait
from ws_pool._redis.commands.keys import SLOTS, KeySpecs
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.one_shot import request_once
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.errors import ConnectionLost, UnavailableError
from ws_pool._redis.node import Node, NodeContext, static_resolver
from ws_pool.errors import WsError

__all__ = ("Topology",)

_logger: Final = logging.getLogger("ws_pool.redis")
_SOONEST, _LATEST = 0.05, 1.0  # seconds between two questions while a node is out of reach
_FAILURES: Final = (RedisError, WsError, ConnectionLost, OSError, TimeoutError)

Address = tuple[str, int]


class Topology:
    """
    Who serves what in a cluster.

    Args:
        wiring: What all nodes have in common.
        seeds: The nodes to ask first, one after the other; they are greeted alike.
    """

    def __init__(self, wiring: NodeContext, seeds: Sequence[Endpoint]) -> None:
        self._wiring = wiring
        self._seeds = tuple(seeds)
        self._tell_lost = wiring.on_down
        wiring.on_down = self._lost
        self._nodes: dict[Address, Node] = {}
        self._owner: list[Address | None] = [None] * SLOTS
        self._refreshing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._given_up: set[int | None] = set()
        self._opening: dict[Address, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self.keys = KeySpecs((), wiring.packer.encode)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All masters."""
        return tuple(self._nodes.values())

    @property
    def closed(self) -> bool:
        """Whether the pool was closed."""
        return self._closed

    @property
    def patience(self) -> float:
        """Seconds to wait for a cluster that is not whole."""
        return self._wiring.settings.limits.outage_timeout

    async def start(self) -> None:
        """
        Find the nodes and connect to them.

        Raises:
            UnavailableError: No seed can be reached.
            RedisError: The last seed that was asked is no node of a cluster.
        """
        for index, endpoint in enumerate(self._seeds):
            seed = self._node((endpoint.host, endpoint.port))

            try:
                await seed.start()
                await self._learn(await self._slots_by(seed), endpoint.host)
            except _FAILURES as error:
                if index == len(self._seeds) - 1:
                    raise

                _logger.warning("redis pool %r passes over %s: %s", self._wiring.name, endpoint, error)
                del self._nodes[endpoint.host, endpoint.port]
                await seed.close(timeout=0)
            else:
                break

        commands = await self._ask(self.node_of(None).pick(), "COMMAND")  # the seed may go by another name
        self.keys = KeySpecs(commands, self._wiring.packer.encode)

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - how long to wait for others, not for the caller
        """
        Close all nodes.

        Args:
            timeout: Seconds to wait for replies.
        """
        self._closed = True
        chores = (self._looking, self._refreshing, *self._opening.values())
        await cancel_and_wait(*(task for task in chores if task is not None))
        nodes, self._nodes = self.nodes, {}
        await asyncio.gather(*(node.close(timeout=timeout) for node in nodes), *self._leaving)

    def node_of(self, slot: int | None) -> Node:
        """
        Choose the node for a slot.

        Args:
            slot: The slot, or None for any node.

        Returns:
            The node.

        Raises:
            UnavailableError: No node is known to serve it.
        """
        address = next(iter(self._nodes), None) if slot is None else self._owner[slot]
        node = None if address is None else self._nodes.get(address)

        if node is None:
            what = "any node" if slot is None else f"a node that serves slot {slot}"
            raise UnavailableError(f"redis pool {self._wiring.name!r} does not know {what} of its cluster")

        return node

    async def node_at(self, host: str, port: int, known: Node) -> Node:
        """
        Give the node at an address that a redirection names.

        A caller that is cancelled does not stop the connecting, on which others may wait.

        Args:
            host: Its host; empty for the host of the node that has redirected.
            port: Its port.
            known: The node that has redirected.

        Returns:
            The node, connected or about to be.
        """
        address = (host or _host_of(known), port)
        node = self._nodes.get(address)

        if node is None:
            node = self._node(address)
            task = asyncio.get_running_loop().create_task(self._connect(node), name="ws-pool cluster node")
            self._opening[address] = task
            task.add_done_callback(lambda _: self._opening.pop(address))

        if address in self._opening:
            await asyncio.wait([self._opening[address]])  # which neither cancels it nor is cancelled by it

        return node

    async def moved(self, slot: int, host: str, port: int, known: Node) -> None:
        """
        Take note of a slot's new node, and look at all others soon.

        Args:
            slot: The slot.
            host: The new node's host.
            port: The new node's port.
            known: The node that has redirected.
        """
        node = await self.node_at(host, port, known)
        self._owner[slot] = node.key
        self.refresh_soon()

    def give_up(self, slot: int | None) -> None:
        """Remember that a command has waited in vain for a cluster that says it is down."""
        self._given_up.add(slot)

    def is_given_up(self, slot: int | None) -> bool:
        """Tell whether that was so for the last command of a slot that waited."""
        return slot in self._given_up

    def served(self, slot: int | None) -> None:
        """Note that a command of a slot was answered."""
        if self._given_up:
            self._given_up.discard(slot)

    def refresh_soon(self) -> asyncio.Task[None]:
        """
        Ask for the whole topology in the background; calls meanwhile join.

        Returns:
            The task that asks.
        """
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

        return self._refreshing

    # Inside -----------------------------------------------------------------------------------

    def _node(self, address: Address) -> Node:
        resolve = static_resolver(self._seeds[0].at(*address))
        node = self._nodes[address] = Node(self._wiring, resolve, key=address)
        return node

    def _lost(self, link: PipelinedConnection) -> None:
        self._tell_lost(link)
        self._look_out()

    def _look_out(self) -> None:
        """Ask for the topology again and again until all nodes are connected."""
        if not self._closed and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="ws-pool cluster watch")

    async def _look(self) -> None:
        pause = _SOONEST

        while not all(lane.connected for node in self.nodes for lane in node.lanes):
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(_LATEST, pause * 2)
            await asyncio.wait([self.refresh_soon()])

    async def _refresh(self) -> None:
        """Ask a node that is connected, or else one of the seeds."""
        limit = self._wiring.settings.limits.connect_timeout

        for node in self.nodes:
            if not node.pick().connected:
                continue

            try:
                async with asyncio.timeout(limit):
                    ranges = await self._slots_by(node)
                await self._learn(ranges, _host_of(node))
            except _FAILURES as error:
                _logger.warning("redis pool %r: %r tells no topology: %s", self._wiring.name, node, error)
            else:
                return

        for seed in self._seeds:
            try:
                ranges = await request_once(seed, self._wiring.packer, "CLUSTER", "SLOTS", timeout=limit)
                await self._learn(ranges, seed.host)
            except _FAILURES as error:
                _logger.info("redis pool %r: %s tells no topology: %s", self._wiring.name, seed, error)
            else:
                return

    async def _slots_by(self, node: Node) -> Any:  # Any: a reply
        return await self._ask(node.pick(), "CLUSTER", "SLOTS")

    async def _learn(self, ranges: Any, source: str) -> None:  # Any: a reply
        """Take over who serves which slots, and connect to the nodes that are new."""
        owner: list[Address | None] = [None] * SLOTS

        for first, last, master, *_ in ranges:
            host = _text(master[0]) if master[0] else source
            owner[first : last + 1] = [(host, int(master[1]))] * (last + 1 - first)

        wanted = {address for address in owner if address is not None}

        if not wanted:
            raise UnavailableError(f"redis pool {self._wiring.name!r}: its cluster serves no slots yet")

        fresh = [self._node(address) for address in wanted - self._nodes.keys()]
        await asyncio.gather(*map(self._connect, fresh))
        self._owner = owner

        for address in self._nodes.keys() - wanted:
            self._leave(self._nodes.pop(address))

    async def _connect(self, node: Node) -> None:
        """Connect now, or in the background when the node is down: its slots may soon be another's."""
        try:
            await node.start()
        except WsError:
            await node.start_in_outage()
            self._look_out()

    def _leave(self, node: Node) -> None:
        """Close a node whose slots are others' now; what waits for it goes to them."""
        for lane in node.lanes:
            lane.send_back(f"{node!r} has left the cluster")

        task = asyncio.get_running_loop().create_task(node.close(timeout=5.0))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _ask(self, lane: ReconnectingConnection, *words: str) -> Any:  # Any: a reply
        slot = asyncio.get_running_loop().create_future()
        lane.submit(slot, self._wiring.packer.pack(words))
        return await slot


def _text(value: Any) -> str:  # Any: bytes or str
    return value.decode() if isinstance(value, bytes) else str(value)


def _host_of(node: Node) -> str:
    return "" if node.key is None else node.key[0]
