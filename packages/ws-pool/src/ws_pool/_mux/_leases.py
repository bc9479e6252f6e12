"""Connections that are lent, for what cannot share one: blocking commands, sessions, pub/sub.

redis-py's own connections, in the generic pool of this distribution, behind the interface of
redis-py's `ConnectionPool`, so that its `PubSub`, `Monitor` and `Pipeline` work on them as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from redis import exceptions as driver
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from ws_pool import errors
from ws_pool._mux._commands import Route, route_of
from ws_pool._mux._endpoint import Endpoint, resolve_credentials
from ws_pool._mux._errors import AcquireTimeout, UnavailableError
from ws_pool.errors import UsageError
from ws_pool.pool import Lease, Pool

__all__ = (
    "Connector",
    "Dedicated",
    "LeasePool",
    "OneConnection",
    "connection_options",
    "lost_session",
    "make_connection",
    "mark",
)


_WATCHED: Final = frozenset({"WATCH", "UNWATCH", "MULTI", "EXEC", "DISCARD"})


class Dedicated:
    """What we remember about a connection of redis-py."""

    clean = True
    """Whether the last user left nothing behind: all replies read, session untouched."""

    client_id = 0
    """The connection's id at the server, once it was asked for."""

    spoiled = False
    """Whether the session was changed, so that the connection must be closed after use."""

    retired = False
    """Whether its pool was closed; redis-py's PubSub would connect again, and nobody would close that."""

    alone = False
    """Whether somebody's session is on it, which would be another one after it had connected again."""

    def refuse_to_connect(self) -> None:
        """
        Refuse to connect again, when nobody may.

        Raises:
            redis.exceptions.ConnectionError: The pool was closed, or a session was lost.
        """
        if self.retired:
            raise driver.ConnectionError("the redis pool of this connection was closed")

        if self.alone:
            raise lost_session()

    def note(self, args: Sequence[Any]) -> None:
        """Note what a command does to the session, however it came here."""
        self.spoiled |= route_of(args) is Route.SESSION


class _Noting(Dedicated, AbstractConnection):
    """
    Looks at all that redis-py's clients and pipelines send.

    redis-py's own WATCH, MULTI, EXEC and UNWATCH undo each other, so they leave nothing behind.
    """

    async def send_command(self, *args: Any, **options: Any) -> None:  # Any: redis-py's own signature
        if args[0] not in _WATCHED:
            self.note(args)

        await super().send_command(*args, **options)

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        stack = [tuple(command) for command in commands]
        whole = bool(stack) and stack[0] == ("MULTI",) and stack[-1] == ("EXEC",)

        for command in stack[1:-1] if whole else stack:
            self.note(command)

        return super().pack_commands(stack)


class _TcpConnection(_Noting, Connection):
    """A TCP connection, with a ready TLS context if any."""

    tls: ssl.SSLContext | None = None

    async def _connect(self) -> None:
        self.refuse_to_connect()
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py's

    def _connection_arguments(self) -> dict[str, Any]:  # Any: redis-py's own signature
        arguments = dict(super()._connection_arguments())

        if self.tls is not None:
            arguments["ssl"] = self.tls

        return arguments


class _UnixConnection(_Noting, UnixDomainSocketConnection):
    """A unix socket connection."""

    async def _connect(self) -> None:
        self.refuse_to_connect()
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py's


class _Credentials(CredentialProvider):
    """Asks an endpoint's callable, as the shared connection does."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        raise NotImplementedError  # only the async way is used

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        username, password = await resolve_credentials(self._endpoint)
        return (username, password or "") if username else (password or "",)


def connection_options(
    *, encoding: str, errors: str, decode_responses: bool, protocol: int | None
) -> dict[str, Any]:  # Any: redis-py's keyword arguments
    """
    Give the options of redis-py's connections that don't depend on the server.

    Args:
        encoding: Of text.
        errors: What to do with text that can't be encoded or decoded.
        decode_responses: Whether replies are text.
        protocol: RESP version as the user gave it; None lets redis-py choose.

    Returns:
        Keyword arguments.
    """
    options: dict[str, Any] = {
        "encoding": encoding,
        "encoding_errors": errors,
        "decode_responses": decode_responses,
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
    }

    if protocol is not None:
        options["protocol"] = protocol

    if "maint_notifications_config" in inspect.signature(AbstractConnection).parameters:
        from redis.maint_notifications import MaintNotificationsConfig  # noqa: PLC0415 - redis-py 8 only

        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)

    return options


def make_connection(endpoint: Endpoint, options: dict[str, Any], *, timeout: float) -> AbstractConnection:
    """
    Build a connection, not connected yet.

    Args:
        endpoint: Where to and how.
        options: What `connection_options` gave.
        timeout: Seconds for the connect.

    Returns:
        A connection that is also a `Dedicated`.
    """
    common: dict[str, Any] = {**options, "db": endpoint.db, "client_name": endpoint.client_name}

    if endpoint.credentials is not None:
        common["credential_provider"] = _Credentials(endpoint)
    else:
        common |= {"username": endpoint.username, "password": endpoint.password}

    if endpoint.path is not None:
        return _UnixConnection(path=endpoint.path, socket_connect_timeout=timeout, **common)

    connection = _TcpConnection(
        host=endpoint.host,
        port=endpoint.port,
        socket_connect_timeout=timeout,
        socket_keepalive=True,
        **common,
    )
    connection.tls = endpoint.tls
    return connection


class LeasePool(ConnectionPool):
    """
    Redis-py's view of the generic pool.

    Args:
        pool: Holds the connections.
        **options: What `connection_options` gave.
    """

    def __init__(self, pool: Pool[AbstractConnection], **options: Any) -> None:
        super().__init__(connection_class=_TcpConnection, **options)
        self._pool = pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lent: dict[AbstractConnection, Lease[AbstractConnection]] = {}

    def __repr__(self) -> str:
        return f"<LeasePool of {self._pool!r}>"

    def __del__(self) -> None:
        """Leave redis-py's counting of its own connections out: there are none."""

    async def get_connection(self, *_: object, **__: object) -> AbstractConnection:
        """
        Lend a connection.

        Raises:
            AcquireTimeout: None was free in time.
            UnavailableError: The server is down.
        """
        try:
            lease = await self._pool.acquire()
        except (errors.AcquireTimeout, errors.UnavailableError) as error:
            kind = AcquireTimeout if isinstance(error, errors.AcquireTimeout) else UnavailableError
            raise kind(error.message, code=error.code, **error.context) from error  # redis-py's error too

        self._loop = asyncio.get_running_loop()
        connection = lease.connection
        self._lent[connection] = lease
        mark(connection).clean = mark(connection).alone = False
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back; there is no await in here, so it cannot be cancelled half-way."""
        lease = self._lent.pop(connection, None)

        if lease is not None:
            self._pool.release(lease, discard=mark(connection).spoiled or not connection.is_connected)

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
        mark(connection).retired = True
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


class OneConnection(ConnectionPool):
    """
    Redis-py's view of one lent connection: everything happens on it, one thing after the other.

    Args:
        connection: The connection.
        **options: What `connection_options` gave.
    """

    def __init__(self, connection: AbstractConnection, **options: Any) -> None:
        super().__init__(connection_class=_TcpConnection, **options)
        mark(connection).alone = True
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
        except BaseException:
            self.terminate(connection)
            raise

        mark(connection).spoiled = False  # what the greeting did is no change
        return connection

    def is_alive(self, conn: AbstractConnection) -> bool:
        """Tell whether it is connected and the server has not hung up."""
        reader = conn._reader  # noqa: SLF001 - redis-py has no public way to ask
        return conn.is_connected and reader is not None and not reader.at_eof() and reader.exception() is None

    def is_clean(self, conn: AbstractConnection) -> bool:
        """Tell whether the last user left nothing behind."""
        return mark(conn).clean

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
        mark(conn).clean = True

    async def close(self, conn: AbstractConnection) -> None:
        """Close gracefully."""
        await conn.disconnect()

    def terminate(self, conn: AbstractConnection) -> None:
        """Close at once."""
        writer = conn._writer  # noqa: SLF001 - redis-py's own way waits for buffers to drain

        if writer is not None:
            writer.transport.abort()

        conn._close()  # noqa: SLF001 - forgets the streams, without I/O


def lost_session() -> UnavailableError:
    """Build the error for a client whose connection was lost, and with it what the server knew of it."""
    return UnavailableError(
        "the connection of this client was lost, and its session with it: take another client"
    )


def mark(connection: AbstractConnection) -> Dedicated:
    """Give a connection's marks; all that this module makes have them."""
    return cast("Dedicated", connection)
