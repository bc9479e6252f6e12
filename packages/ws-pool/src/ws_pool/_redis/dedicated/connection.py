"""redis-py's own connections, with what we remember about each, such as whether its session was changed."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, cast

from redis import exceptions as driver
from redis.asyncio.connection import AbstractConnection, Connection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.table import Route
from ws_pool._redis.connection.endpoint import Endpoint, resolve_credentials
from ws_pool._redis.errors import UnavailableError
from ws_pool.errors import WsError

__all__ = (
    "ConnectionState",
    "address_of",
    "connection_options",
    "lost_session",
    "make_connection",
    "state_of",
)


_WATCHED: Final = frozenset({"WATCH", "UNWATCH", "MULTI", "EXEC", "DISCARD"})


class ConnectionState:
    """What we remember about a connection of redis-py."""

    clean = True  # all replies were read, so that the next reply is the next command's
    client_id = 0  # the connection's id at the server; 0 where CLIENT ID is forbidden
    session_changed = False  # it must be closed after use
    retired = False  # its pool was closed; a PubSub of redis-py would open it again, and nobody close it
    exclusive = False  # a client's session is on it, which would not survive a reconnect
    cancelling: asyncio.Task[None] | None = None  # ends a cancelled blocking command on it
    blocking = False  # a blocking command is in flight
    moving = False  # it is about to leave a server that is not the master any more
    resolve: Callable[[], Awaitable[Endpoint]] | None = None  # where redis-py shall connect to again

    def refuse_to_connect(self) -> None:
        """Raise when redis-py must not open this connection again."""
        if self.retired:
            raise driver.ConnectionError("the redis pool of this connection was closed")

        if self.exclusive:
            raise lost_session()

    @property
    def is_cancelling(self) -> bool:
        """Whether a cancelled command still has to end before the connection may be used or released."""
        return self.cancelling is not None and not self.cancelling.done()

    async def wait_for_cancellation(self, timeout: float) -> None:
        """Wait until a cancelled command has ended, at most so many seconds."""
        if self.cancelling is not None:
            await asyncio.wait([self.cancelling], timeout=timeout)

    def note_command(self, args: Sequence[Any]) -> None:
        """Note whether a command changes the session, whoever sends it."""
        self.session_changed |= Command(args).route is Route.SESSION


class _TrackedConnection(ConnectionState, AbstractConnection):
    """
    Notes what redis-py's clients and pipelines do to the session.

    redis-py's own WATCH, MULTI, EXEC and UNWATCH undo each other, so they leave nothing behind.
    """

    async def send_command(self, *args: Any, **options: Any) -> None:  # Any: redis-py's own signature
        if args[0] not in _WATCHED:
            self.note_command(args)

        await super().send_command(*args, **options)

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:  # redis-py's own signature
        was_connected = self.is_connected

        try:
            await super().send_packed_command(command, check_health)
        except AttributeError as error:
            # Connecting calls what users gave, and their errors are theirs.
            if not was_connected:
                raise

            # The server has hung up: https://github.com/python/cpython/issues/136234, or another task
            # has closed the connection meanwhile: https://github.com/redis/redis-py/issues/3546
            await self.disconnect(nowait=True)
            raise driver.ConnectionError("the connection was lost") from error

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        stack = [tuple(command) for command in commands]
        whole = bool(stack) and stack[0] == ("MULTI",) and stack[-1] == ("EXEC",)

        for command in stack[1:-1] if whole else stack:
            self.note_command(command)

        return super().pack_commands(stack)


class _TcpConnection(_TrackedConnection, Connection):
    """A TCP connection, with a ready TLS context if any."""

    tls: ssl.SSLContext | None = None

    async def _connect(self) -> None:
        self.refuse_to_connect()

        # redis-py connects again by itself, for subscribers: the master may be another server by now.
        if self.resolve is not None:
            try:
                endpoint = await self.resolve()
            except WsError as error:
                raise driver.ConnectionError(str(error)) from error

            self.host, self.port = endpoint.host, endpoint.port

        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py's

    def _connection_arguments(self) -> dict[str, Any]:  # Any: redis-py's own signature
        arguments = dict(super()._connection_arguments())

        if self.tls is not None:
            arguments["ssl"] = self.tls

        return arguments


class _UnixConnection(_TrackedConnection, UnixDomainSocketConnection):
    """A unix socket connection."""

    async def _connect(self) -> None:
        self.refuse_to_connect()
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py's


class _Credentials(CredentialProvider):
    """Calls an endpoint's credentials, as the shared connection does."""

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
    """Return the options of redis-py's connections that don't depend on the server."""
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
    """Build a connection, not connected yet."""
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


def address_of(connection: AbstractConnection) -> tuple[str, int] | None:
    """Return where a connection leads to; None for a unix socket."""
    return (connection.host, connection.port) if isinstance(connection, Connection) else None


def lost_session() -> UnavailableError:
    """Build the error for a client whose connection was lost, and with it what the server knew of it."""
    return UnavailableError(
        "the connection of this client was lost, and its session with it: take another client"
    )


def state_of(connection: AbstractConnection) -> ConnectionState:
    """Return what is remembered about a connection that this module has made."""
    return cast("ConnectionState", connection)
