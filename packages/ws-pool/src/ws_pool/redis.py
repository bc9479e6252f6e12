"""Redis pools: redis-py's typed commands at the speed of one pipelined connection.

`RedisPool.redis` is a `redis.asyncio.Redis`. Commands of all tasks share a few connections and are
pipelined by themselves; what cannot be shared (blocking commands, sessions, pub/sub, WATCH) gets a
connection of its own without being asked. `RedisPoolManager` is a named set of such pools.

This module needs the extra ``ws-pool[redis]``.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ws_pool._extras import missing

try:
    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection, ConnectionPool
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "redis") from _error

from ws_core.component import Health
from ws_pool import _fork
from ws_pool._mux._blocks import AloneBlock, SharedBlock
from ws_pool._mux._cache import CachingClusterRedis, CachingRedis, ClientCache
from ws_pool._mux._client import AloneRedis, Core, SharedRedis
from ws_pool._mux._cluster import ClusterRedis
from ws_pool._mux._connections import state_of
from ws_pool._mux._embedded import EmbeddedServer
from ws_pool._mux._endpoint import Endpoint
from ws_pool._mux._errors import MaybeExecuted
from ws_pool._mux._extensions import load_extension
from ws_pool._mux._leases import OneConnection
from ws_pool._mux._link import Link
from ws_pool._mux._node import Node, Wiring, fixed
from ws_pool._mux._sentinel import MasterFinder, MasterWatch
from ws_pool._mux._settings import Settings, settings_of
from ws_pool._mux._statistics import RedisStatistics
from ws_pool._mux._tasks import end_all, is_cancelled
from ws_pool._mux._topology import Topology
from ws_pool.base import BasePoolManager
from ws_pool.errors import ClosedError, NotReadyError, UsageError
from ws_pool.pool import Lease

__all__ = ("MaybeExecuted", "RedisPool", "RedisPoolManager", "RedisStatistics", "redis_pool_manager")


class RedisPool:
    """
    A Redis server, shared by all tasks of a loop.

    Args:
        url: ``redis://``, ``rediss://`` (TLS), ``valkey://`` or ``unix://``, as redis-py has them; options
            may stand in its query.
        name: The name in errors, logs and statistics.
        setting: What begins the names of options in errors.
        **options: See the guide; the usual ones are ``username password db decode_responses
            maxsize shared_connections command_timeout``. ``encoding="utf-8"`` alone means decoded
            replies, as it did in the first wintersweet.

    Raises:
        ConfigError: A wrong option; nothing was started.

    Example:
        ```python
        from ws_pool.redis import RedisPool

        async with RedisPool(url="redis://localhost:6379/0", decode_responses=True) as pool:
            await pool.redis.set("greeting", "hello")
            print(await pool.redis.get("greeting"))
        ```
    """

    def __init__(
        self, url: str | None = None, *, name: str = "default", setting: str = "RedisPool", **options: object
    ) -> None:
        given = dict(options) if url is None else {"url": url, **options}
        self._name = name
        self._settings: Settings = settings_of(given, where=setting)
        self._state = "new"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wiring: Wiring | None = None
        self._node: Node | None = None
        self._topology: Topology | None = None
        self._cache: ClientCache | None = None
        self._finder: MasterFinder | None = None
        self._watch: MasterWatch | None = None
        self._master: tuple[str, int] | None = None
        self._client: SharedRedis | None = None
        self._core: Core | None = None
        self._protocol = 0
        self._server: EmbeddedServer | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    def embedded(
        cls,
        folder: str | Path | None = None,
        *,
        config: Mapping[str, str] | None = None,
        name: str = "default",
        **options: object,
    ) -> Self:
        """
        Make a pool with a Valkey server of its own, on a private unix socket; needs ``[embedded]``.

        The server starts and ends with the pool, and ends with this process however that ends.

        Args:
            folder: Keep the data there; without it they end with the pool.
            config: Further lines of the server's configuration.
            name: The name in errors, logs and statistics.
            **options: As for `RedisPool`, without those that say where the server is.

        Returns:
            The pool, not started.

        Example:
            ```python
            from ws_pool.redis import RedisPool

            async with RedisPool.embedded(decode_responses=True) as pool:
                await pool.redis.set("greeting", "hello")
                print(await pool.redis.get("greeting"), pool.url)
            ```
        """
        if elsewhere := options.keys() & {"url", "address", "host", "port", "path", "sentinels", "cluster"}:
            message = (
                f"RedisPool.embedded() has a server of its own: leave {', '.join(sorted(elsewhere))} out"
            )
            raise UsageError(message, pool=name)

        pool = cls(name=name, **options)  # type: ignore[arg-type]  # checked inside
        pool._server = EmbeddedServer(None if folder is None else Path(folder), config=config)
        return pool

    def __repr__(self) -> str:
        where = self._settings.endpoint if self._server is None else self._server
        return f"<RedisPool {self._name!r} at {where}, {self._state}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_state", "") == "open":
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._name

    @property
    def url(self) -> str:
        """Where the server is, without secrets; of an embedded server, while it runs, for other processes."""
        endpoint = self._settings.endpoint
        return endpoint.url if self._server is None else endpoint.at_path(self._server.path).url

    @property
    def ready(self) -> bool:
        """Whether the pool is started."""
        return self._state == "open"

    @property
    def redis(self) -> SharedRedis:
        """
        The shared client: a `redis.asyncio.Redis` that any number of tasks may use at once.

        Raises:
            NotReadyError: The pool was not started.
            ClosedError: The pool was closed.
        """
        client = self._client

        if client is None:
            raise self._refusal()

        return client

    async def start(self) -> None:
        """
        Connect.

        Raises:
            UnavailableError: The server can't be reached or refused the greeting.
            UsageError: The pool is started already.
            ClosedError: The pool was closed meanwhile.
        """
        if self._state != "new":
            message = f"redis pool {self._name!r} was started before: make a new one"
            raise UsageError(message, pool=self._name)

        self._state = "starting"
        _fork.watch(self)
        self._loop = asyncio.get_running_loop()
        self._opening = self._loop.create_task(self._open(), name=f"ws-pool redis {self._name} start")

        try:
            await self._opening
        except asyncio.CancelledError as error:
            if is_cancelled(error) or self._closing is None:
                raise

            raise self._refusal() from None  # close() has ended it

    async def close(self, *, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - how long to wait for others, not for the caller
        """
        Take no more commands, wait for the replies that are due, and close; may be called again.

        Whoever calls waits for the end of the same closing; a caller that is cancelled does not stop it.

        Args:
            timeout: Seconds to wait for replies and for lent connections to come back.
        """
        if self._closing is None:
            before, self._state = self._state, "closed"

            if before in {"new", "closed", "forked"}:
                return

            self._closing = asyncio.get_running_loop().create_task(
                self._close(timeout), name=f"ws-pool redis {self._name} close"
            )

        await asyncio.shield(self._closing)

    def get_client(self, *, alone: bool = False) -> AbstractAsyncContextManager[Redis]:
        """
        Give a client for the length of a block.

        Args:
            alone: Take a connection of its own, for sessions: SELECT, CLIENT TRACKING, MONITOR.

        Returns:
            An async context manager that gives the shared client, or one that is alone.

        Example:
            ```python
            from ws_pool.redis import RedisPool

            async with RedisPool(url="redis://localhost:6379/0") as pool:
                async with pool.get_client() as shared, pool.get_client(alone=True) as alone:
                    await shared.set("k", 1)
                    await alone.select(1)
                    print(await alone.get("k"))
            ```
        """
        return AloneBlock(self) if alone else SharedBlock(self)

    async def health(self, *, timeout: float = 5.0) -> Health:  # noqa: ASYNC109 - part of the answer
        """
        Check that the server answers.

        Args:
            timeout: Seconds after which it counts as not answering.

        Returns:
            The health; it never raises.
        """
        began = time.perf_counter()

        try:
            async with asyncio.timeout(timeout):
                await self.redis.execute_command("PING")
        except TimeoutError:
            return Health(ok=False, detail=f"no answer within {timeout:g} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            return Health(ok=False, detail=str(error) or type(error).__name__)

        return Health(ok=True, latency=time.perf_counter() - began)

    def statistics(self) -> RedisStatistics:
        """Give a frozen snapshot of the pool."""
        nodes = (self._node,) if self._topology is None else self._topology.nodes

        if not nodes or nodes[0] is None:
            raise self._refusal()

        return RedisStatistics(
            name=self._name,
            shared=tuple(lane.statistics() for node in nodes if node is not None for lane in node.lanes),
            leased=tuple(node.pool.statistics() for node in nodes if node is not None),
            cache=None if self._cache is None else self._cache.statistics(),
        )

    # Inside -----------------------------------------------------------------------------------

    def _build(self) -> None:
        settings = self._settings
        wiring = self._wiring = Wiring(self._name, settings, on_up=self._link_is_up)

        if settings.cache:
            cache = self._cache = ClientCache(
                settings.cache, ttl=settings.cache_ttl, clock=asyncio.get_running_loop().time
            )
            wiring.on_push = self._hear
            wiring.on_down = lambda _: cache.flush()

        if settings.cluster:
            self._topology = Topology(wiring, settings.seeds)
        else:
            self._node = Node(wiring, self._resolver(wiring))

        self._protocol = settings.endpoint.protocol

    async def _open(self) -> None:
        """Connect, in a task of its own, which close() can end."""
        try:
            if self._server is not None:
                await self._server.start()

            self._build()

            if self._topology is not None:
                await self._topology.start()
            elif self._node is not None:
                await self._node.start()

            self._client = self._connected()

            if self._finder is not None:
                self._watch = MasterWatch(self._finder, self._follow)
        except BaseException:
            await self._shut(timeout=0)
            self._state = "new" if self._state == "starting" else self._state
            raise

        self._state = "open"

    async def _close(self, timeout: float) -> None:  # noqa: ASYNC109 - see close
        self._client = None

        if self._opening is not None:
            await end_all(self._opening)

        await self._shut(timeout=timeout)

    def _connected(self) -> SharedRedis:
        """Make the shared client; all nodes are connected."""
        settings, wiring = self._settings, self._wiring
        assert wiring is not None  # noqa: S101 - _build() has made it
        node = self._node if self._topology is None else self._topology.node_of(None)
        assert node is not None  # noqa: S101 - as above
        self._core = Core(
            name=self._name,
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

    def _client_of(self, core: Core) -> SharedRedis:
        retry, cache, topology = self._settings.retry, self._cache, self._topology

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
        if self._cache is None or self._wiring is None or message[0] not in {b"invalidate", "invalidate"}:
            return

        if message[1] is None:
            self._cache.flush()
        else:
            encode = self._wiring.packer.encode
            self._cache.invalidate(bytes(encode(key)) for key in message[1])

    def _resolver(self, wiring: Wiring) -> Callable[[], Awaitable[Endpoint]]:
        settings = self._settings
        endpoint = settings.endpoint

        if self._server is not None:
            endpoint = endpoint.at_path(self._server.path)

        if settings.sentinels:
            finder = self._finder = MasterFinder(
                settings.sentinels,
                settings.service,
                greeting=settings.sentinel_endpoint,
                master=settings.endpoint,
                packer=wiring.packer,
            )
            return finder

        return fixed(endpoint)

    def _follow(self, host: str, port: int) -> None:
        """Go to the master that a Sentinel names, if it is another."""
        before, self._master = self._master, (host, port)

        if self._node is not None:
            left = sum(lane.leave(host, port) for lane in self._node.lanes)

            if left or before not in {None, self._master}:
                self._node.pool.expire()

    def _link_is_up(self, link: Link) -> None:
        """Parse replies as the protocol version wants that the server has agreed to."""
        if link.protocol != self._protocol:
            self._protocol = link.protocol

            if self._client is not None:
                self._client.use_callbacks(self._callbacks(link.protocol))

    def _callbacks(self, protocol: int) -> Any:  # Any: redis-py's dictionary of callbacks
        assert self._wiring is not None  # noqa: S101 - there is a link
        options = {**self._wiring.options, "protocol": protocol}
        return Redis(connection_pool=ConnectionPool(**options)).response_callbacks

    async def _shut(self, *, timeout: float) -> None:  # noqa: ASYNC109 - see close
        self._client = None

        if self._watch is not None:
            await self._watch.close()

        if self._core is not None and self._core.settling:
            await asyncio.wait(self._core.settling, timeout=timeout)

        if self._topology is not None:
            await self._topology.close(timeout=timeout)

        if self._node is not None:
            await self._node.close(timeout=timeout)

        if self._server is not None:
            await self._server.stop()

    def _forked(self) -> None:
        """Refuse to work in a forked child: the sockets are the parent's."""
        self._state = "forked"
        self._client = self._closing = None

    def _refusal(self) -> UsageError:
        if self._state == "forked":
            message = f"redis pool {self._name!r} was started before a fork: start one in the child"
            return UsageError(message, pool=self._name)

        if self._state == "closed":
            return ClosedError(f"redis pool {self._name!r} was closed", pool=self._name)

        return NotReadyError(
            f"redis pool {self._name!r} is not started: use `async with` or await its start()",
            pool=self._name,
        )

    async def lend(self) -> tuple[Lease[AbstractConnection], AloneRedis]:
        """
        Take a connection and make a client of it; `take_back` ends both.

        Returns:
            The lease and the client.

        Raises:
            AcquireTimeout: None was free in time.
            UnavailableError: The server is gone, and was not back within ``outage_timeout`` seconds.
        """
        if self._client is None or self._core is None:
            raise self._refusal()

        if self._node is None:
            self._client.client()  # tells that a cluster has no single session
            raise self._refusal()

        lease = await self._node.leases.acquire()
        connection = lease.connection
        state_of(connection).clean = False
        pool = OneConnection(connection, **self._core.options)
        return lease, AloneRedis(self._core, connection_pool=pool, callbacks=self._client.response_callbacks)

    def take_back(self, lease: Lease[AbstractConnection]) -> None:
        """
        Take a lent connection back.

        Args:
            lease: What `lend` gave.
        """
        assert self._node is not None  # noqa: S101 - there is a lease
        connection = lease.connection
        self._node.pool.release(lease, discard=state_of(connection).spoiled or not connection.is_connected)


class RedisPoolManager(BasePoolManager[RedisPool, Redis]):
    """
    A named set of Redis pools, with shortcuts to what is made of them.

    Example:
        ```python
        from ws_pool.redis import RedisPoolManager

        manager = RedisPoolManager()
        manager.register({"default": {"url": "redis://localhost:6379/0"}})
        await manager
        async with manager.get_client() as redis:
            await redis.incr("visits")
        await manager.close()
        ```
    """

    settings_key = "REDIS_CONFIG"

    def _build(self, name: str, section: Mapping[str, object], where: str) -> RedisPool:
        return RedisPool(name=name, setting=where, **section)  # type: ignore[arg-type]  # the section is checked inside

    def allocate_lock(
        self, key: str, expire: float = 60, *, name: str = "default", **options: object
    ) -> Any:  # Any: another distribution's class
        """
        Make a lock on a pool; needs ``ws-redislock``.

        Args:
            key: The lock's name.
            expire: Seconds of its lease.
            name: The pool's name.
            **options: Of ``ws_redislock.MutexLock``.

        Returns:
            The ``MutexLock``.

        Raises:
            MissingExtraError: ``ws-redislock`` is not installed.
        """
        return load_extension("lock", "ws-redislock")(self.get_pool(name), key, expire, **options)

    def allocate_limiter(
        self, granularity: float, limit: int, *, name: str = "default", **options: object
    ) -> Any:  # Any: another distribution's class
        """
        Make a rate limiter on a pool; needs ``ws-redislock``.

        Args:
            granularity: Seconds of one window.
            limit: Hits in one window.
            name: The pool's name.
            **options: Of ``ws_redislock.FrequencyLimiter``.

        Returns:
            The ``FrequencyLimiter``.

        Raises:
            MissingExtraError: ``ws-redislock`` is not installed.
        """
        return load_extension("limiter", "ws-redislock")(self.get_pool(name), granularity, limit, **options)

    def allocate_event_bus(
        self, channel_name: str, *, name: str = "default", **options: Any
    ) -> Any:  # Any: the class is imported late
        """
        Make an event bus on a pool.

        Args:
            channel_name: The channel.
            name: The pool's name.
            **options: Of `ws_pool.events.RedisEventBus`.

        Returns:
            The `ws_pool.events.RedisEventBus`, not started.
        """
        from ws_pool.events import RedisEventBus  # noqa: PLC0415 - only when one is asked for

        return RedisEventBus(self.get_pool(name), channel_name, **options)


redis_pool_manager: Final = RedisPoolManager()
"""The ready-made manager of REDIS_CONFIG."""
