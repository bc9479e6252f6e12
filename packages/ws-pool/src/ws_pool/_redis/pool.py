"""One Redis server, sentinel service or cluster, from its start to its close; `ws_pool.redis` is the face."""

from __future__ import annotations

import asyncio
import itertools
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import AuthenticationError

from ws_core import backoff
from ws_core.component import Health
from ws_core.errors import describe
from ws_core.metrics import register
from ws_pool._core import fork, tracing
from ws_pool._core.background import cancel_and_wait, is_cancelled
from ws_pool._core.config import pool_name
from ws_pool._core.operation import Operation
from ws_pool._core.startable import Startable
from ws_pool._redis.backend import Backend
from ws_pool._redis.client.pipeline import SharedPipeline
from ws_pool._redis.client.session import DedicatedRedis
from ws_pool._redis.client.shared import SharedRedis
from ws_pool._redis.cluster.client import ClusterPipeline, ClusterRedis
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.table import Route
from ws_pool._redis.embedded import EmbeddedServer
from ws_pool._redis.options import RedisOptions, redis_options
from ws_pool._redis.statistics import RedisStatistics
from ws_pool.errors import ClosedError, NotReadyError, UnavailableError, UsageError
from ws_pool.pool import Lease

_PAUSES: Final = (0.05, 1.0)  # seconds between two attempts to start


class RedisPool(Startable):
    """
    A pool for one Redis server, Sentinel service or cluster, used by all tasks of an event loop.

    Args:
        url: ``redis://``, ``rediss://`` (TLS), ``valkey://`` or ``unix://``, as of redis-py; its query may
            hold options.
        name: The name in errors, logs and statistics.
        setting: The prefix of option names in errors.
        **options: See the guide; the usual ones are ``username password db decode_responses
            maxsize shared_connections command_timeout``. ``encoding="utf-8"`` alone means decoded
            replies, as it did in the first wintersweet.

    Raises:
        ConfigError: A wrong option; nothing was started.

    Example:
        ```python
        from ws_pool.redis import RedisPool

        async with RedisPool(url="redis://localhost:6379/0", decode_responses=True) as pool:
            await pool.redis.set("word", "hello")
            print(await pool.redis.get("word"))
        ```
    """

    def __init__(
        self, url: str | None = None, *, name: str = "default", setting: str = "RedisPool", **options: object
    ) -> None:
        given = dict(options) if url is None else {"url": url, **options}
        self._name = pool_name(name, setting)
        self._settings: RedisOptions = redis_options(given, where=setting)
        self._state = "new"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._backend: Backend | None = None
        self._client: SharedRedis | None = None
        self._server: EmbeddedServer | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        register(self, db_system_name="redis")

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
        Make a pool that starts a private Valkey server, on a unix socket; needs ``[embedded]``.

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
                await pool.redis.set("word", "hello")
                print(await pool.redis.get("word"), pool.url)
            ```
        """
        if elsewhere := options.keys() & {"url", "address", "host", "port", "path", "sentinels", "cluster"}:
            message = f"RedisPool.embedded() starts its own server: leave {', '.join(sorted(elsewhere))} out"
            raise UsageError(message, pool=name)

        pool = cls(name=name, **options)  # type: ignore[arg-type]  # checked inside
        pool._server = EmbeddedServer(None if folder is None else Path(folder), config=config)
        return pool

    def __repr__(self) -> str:
        where = self._settings.endpoint if self._server is None else self._server
        return f"<RedisPool {self._name!r} at {where}, {self._state}>"

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

    async def start(self, *, wait: float = 0.0) -> None:
        """
        Connect.

        Args:
            wait: Seconds to try again while the server is away, or loads its data. A refused login is an
                error at once.

        Raises:
            UnavailableError: The server can't be reached, or refused the handshake.
            UsageError: The pool is started already.
            ClosedError: The pool was closed meanwhile.
        """
        if self._state != "new":
            message = f"redis pool {self._name!r} was started before: make a new one"
            raise UsageError(message, pool=self._name)

        self._state = "starting"
        fork.register(self)
        self._loop = asyncio.get_running_loop()
        self._opening = self._loop.create_task(self._open(wait), name=f"ws-pool redis {self._name} start")

        try:
            await self._opening
        except asyncio.CancelledError as error:
            if is_cancelled(error) or self._closing is None:
                raise

            raise self._refusal() from None  # close() has ended it

    async def close(self, *, timeout: float = 5.0) -> None:
        """
        Refuse new commands, wait for pending replies, and close; may be called again.

        All callers wait for the same closing; a caller that is cancelled does not stop it.

        Args:
            timeout: Seconds to wait for replies, and for dedicated connections to be released.
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
        Return a client for the length of a block.

        Args:
            alone: Use a dedicated connection, for sessions: SELECT, CLIENT TRACKING, MONITOR.

        Returns:
            An async context manager of the shared client, or of a dedicated one.

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
        return DedicatedContext(self._started_backend) if alone else SharedContext(self)

    async def health(self, *, timeout: float = 5.0) -> Health:
        """
        Check that the server answers.

        Args:
            timeout: Seconds after which it counts as not answering.

        Returns:
            The health; it never raises.
        """
        began = time.perf_counter()

        try:
            async with asyncio.timeout(timeout) as limit:
                await self.redis.execute_command("PING")
        except Exception as error:  # noqa: BLE001 - any failure is a result here
            late = f"no answer within {timeout:g} s"
            return Health(ok=False, detail=late if limit.expired() else describe(error))

        return Health(ok=True, latency=time.perf_counter() - began)

    async def reauthenticate(self) -> None:
        """
        Request the credentials, and log all live connections in with them.

        No command is lost: shared connections log in between two commands, sessions when their present
        command has ended, and a blocked command is repeated on another connection.

        Raises:
            UnavailableError: The server has refused them; connections go on with what they have.
            UsageError: The pool has no ``credentials``, but a fixed password.
            NotReadyError: The pool was not started.
            ClosedError: The pool was closed.
        """
        await self._started_backend().reauthenticate()

    def statistics(self) -> RedisStatistics:
        """Return a frozen snapshot of the pool."""
        if self._backend is None:
            raise self._refusal()

        return self._backend.statistics()

    # Inside -----------------------------------------------------------------------------------

    async def _open(self, wait: float) -> None:
        """Connect, in a task that close() can cancel."""
        try:
            if self._server is not None:
                await self._server.start()

            self._client = await self._connect(wait)
        except BaseException:
            await self._shut(timeout=0)
            # A start that has failed may be tried again; one that close() has ended may not.
            self._state = "new" if self._state == "starting" else self._state
            raise

        self._state = "open"

    async def _connect(self, wait: float) -> SharedRedis:
        now = asyncio.get_running_loop().time
        deadline = now() + wait

        for attempt in itertools.count(1):
            self._backend = Backend(self._name, self._settings, self._server)

            try:
                return await self._backend.start()
            except UnavailableError as error:
                if now() >= deadline or isinstance(error.__cause__, AuthenticationError):
                    raise

                await self._backend.close(timeout=0)

            await asyncio.sleep(min(backoff.delay(attempt, *_PAUSES), max(0.0, deadline - now())))

        raise AssertionError("unreachable")

    async def _close(self, timeout: float) -> None:
        self._client = None

        if self._opening is not None:
            await cancel_and_wait(self._opening)

        await self._shut(timeout=timeout)

    async def _shut(self, *, timeout: float) -> None:
        self._client = None

        if self._backend is not None:
            await self._backend.close(timeout=timeout)

        if self._server is not None:
            await self._server.stop()

    def _forked(self) -> None:
        """Refuse to work in a forked child: the sockets are the parent's."""
        self._state = "forked"
        self._client = self._closing = None

    def _started_backend(self) -> Backend:
        """Return the backend; raise when the pool is not open."""
        if self._client is None or self._backend is None:
            raise self._refusal()

        return self._backend

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


class SharedContext(AbstractAsyncContextManager[Redis]):
    """The shared client, for the length of a block."""

    def __init__(self, pool: RedisPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> SharedRedis:
        return self._pool.redis

    async def __aexit__(self, *exc: object) -> None:
        pass


class DedicatedContext(AbstractAsyncContextManager[Redis]):
    """A client with a dedicated connection, for the length of a block."""

    def __init__(self, started_backend: Callable[[], Backend]) -> None:
        self._started_backend = started_backend
        self._backend: Backend | None = None
        self._lease: Lease[AbstractConnection] | None = None
        self._client: DedicatedRedis | None = None

    async def __aenter__(self) -> DedicatedRedis:
        self._backend = self._started_backend()
        self._lease, self._client = await self._backend.acquire_dedicated()
        return self._client

    async def __aexit__(self, *exc: object) -> None:
        backend, lease, client = self._backend, self._lease, self._client
        self._backend = self._lease = self._client = None

        if backend is None or lease is None or client is None:
            return

        client.connection = None  # a stale client must not reach the next holder's connection
        client.connection_pool = _Released(backend.name)
        backend.release_dedicated(lease)


class _Released(ConnectionPool):
    """Replaces the connection of a client whose block has ended, so that a stale client fails loudly."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._pool_name = name

    async def get_connection(self, *args: object, **options: object) -> AbstractConnection:
        message = f"redis pool {self._pool_name!r}: this client's block has ended; use another client"
        raise UsageError(message, pool=self._pool_name)


def trace_commands() -> None:
    """Declare the methods; called once, when the pools are imported."""
    for client in (SharedRedis, DedicatedRedis, ClusterRedis):
        tracing.point(client, "execute_command", _command)

    for pipeline in (SharedPipeline, ClusterPipeline):
        if "execute" in pipeline.__dict__:
            tracing.point(pipeline, "execute", _pipeline)


def _command(_: object, *args: Any, **__: Any) -> Operation:
    """Describe a command by its name: its keys and values are the users' own."""
    command = Command(args) if args else None
    name = "COMMAND" if command is None else command.name
    attributes = {"db.system.name": "redis", "db.operation.name": name}
    return Operation(name, attributes, waits=command is not None and command.route is Route.BLOCKING)


def _pipeline(pipeline: Any, *_: Any, **__: Any) -> Operation:
    """Describe a pipeline by its length, and by the name of its commands if it is one name."""
    names = {Command(args).name for args, _ in pipeline.command_stack}
    name = f"PIPELINE {names.pop()}" if len(names) == 1 else "PIPELINE"
    size = len(pipeline.command_stack)
    return Operation(
        name, {"db.system.name": "redis", "db.operation.name": name, "db.operation.batch.size": size}
    )


trace_commands()
