"""What a started Redis pool is made of, put together from its options: nodes, client, cache, watch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool

from ws_pool._redis.client.cache import CachingRedis, ClientCache
from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.session import DedicatedRedis
from ws_pool._redis.client.shared import SharedRedis
from ws_pool._redis.cluster.client import CachingClusterRedis, ClusterRedis
from ws_pool._redis.cluster.topology import Topology
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.dedicated.connection import state_of
from ws_pool._redis.dedicated.pool import SingleConnectionPool
from ws_pool._redis.embedded import EmbeddedServer
from ws_pool._redis.node import Node, NodeContext, static_resolver
from ws_pool._redis.options import RedisOptions
from ws_pool._redis.sentinel import FailoverListener, MasterResolver
from ws_pool._redis.statistics import RedisStatistics
from ws_pool.pool import Lease

__all__ = ("Backend",)


class Backend:
    """
    The parts of a pool, from its start to its end.

    Args:
        name: The pool's name.
        settings: The pool's options.
        server: The server of the pool's own, if any; it is started and stopped by others.
    """

    def __init__(self, name: str, settings: RedisOptions, server: EmbeddedServer | None) -> None:
        self.node: Node | None = None
        self.topology: Topology | None = None
        self.cache: ClientCache | None = None
        self.client: SharedRedis | None = None
        self.name = name
        self._settings = settings
        self._server = server
        self._wiring = wiring = NodeContext(name, settings, on_up=self._link_is_up)
        self._protocol = settings.endpoint.protocol
        self._finder: MasterResolver | None = None
        self._watch: FailoverListener | None = None
        self._master: tuple[str, int] | None = None
        self._core: ClientContext | None = None

        if settings.cache:
            cache = self.cache = ClientCache(
                settings.cache, ttl=settings.cache_ttl, clock=asyncio.get_running_loop().time
            )
            wiring.on_push = self._hear
            wiring.on_down = lambda _: cache.flush()

        if settings.cluster:
            self.topology = Topology(wiring, settings.seeds)
        else:
            self.node = Node(wiring, self._resolver())

    async def start(self) -> SharedRedis:
        """
        Connect, and make the shared client.

        Returns:
            The client.

        Raises:
            UnavailableError: The server can't be reached or refused the greeting.
        """
        if self.topology is not None:
            await self.topology.start()
        elif self.node is not None:
            await self.node.start()

        self.client = self._connected()

        if self._finder is not None:
            self._watch = FailoverListener(self._finder, self.follow)

        return self.client

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109 - how long to wait for others, not for the caller
        """
        Close after the replies that are due.

        Args:
            timeout: Seconds to wait for replies and for lent connections to come back.
        """
        if self._watch is not None:
            await self._watch.close()

        if self._core is not None and self._core.settling:
            await asyncio.wait(self._core.settling, timeout=timeout)

        if self.topology is not None:
            await self.topology.close(timeout=timeout)

        if self.node is not None:
            await self.node.close(timeout=timeout)

    async def lend(self) -> tuple[Lease[AbstractConnection], DedicatedRedis]:
        """
        Take a connection and make a client of it; `take_back` ends both.

        Returns:
            The lease and the client.

        Raises:
            UsageError: The server is a cluster.
            AcquireTimeout: None was free in time.
            UnavailableError: The server is gone, and was not back within ``outage_timeout`` seconds.
        """
        core, client, node = self._core, self.client, self.node
        assert core is not None  # noqa: S101 - start() has made both
        assert client is not None  # noqa: S101 - as above

        if node is None:
            client.client()  # tells that a cluster has no single session
            raise AssertionError("unreachable")

        lease = await node.leases.acquire()
        connection = lease.connection
        state_of(connection).clean = False
        pool = SingleConnectionPool(connection, **core.options)
        return lease, DedicatedRedis(core, connection_pool=pool, callbacks=client.response_callbacks)

    def take_back(self, lease: Lease[AbstractConnection]) -> None:
        """
        Take a lent connection back.

        Args:
            lease: What `lend` gave.
        """
        assert self.node is not None  # noqa: S101 - there is a lease
        connection = lease.connection
        self.node.pool.release(lease, discard=state_of(connection).spoiled or not connection.is_connected)

    def follow(self, host: str, port: int) -> None:
        """
        Go to the master that a Sentinel names, if it is another.

        Args:
            host: The master's host.
            port: The master's port.
        """
        before, self._master = self._master, (host, port)

        if self.node is not None:
            left = sum(lane.leave(host, port) for lane in self.node.lanes)

            if left or before not in {None, self._master}:
                self.node.pool.expire()

    # Inside -----------------------------------------------------------------------------------

    def _connected(self) -> SharedRedis:
        """Make the shared client; all nodes are connected."""
        settings, wiring = self._settings, self._wiring
        node = self.node if self.topology is None else self.topology.node_of(None)
        assert node is not None  # noqa: S101 - one of the two is there
        self._core = ClientContext(
            name=self.name,
            loop=asyncio.get_running_loop(),
            packer=wiring.packer,
            lane=node.lane,
            pick=node.pick,
            lanes=node.lanes,
            leases=node.leases,
            options=wiring.options,
            decodes=settings.decode_responses,
            command_timeout=settings.limits.command_timeout,
            follow_master=bool(settings.sentinels),
        )

        client = self._client_of(self._core)

        if self._protocol != settings.endpoint.protocol:
            client.use_callbacks(self._callbacks(self._protocol))

        return client

    def _client_of(self, core: ClientContext) -> SharedRedis:
        retry, cache, topology = self._settings.retry, self.cache, self.topology

        if cache is None:
            return (
                SharedRedis(core, retry=retry)
                if topology is None
                else ClusterRedis(core, topology, retry=retry)
            )

        client = (
            CachingRedis(core, retry=retry)
            if topology is None
            else CachingClusterRedis(core, topology, retry=retry)
        )
        client.cache = cache
        return client

    def _hear(self, message: list[Any]) -> None:
        """Drop from the cache what the server says has changed."""
        if self.cache is None or message[0] not in {b"invalidate", "invalidate"}:
            return

        if message[1] is None:
            self.cache.flush()
        else:
            encode = self._wiring.packer.encode
            self.cache.invalidate(bytes(encode(key)) for key in message[1])

    def _resolver(self) -> Callable[[], Awaitable[Endpoint]]:
        settings = self._settings
        endpoint = settings.endpoint

        if self._server is not None:
            endpoint = endpoint.at_path(self._server.path)

        if settings.sentinels:
            finder = self._finder = MasterResolver(
                settings.sentinels,
                settings.service,
                greeting=settings.sentinel_endpoint,
                master=settings.endpoint,
                packer=self._wiring.packer,
            )
            return finder

        return static_resolver(endpoint)

    def _link_is_up(self, link: PipelinedConnection) -> None:
        """Parse replies as the protocol version wants that the server has agreed to."""
        if link.protocol != self._protocol:
            self._protocol = link.protocol

            if self.client is not None:
                self.client.use_callbacks(self._callbacks(link.protocol))

    def _callbacks(self, protocol: int) -> Any:  # Any: redis-py's dictionary of callbacks
        options = {**self._wiring.options, "protocol": protocol}
        return Redis(connection_pool=ConnectionPool(**options)).response_callbacks

    def statistics(self) -> RedisStatistics:
        """Give a frozen snapshot."""
        node, topology = self.node, self.topology
        nodes = topology.nodes if topology is not None else () if node is None else (node,)
        return RedisStatistics(
            name=self.name,
            shared=tuple(lane.statistics() for node in nodes for lane in node.lanes),
            leased=tuple(node.pool.statistics() for node in nodes),
            cache=None if self.cache is None else self.cache.statistics(),
        )
