"""One server of a pool: its shared connections, and its dedicated ones."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from redis.asyncio.connection import AbstractConnection, ConnectionPool

from ws_pool._core.background import TaskSet
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.table import READ_ONLY, REPLICA_READS
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.dedicated.connection import connection_options
from ws_pool._redis.dedicated.pool import Connector, DedicatedConnections
from ws_pool._redis.options import ReadFrom, RedisOptions
from ws_pool.pool import Pool

_SPREAD: Final = 0x9E3779B1  # addresses of tasks differ in few bits: Knuth's multiplier spreads them
_UNBLOCK_TIMEOUT: Final = 1.0  # seconds to unblock commands before a pool is closed
_LEAVE_TIMEOUT: Final = 5.0  # seconds for the replies of a node that is not needed any more
LARGE: Final = 64 * 1024
"""Commands with so many bytes of arguments go where no others wait behind them, if there is such a place."""

Resolve = Callable[[], Awaitable[Endpoint]]
T = TypeVar("T")


class ConnectionGroups(Generic[T]):
    """
    Shared connections in groups: with two, reads have one of them; with more, large values have another.

    What one connection carries is executed and answered in order, so a read behind a write waits as long
    as that does: while the server is paused for writes, or a large value is on its way.

    Example:
        >>> groups = ConnectionGroups(["a", "b", "c", "d"])
        >>> groups.reads, groups.writes, groups.large
        (['a', 'b'], ['c'], ['d'])
        >>> groups.choose([("GET", "k")]), groups.choose([("GET", "k"), ("DEL", "k")])
        (['a', 'b'], ['c'])
        >>> groups.choose([("SET", "k", bytes(LARGE))])
        ['d']
    """

    def __init__(self, connections: Sequence[T]) -> None:
        others = len(connections) - (len(connections) > 2)
        readers = (others + 1) // 2
        self.reads = connections[:readers]
        self.writes = connections[readers:others]
        self.large = connections[others:] or self.writes

    def choose(
        self, commands: Sequence[Sequence[Any]]
    ) -> Sequence[T]:  # Any: arguments of redis-py's callers
        """Return the connections for commands that are sent as one piece."""
        if sum(map(_size, commands)) >= LARGE:
            return self.large

        return self.reads if all(map(_only_reads, commands)) else self.writes


def _only_reads(args: Sequence[Any]) -> bool:
    verb = args[0]
    return (verb.__class__ is str and verb in READ_ONLY) or Command(args).read_only


def _size(args: Sequence[Any]) -> int:
    return sum(len(arg) for arg in args if isinstance(arg, str | bytes | bytearray | memoryview))


def static_resolver(endpoint: Endpoint) -> Resolve:
    """Return a resolver that always resolves to the same endpoint."""

    async def resolve() -> Endpoint:
        return endpoint

    return resolve


@dataclass(slots=True)
class NodeContext:
    """What all nodes of a pool have in common."""

    name: str  # the pool's
    settings: RedisOptions
    on_push: Callable[[list[Any]], None] = lambda _: None  # called with RESP3 push messages
    on_up: Callable[[PipelinedConnection], None] = lambda _: None  # called before a connection is used
    on_down: Callable[[PipelinedConnection], None] = lambda _: None  # called after a loss
    options: dict[str, Any] = field(init=False)  # Any: redis-py's keyword arguments
    encoder: CommandEncoder = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        codec = settings.encoding.lower().replace("_", "-")
        self.options = connection_options(
            encoding=settings.encoding,
            errors=settings.encoding_errors,
            decode_responses=settings.decode_responses,
            protocol=settings.protocol,
        )
        redis_encoder = ConnectionPool(**self.options).get_encoder()
        self.encoder = CommandEncoder(
            redis_encoder.encode, fast=codec in {"utf-8", "utf8"} and settings.encoding_errors == "strict"
        )


class Balancer:
    """Chooses the server for a command that only reads, by redis-py's strategies."""

    def __init__(self, strategy: ReadFrom) -> None:
        self.strategy = strategy
        self._turn = 0
        self._random = random.Random()

    def choose(self, master: Node, replicas: Sequence[Node]) -> Node:
        """Return a server that is connected; the master when no replica is."""
        found = [node for node in replicas if node.pick().connected]

        if not found or self.strategy == "master":
            return master

        if self.strategy == "random_replica":
            return self._random.choice(found)

        if self.strategy == "round_robin":
            found.append(master)

        self._turn += 1
        return found[self._turn % len(found)]


class Node:
    """One server: what sends commands to it, and what leads to a session on it."""

    def __init__(self, context: NodeContext, resolve: Resolve, *, key: tuple[str, int] | None = None) -> None:
        settings = context.settings
        self.key = key
        self.shared_connections = tuple(
            ReconnectingConnection(
                context.name,
                resolve,
                context.encoder,
                settings.limits,
                encoding=settings.encoding if settings.decode_responses else None,
                errors=settings.encoding_errors,
                on_push=context.on_push,
                on_up=context.on_up,
                on_down=context.on_down,
                several=settings.shared_connections > 1,
            )
            for _ in range(settings.shared_connections)
        )
        self._groups = ConnectionGroups(self.shared_connections)
        self._closed = False
        self._context = context
        self._connector = Connector(resolve, context.options, timeout=settings.limits.connect_timeout)
        self.pool = self._new_pool(settings.min_size)
        self.dedicated = DedicatedConnections(
            self.pool,
            self._connector,
            acquire_timeout=settings.acquire_timeout,
            outage_timeout=settings.limits.outage_timeout,
            check=lambda: self.pick().check_reachable(),
            **context.options,
            **_described(settings.endpoint if key is None else settings.endpoint.at(*key)),
        )
        # The only shared connection, or None when there are several: spares the hot path a call of pick().
        self.shared = self.shared_connections[0] if len(self.shared_connections) == 1 else None

    def __repr__(self) -> str:
        return f"<Node {self.shared_connections[0].endpoint or self.key}>"

    def pick(self, *commands: Sequence[Any]) -> ReconnectingConnection:
        """Choose a shared connection: by what commands do and by task, or that of a cancelled command."""
        shared_connections: Sequence[ReconnectingConnection] = self.shared_connections

        if commands and len(shared_connections) > 1:
            for shared in shared_connections:
                if shared.must_follow(*commands):
                    return shared

            shared_connections = self._groups.choose(commands)

        # One task keeps to one connection, so that its commands stay in order. The product's low bits are
        # those of the address, which all tasks share.
        return shared_connections[(id(asyncio.current_task()) * _SPREAD >> 24) % len(shared_connections)]

    async def start(self) -> None:
        """Open all shared connections, and the pool of dedicated ones."""
        for shared in self.shared_connections:
            await shared.start()

        if not self._closed:
            await self.pool.start()

    async def start_in_outage(self) -> None:
        """Keep connecting in the background after `start` has failed."""
        if self._closed:
            return

        for shared in self.shared_connections:
            if not shared.connected:
                shared.start_soon()

        if not self.pool.ready:
            self.pool = self._new_pool(min_size=0)  # nothing is kept open while the server is away
            self.dedicated.use_pool(self.pool)
            await self.pool.start()

    async def leave(self) -> None:
        """Close a node that is not needed any more; commands queued for it go to other nodes."""
        for shared in self.shared_connections:
            shared.return_queued(f"{self!r} is not needed any more")

        await self.close(timeout=_LEAVE_TIMEOUT)

    async def close(self, *, timeout: float) -> None:
        """Close after the pending replies; wait ``timeout`` seconds for them, and for connections in use."""
        self._closed = True

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(timeout, _UNBLOCK_TIMEOUT)):
                await self.dedicated.unblock_all(self.request)

        await asyncio.gather(*(shared.close(timeout=timeout) for shared in self.shared_connections))

        if self.pool.ready:
            await self.dedicated.close()
            await self.pool.close(timeout=timeout)

    async def request(self, words: Sequence[Any]) -> Any:  # Any: a reply
        """Execute a command over a shared connection."""
        return await self.pick().request(*words)

    def _new_pool(self, min_size: int) -> Pool[AbstractConnection]:
        settings = self._context.settings
        return Pool(
            self._connector,
            name=self._context.name,
            min_size=min_size,
            max_size=settings.max_size,
            acquire_timeout=settings.acquire_timeout,
            connect_timeout=settings.limits.connect_timeout,
            leak_threshold=settings.leak_threshold,
        )


class ReplicaNodes:
    """The nodes of replicas, by address; they are connected to in the background."""

    def __init__(self, context: NodeContext, endpoint: Endpoint) -> None:
        self._context = context
        self._endpoint = endpoint
        self._leaving = TaskSet()
        self.nodes: dict[tuple[str, int], Node] = {}

    def update(self, addresses: Collection[tuple[str, int]]) -> None:
        """Connect to new replicas, and leave those that have gone."""
        for address in self.nodes.keys() - addresses:
            self._leaving.spawn(self.nodes.pop(address).leave())

        for address in set(addresses) - self.nodes.keys():
            resolve = static_resolver(self._endpoint.at(*address))
            node = self.nodes[address] = Node(self._context, resolve, key=address)

            for shared in node.shared_connections:
                shared.start_soon()

    async def close(self, *, timeout: float) -> None:
        """Close all of them."""
        await asyncio.gather(*(node.close(timeout=timeout) for node in self.nodes.values()), *self._leaving)


class Replicas(ReplicaNodes):
    """The replicas of a master that Sentinels watch, and the choice among them."""

    def __init__(self, context: NodeContext, master: Node, endpoint: Endpoint) -> None:
        super().__init__(context, replace(endpoint, role="slave"))
        self._master = master
        self._balancer = Balancer(context.settings.read_from)

    def pick(self, args: Sequence[Any]) -> ReconnectingConnection:  # Any: arguments of a command
        """Choose the connection for a command: of a replica for those that only read."""
        if args[0] in REPLICA_READS:
            return self._balancer.choose(self._master, tuple(self.nodes.values())).pick(args)

        return self._master.pick(args)


def _described(endpoint: Endpoint) -> dict[str, Any]:
    """Return what tracing libraries read of a `ConnectionPool`, which opens no connection itself."""
    where = {"path": endpoint.path} if endpoint.path else {"host": endpoint.host, "port": endpoint.port}
    return {**where, "db": endpoint.db}
