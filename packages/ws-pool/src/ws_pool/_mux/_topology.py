"""The nodes of a cluster and the slots they serve, kept up to date."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from redis.exceptions import RedisError

from ws_pool._mux._endpoint import Endpoint
from ws_pool._mux._errors import LinkLost, UnavailableError
from ws_pool._mux._lane import Lane
from ws_pool._mux._node import Node, Wiring
from ws_pool._mux._slots import SLOTS, KeyTable
from ws_pool._mux._tasks import end_all
from ws_pool.errors import WsError

__all__ = ("Topology",)

_logger: Final = logging.getLogger("ws_pool.redis")
_FAILURES: Final = (RedisError, WsError, LinkLost, OSError, TimeoutError)

Address = tuple[str, int]


class Topology:
    """
    Who serves what in a cluster.

    Args:
        wiring: What all nodes have in common.
        seed: The node to ask first.
    """

    def __init__(self, wiring: Wiring, seed: Endpoint) -> None:
        self._wiring = wiring
        self._seed = seed
        self._nodes: dict[Address, Node] = {}
        self._owner: list[Address | None] = [None] * SLOTS
        self._refreshing: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self.keys = KeyTable((), wiring.packer.encode)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All masters."""
        return tuple(self._nodes.values())

    async def start(self) -> None:
        """
        Find the nodes and connect to them.

        Raises:
            UnavailableError: The seed can't be reached, or is no node of a cluster.
        """
        seed = self._node((self._seed.host, self._seed.port))
        await seed.start()
        await self._learn(seed)
        commands = await self._ask(self.node_of(None).pick(), "COMMAND")  # the seed may go by another name
        self.keys = KeyTable(commands, self._wiring.packer.encode)

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - how long to wait for others, not for the caller
        """
        Close all nodes.

        Args:
            timeout: Seconds to wait for replies.
        """
        self._closed = True

        if self._refreshing is not None:
            await end_all(self._refreshing)

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

        Args:
            host: Its host; empty for the host of the node that has redirected.
            port: Its port.
            known: The node that has redirected.

        Returns:
            The node, connected or about to be.
        """
        address = (host or (known.key or (self._seed.host, 0))[0], port)
        node = self._nodes.get(address)

        if node is None:
            node = self._node(address)
            await self._connect(node)

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
        endpoint = self._seed.at(*address)

        async def resolve() -> Endpoint:
            return endpoint

        node = self._nodes[address] = Node(self._wiring, resolve, key=address)
        return node

    async def _refresh(self) -> None:
        for node in self.nodes:
            if not node.pick().connected:
                continue

            try:
                async with asyncio.timeout(self._wiring.settings.limits.connect_timeout):
                    await self._learn(node)
            except _FAILURES as error:
                _logger.warning("redis pool %r: %r tells no topology: %s", self._wiring.name, node, error)
            else:
                return

    async def _learn(self, source: Node) -> None:
        """Ask a node for the slots of all, and connect to those that are new."""
        ranges = await self._ask(source.pick(), "CLUSTER", "SLOTS")
        owner: list[Address | None] = [None] * SLOTS

        for first, last, master, *_ in ranges:
            host = _text(master[0]) if master[0] else (source.key or ("", 0))[0]
            owner[first : last + 1] = [(host, int(master[1]))] * (last + 1 - first)

        wanted = {address for address in owner if address is not None}

        if not wanted:
            raise UnavailableError(f"redis pool {self._wiring.name!r}: its cluster serves no slots yet")

        for address in wanted - self._nodes.keys():
            await self._connect(self._node(address))

        self._owner = owner

        for address in self._nodes.keys() - wanted:
            self._leave(self._nodes.pop(address))

    async def _connect(self, node: Node) -> None:
        """Connect now, or in the background when the node is down: its slots may soon be another's."""
        try:
            await node.start()
        except UnavailableError:
            for lane in node.lanes:
                if not lane.connected:
                    lane.start_soon()

            if not node.pool.ready:
                await node.pool.start()

    def _leave(self, node: Node) -> None:
        task = asyncio.get_running_loop().create_task(node.close(timeout=5.0))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _ask(self, lane: Lane, *words: str) -> Any:  # Any: a reply
        slot = asyncio.get_running_loop().create_future()
        lane.submit(slot, self._wiring.packer.pack(words))
        return await slot


def _text(value: Any) -> str:  # Any: bytes or str
    return value.decode() if isinstance(value, bytes) else str(value)
