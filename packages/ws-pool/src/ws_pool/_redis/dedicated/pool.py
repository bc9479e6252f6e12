"""Connections that are lent, for what cannot share one: blocking commands, sessions, pub/sub.

redis-py's own connections, in the generic pool of this distribution, behind the interface of
redis-py's `ConnectionPool`, so that its `PubSub`, `Monitor` and `Pipeline` work on them as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable
from typing import Any

from redis import exceptions as driver
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool

from ws_pool import errors
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.dedicated.connection import lost_session, make_connection, state_of
from ws_pool._redis.errors import AcquireTimeout, UnavailableError
from ws_pool.errors import NotReadyError, UsageError
from ws_pool.pool import Lease, Pool

__all__ = ("Connector", "DedicatedConnections", "SingleConnectionPool")

_SOONEST, _LATEST = 0.02, 0.2  # seconds between two looks whether a connection can be lent again


class DedicatedConnections(ConnectionPool):
    """
    Redis-py's view of the generic pool.

    Args:
        pool: Holds the connections.
        acquire_timeout: Seconds to wait for a connection at most, outages included.
        patience: Seconds of them to wait for a server that is gone.
        check: Raises when the server was gone for too long already, or the owner was closed.
        **options: What `connection_options` gave.
    """

    def __init__(
        self,
        pool: Pool[AbstractConnection],
        *,
        acquire_timeout: float,
        patience: float,
        check: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(connection_class=Connection, **options)
        self._pool = pool
        self._acquire_timeout = acquire_timeout
        self._patience = patience
        self._check = check
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lent: dict[AbstractConnection, Lease[AbstractConnection]] = {}

    def __repr__(self) -> str:
        return f"<DedicatedConnections of {self._pool!r}>"

    def __del__(self) -> None:
        """Leave redis-py's counting of its own connections out: there are none."""

    def use(self, pool: Pool[AbstractConnection]) -> None:
        """Lend from another pool, because the first could not be started."""
        self._pool = pool

    async def acquire(self) -> Lease[AbstractConnection]:
        """
        Lend a connection; in an outage, wait as long for the server as shared commands do.

        Returns:
            The lease, to be given back to the generic pool.

        Raises:
            AcquireTimeout: None was free in time.
            UnavailableError: The server is down.
        """
        time = asyncio.get_running_loop().time
        end, deadline, pause = time() + self._acquire_timeout, 0.0, _SOONEST

        while True:
            try:
                return await self._pool.acquire(timeout=max(0.0, end - time()))
            except errors.AcquireTimeout as error:
                raise AcquireTimeout(error.message, code=error.code, **error.context) from error
            except (errors.UnavailableError, NotReadyError) as error:
                self._check()
                now = time()
                deadline = deadline or min(end, now + self._patience)

                if now >= deadline:
                    raise UnavailableError(error.message, code=error.code, **error.context) from error

            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(_LATEST, pause * 2)

    async def get_connection(self, *_: object, **__: object) -> AbstractConnection:
        """Lend a connection to redis-py; see `acquire`."""
        lease = await self.acquire()
        self._loop = asyncio.get_running_loop()
        connection = lease.connection
        self._lent[connection] = lease
        state = state_of(connection)
        state.clean = state.alone = False
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back from redis-py; see `take_back`."""
        self.take_back(connection)

    def take_back(self, connection: AbstractConnection) -> None:
        """Take a connection back; one that is not lent any more is left alone."""
        lease = self._lent.pop(connection, None)

        if lease is not None:
            self._pool.release(lease, discard=state_of(connection).spoiled or not connection.is_connected)

    def hang_up(self) -> None:
        """Cut the connections that listen for messages: they would never come back by themselves."""
        for connection, lease in list(self._lent.items()):
            # Only a PubSub asks to be told of a new connect, in order to subscribe again.
            if connection._connect_callbacks:  # noqa: SLF001 - redis-py has no public way to ask
                self._cut(connection, lease)

    def abandon(self, connection: AbstractConnection) -> bool:
        """
        Let the loop cut a connection whose user is gone; may be called wherever garbage is collected.

        Args:
            connection: What `get_connection` gave.

        Returns:
            Whether it was still lent.
        """
        lease = self._lent.pop(connection, None)

        if lease is None or self._loop is None:
            return False

        with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._loop.call_soon_threadsafe(self._cut, connection, lease)

        return True

    def _cut(self, connection: AbstractConnection, lease: Lease[AbstractConnection]) -> None:
        state_of(connection).retired = True
        writer = connection._writer  # noqa: SLF001 - its own way waits for buffers to drain

        if writer is not None:
            writer.transport.abort()

        self._lent.pop(connection, None)
        self._pool.release(lease, discard=True)

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Replace the connections: idle ones now, and those in use when they come back."""
        del inuse_connections
        self._pool.expire()

    async def aclose(self) -> None:
        """Do nothing: the owner of the generic pool closes it."""


class SingleConnectionPool(ConnectionPool):
    """
    Redis-py's view of one lent connection: everything happens on it, one thing after the other.

    Args:
        connection: The connection.
        **options: What `connection_options` gave.
    """

    def __init__(self, connection: AbstractConnection, **options: Any) -> None:
        super().__init__(connection_class=Connection, **options)
        state_of(connection).alone = True
        self._one = connection
        self._turn = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None

    def __del__(self) -> None:
        """Leave redis-py's counting of its own connections out: there are none."""

    async def get_connection(self, *_: object, **__: object) -> AbstractConnection:
        """
        Give the connection, connected, until `release`.

        Raises:
            UsageError: This task has it already, so it would wait for itself.
            UnavailableError: It was lost.
        """
        if self._holder is not None and self._holder is asyncio.current_task():
            message = "a pipeline with WATCH has this client's connection: use the pipeline, or end it before"
            raise UsageError(message)

        await self._turn.acquire()

        if not self._one.is_connected:
            self._turn.release()
            raise lost_session()

        self._holder = asyncio.current_task()
        return self._one

    async def release(self, connection: AbstractConnection) -> None:  # noqa: ARG002 - there is only one
        """Let the next one have it; there is no await in here, so it cannot be cancelled half-way."""
        self._holder = None
        self._turn.release()

    async def aclose(self) -> None:
        """Keep it."""


class Connector:
    """
    How the generic pool deals with redis-py's connections.

    Args:
        resolve: Gives the endpoint for the next connect.
        options: What `connection_options` gave.
        timeout: Seconds for one connect.
    """

    def __init__(
        self, resolve: Any, options: dict[str, Any], *, timeout: float
    ) -> None:  # Any: an async callable
        self._resolve = resolve
        self._options = options
        self._timeout = timeout
        self._endpoint: Endpoint | None = None

    def __str__(self) -> str:
        return str(self._endpoint or "the server")

    async def open(self) -> AbstractConnection:
        """Open a connection and greet the server."""
        endpoint: Endpoint = await self._resolve()
        self._endpoint = endpoint
        connection = make_connection(endpoint, self._options, timeout=self._timeout)

        try:
            await connection.connect()

            if endpoint.role is not None:
                await self._check_role(connection, endpoint)

            with contextlib.suppress(driver.ResponseError):  # forbidden: nobody can unblock it then
                await connection.send_command("CLIENT", "ID", check_health=False)
                state_of(connection).client_id = int(await connection.read_response())
        except BaseException:
            self.terminate(connection)
            raise

        state_of(connection).spoiled = False  # what the greeting did is no change
        return connection

    def is_alive(self, conn: AbstractConnection) -> bool:
        """Tell whether it is connected and the server has not hung up."""
        reader = conn._reader  # noqa: SLF001 - redis-py has no public way to ask
        return conn.is_connected and reader is not None and not reader.at_eof() and reader.exception() is None

    def is_clean(self, conn: AbstractConnection) -> bool:
        """Tell whether the last user left nothing behind."""
        return state_of(conn).clean

    async def ping(self, conn: AbstractConnection) -> None:
        """
        Make sure that the next reply is the next command's.

        Raises:
            RedisError: It is not, or the server does not answer.
        """
        nonce = secrets.token_hex(8)
        await conn.send_command("ECHO", nonce, check_health=False)
        reply = await conn.read_response()

        if reply not in (nonce, nonce.encode()):
            raise driver.InvalidResponse("a reply of an earlier command was left on the connection")

    async def reset(self, conn: AbstractConnection) -> None:
        """Make sure that nothing was left behind; what has changed its session is not kept at all."""
        await self.ping(conn)
        state_of(conn).clean = True

    async def close(self, conn: AbstractConnection) -> None:
        """Close gracefully."""
        await conn.disconnect()

    def terminate(self, conn: AbstractConnection) -> None:
        """Close at once."""
        writer = conn._writer  # noqa: SLF001 - redis-py's own way waits for buffers to drain

        if writer is not None:
            writer.transport.abort()

        conn._close()  # noqa: SLF001 - forgets the streams, without I/O

    @staticmethod
    async def _check_role(connection: AbstractConnection, endpoint: Endpoint) -> None:
        await connection.send_command("ROLE", check_health=False)
        reply: Any = await connection.read_response()
        role = reply[0].decode() if isinstance(reply[0], bytes) else reply[0]

        if role != endpoint.role:
            raise driver.RedisError(f"{endpoint} is a {role}, not a {endpoint.role}")
