"""The parts of a started Redis pool, made from its options: nodes, client, cache, fail-over listener."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ResponseError

from ws_pool._redis.client.cache import CachePolicy, ClientCache
from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.mailbox import Topic
from ws_pool._redis.client.session import DedicatedRedis
from ws_pool._redis.client.shared import SharedRedis
from ws_pool._redis.client.subscriptions import Subscriptions
from ws_pool._redis.cluster.client_classes import make_client
from ws_pool._redis.cluster.topology import Topology
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.key_specs import KeyPositions
from ws_pool._redis.commands.keys import hash_slot
from ws_pool._redis.commands.prefix import KeyPrefix
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.dedicated.pool import DedicatedConnections, SingleConnectionPool
from ws_pool._redis.embedded import EmbeddedServer
from ws_pool._redis.node import Node, NodeContext, Replicas, static_resolver
from ws_pool._redis.options import RedisOptions
from ws_pool._redis.reauthentication import Reauthenticator
from ws_pool._redis.sentinel import FailoverListener, MasterResolver
from ws_pool._redis.statistics import RedisStatistics
from ws_pool.errors import ConfigError, UsageError
from ws_pool.pool import Lease


class Backend:
    """The parts of a pool, from its start to its end."""

    def __init__(self, name: str, settings: RedisOptions, server: EmbeddedServer | None) -> None:
        self.node: Node | None = None
        self.topology: Topology | None = None
        self.cache: ClientCache | None = None
        self.client: SharedRedis | None = None
        self.name = name
        self._settings = settings
        self._server = server
        self._node_context = node_context = NodeContext(name, settings, on_up=self._on_up)
        self._protocol = settings.endpoint.protocol
        self._resolver: MasterResolver | None = None
        self._failover_listener: FailoverListener | None = None
        self._master: tuple[str, int] | None = None
        self._prefix: KeyPrefix | None = None
        self._replicas: Replicas | None = None
        self._context: ClientContext | None = None
        self._reauthenticator: Reauthenticator | None = None

        if (source := settings.endpoint.credentials) is not None:
            self._reauthenticator = Reauthenticator(
                name,
                source,
                settings.reauth_interval,
                nodes=lambda: self._nodes,
                log_in_subscribers=self._log_in_subscribers,
            )

        if settings.cache:
            cache = self.cache = ClientCache(
                settings.cache, ttl=settings.cache_ttl, clock=asyncio.get_running_loop().time
            )
            node_context.on_push = self._on_push
            node_context.on_down = lambda _: cache.flush()

        if settings.cluster:
            self.topology = Topology(node_context, settings.seed_endpoints)
        else:
            self.node = Node(node_context, self._make_resolver())

            if settings.read_from != "master":
                self._replicas = Replicas(node_context, self.node, settings.endpoint)

    async def start(self) -> SharedRedis:
        """Connect, and make the shared client."""
        if self.topology is not None:
            await self.topology.start()
        elif self.node is not None:
            await self.node.start()

        if self._settings.prefix:
            self._prefix = await self._make_prefix()

        self.client = self._connected()

        if self._resolver is not None:
            replicas = self._replicas
            self._failover_listener = FailoverListener(
                self._resolver,
                self.follow_master,
                on_replicas=None if replicas is None else replicas.update,
            )

        return self.client

    async def close(self, *, timeout: float) -> None:
        """Close after the pending replies; wait ``timeout`` seconds for them, and for connections in use."""
        context = self._context
        subscriptions = None if context is None else context.subscriptions

        # First what would go to other servers, or log in, because connections are lost.
        for watcher in (self._failover_listener, self._reauthenticator, subscriptions):
            if watcher is not None:
                await watcher.close()

        if context is not None and context.cancelling:
            await asyncio.wait(context.cancelling, timeout=timeout)

        for nodes in (self.topology, self._replicas, self.node):
            if nodes is not None:
                await nodes.close(timeout=timeout)

    async def acquire_dedicated(self) -> tuple[Lease[AbstractConnection], DedicatedRedis]:
        """Acquire a dedicated connection and make a client of it; `release_dedicated` ends both."""
        context, client, node = self._context, self.client, self.node
        assert context is not None
        assert client is not None

        if node is None:
            client.client()  # raises: a cluster has no single session
            raise AssertionError("unreachable")

        lease = await node.dedicated.acquire()
        connection = lease.connection
        pool = SingleConnectionPool(connection, timeout=context.command_timeout, **context.options)
        return lease, DedicatedRedis(context, connection_pool=pool, callbacks=client.response_callbacks)

    def release_dedicated(self, lease: Lease[AbstractConnection]) -> None:
        """Release the connection of a dedicated client."""
        assert self.node is not None
        self.node.dedicated.release_lease(lease)

    async def reauthenticate(self) -> None:
        """Log all connections in with what the credentials are now."""
        if self._reauthenticator is None:
            message = f"redis pool {self.name!r} has a fixed password: give it credentials= to change them"
            raise UsageError(message, pool=self.name)

        await self._reauthenticator.reauthenticate()

    def follow_master(self, host: str, port: int) -> None:
        """Move to the master that a Sentinel names, if it is another."""
        before, self._master = self._master, (host, port)

        if self.node is not None:
            left = sum(shared.drop_unless_at(host, port) for shared in self.node.shared_connections)

            # Dedicated connections are replaced too, but not when the first news only confirms where all
            # connections are already.
            if left or before not in {None, self._master}:
                self.node.pool.expire()

            self.node.dedicated.follow_master(host, port)

    # Inside -----------------------------------------------------------------------------------

    def _log_in_subscribers(self) -> None:
        if self._context is not None:
            self._context.subscriptions.log_in()

    @property
    def _masters(self) -> tuple[Node, ...]:
        if self.topology is not None:
            return self.topology.nodes

        return () if self.node is None else (self.node,)

    @property
    def _nodes(self) -> tuple[Node, ...]:
        """All nodes: masters, then replicas."""
        if self.topology is not None:
            return (*self.topology.nodes, *self.topology.replicas)

        return (*self._masters, *(() if self._replicas is None else self._replicas.nodes.values()))

    def _connected(self) -> SharedRedis:
        """Make the shared client; all nodes are connected."""
        settings, node_context = self._settings, self._node_context
        node = self.node if self.topology is None else self.topology.node_of(None)
        assert node is not None
        self._context = ClientContext(
            name=self.name,
            loop=asyncio.get_running_loop(),
            encoder=node_context.encoder,
            shared=node.shared,
            pick=node.pick,
            shared_connections=node.shared_connections,
            dedicated=node.dedicated,
            subscriptions=self._subscriptions_by(node),
            options=node_context.options,
            decodes=settings.decode_responses,
            command_timeout=settings.limits.command_timeout,
            follow_master=bool(settings.sentinels),
            cache=self.cache,
            cache_policy=None
            if self.cache is None
            else CachePolicy(
                settings.cache_mode != "opt_in",
                tuple(bytes(node_context.encoder.encode(begin)) for begin in settings.endpoint.broadcast),
            ),
            prefix=self._prefix,
            on_command=settings.on_command,
            pick_reader=None if self._replicas is None else self._replicas.pick,
        )

        client = make_client(self._context, settings, self.topology)

        if self._protocol != settings.endpoint.protocol:
            client.use_callbacks(self._callbacks(self._protocol))

        return client

    def _subscriptions_by(self, node: Node) -> Subscriptions:
        """Return what subscribers share; ``node`` has all channels where there is no cluster."""
        topology = self.topology

        def route(topic: Topic) -> DedicatedConnections:
            if topology is None:
                return node.dedicated

            if topic.kind == "s":
                return topology.node_of(hash_slot(topic.name)).dedicated

            return topology.any_node().dedicated  # channels that are not sharded are those of all nodes

        return Subscriptions(
            self.name,
            route,
            heartbeat=self._settings.limits.command_timeout,
            note_loss=(lambda: None) if topology is None else topology.refresh_soon,
        )

    async def _make_prefix(self) -> KeyPrefix:
        """Make the prefix of keys, with what the server knows about its commands."""
        node = self.node if self.topology is None else self.topology.node_of(None)
        assert node is not None
        options = self._settings

        try:
            positions = KeyPositions(await node.request(("COMMAND",)))
        except ResponseError as error:
            message = f"redis pool {self.name!r}: prefix needs the command COMMAND: {error}"
            raise ConfigError(message, setting="prefix") from error

        if positions.of(Command(("GET", "key"))) != [1]:
            message = (
                f"redis pool {self.name!r}: prefix needs a server whose COMMAND has key specifications:"
                " Redis 7 or Valkey"
            )
            raise ConfigError(message, setting="prefix")

        return KeyPrefix(options.prefix, positions, self._node_context.encoder.encode)

    def _on_push(self, message: list[Any]) -> None:
        """Drop the replies whose keys have changed, as the server reports."""
        if self.cache is None or message[0] not in {b"invalidate", "invalidate"}:
            return

        if message[1] is None:
            self.cache.flush()
        else:
            encode = self._node_context.encoder.encode
            self.cache.invalidate(bytes(encode(key)) for key in message[1])

    def _make_resolver(self) -> Callable[[], Awaitable[Endpoint]]:
        settings = self._settings
        endpoint = settings.endpoint

        if self._server is not None:
            endpoint = endpoint.at_path(self._server.path)

        if settings.sentinels:
            resolver = self._resolver = MasterResolver(
                settings.sentinels,
                settings.service,
                sentinel_endpoint=settings.sentinel_endpoint,
                master_endpoint=settings.endpoint,
                encoder=self._node_context.encoder,
            )
            return resolver

        return static_resolver(endpoint)

    def _on_up(self, connection: PipelinedConnection) -> None:
        """Use the response callbacks of the protocol version that the server has agreed to."""
        if self._reauthenticator is not None:
            self._reauthenticator.check(connection)

        if connection.protocol != self._protocol:
            self._protocol = connection.protocol

            if self.client is not None:
                self.client.use_callbacks(self._callbacks(connection.protocol))

    def _callbacks(self, protocol: int) -> Any:  # Any: redis-py's dictionary of callbacks
        options = {**self._node_context.options, "protocol": protocol}
        return Redis(connection_pool=ConnectionPool(**options)).response_callbacks

    def statistics(self) -> RedisStatistics:
        """Return a frozen snapshot."""
        return RedisStatistics(
            name=self.name,
            shared=tuple(shared.statistics() for node in self._nodes for shared in node.shared_connections),
            leased=tuple(node.pool.statistics() for node in self._masters),
            cache=None if self.cache is None else self.cache.statistics(),
        )
