"""redis-py's own connections, with what we remember about each, such as whether its session was changed."""

from __future__ import annotations

import asyncio
import inspect
import logging
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
from ws_pool._redis.connection.credentials import CredentialSource, Login
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.errors import UnavailableError
from ws_pool.errors import WsError

_logger: Final = logging.getLogger("ws_pool.redis")
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
    credentials: CredentialSource | None = None  # None when they are fixed
    login: Login | None = None  # set by the handshake, and when the credentials have changed
    queueing = False  # between MULTI and EXEC, where every command is queued
    session_lock: asyncio.Lock | None = None  # held by whoever uses the session that is on it

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

    @property
    def needs_login(self) -> bool:
        """Whether the credentials have changed since it has logged in."""
        return self.credentials is not None and self.credentials.newer_than(self.login) is not None

    async def refresh_login(self, timeout: float) -> None:
        """Log in again when the credentials have changed since; a refused login leaves things as they are."""

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

    async def refresh_login(self, timeout: float) -> None:
        login = None if self.credentials is None or self.queueing else self.credentials.newer_than(self.login)

        if login is None or not self.is_connected:
            return

        try:
            async with asyncio.timeout(timeout):
                # Not by our own send_command: to redis-py it is no other session than before.
                await super().send_command("AUTH", *login.words, check_health=False)
                # A refusal is a ConnectionError to redis-py, which would disconnect.
                await self.read_response(disconnect_on_error=False)
        except (driver.AuthenticationError, driver.ResponseError) as error:
            _logger.warning("a redis connection keeps its login, the new one was refused: %s", error)
        except BaseException:
            await self.disconnect(nowait=True)  # the reply may still come
            raise
        else:
            self.login = login

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
    """Requests credentials for one connection, as the shared connection does."""

    connection: ConnectionState  # set once it exists

    def __init__(self, source: CredentialSource) -> None:
        self._source = source

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        raise NotImplementedError  # only the async way is used

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        login = self.connection.login = await self._source.request()
        return cast("tuple[str] | tuple[str, str]", login.words)


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

    credentials = None if endpoint.credentials is None else _Credentials(endpoint.credentials)

    if credentials is not None:
        common["credential_provider"] = credentials
    else:
        common |= {"username": endpoint.username, "password": endpoint.password}

    connection: _TcpConnection | _UnixConnection

    if endpoint.path is not None:
        connection = _UnixConnection(path=endpoint.path, socket_connect_timeout=timeout, **common)
    else:
        connection = _TcpConnection(
            host=endpoint.host,
            port=endpoint.port,
            socket_connect_timeout=timeout,
            socket_keepalive=True,
            **common,
        )
        connection.tls = endpoint.tls

    if credentials is not None:
        credentials.connection = connection
        connection.credentials = endpoint.credentials

    return connection


def address_of(connection: AbstractConnection) -> tuple[str, int] | None:
    """Return where a connection leads to; None for a unix socket."""
    return (connection.host, connection.port) if isinstance(connection, Connection) else None


async def prepare_session(connection: AbstractConnection, timeout: float) -> None:
    """Make a client's connection ready for its next command; raise when its session is over."""
    state = state_of(connection)
    await state.wait_for_cancellation(timeout)

    if not state.is_cancelling:
        await state.refresh_login(timeout)

    if not connection.is_connected or state.is_cancelling:
        raise lost_session()


def lost_session() -> UnavailableError:
    """Build the error for a client whose connection was lost, and with it what the server knew of it."""
    return UnavailableError(
        "the connection of this client was lost, and its session with it: take another client"
    )


def state_of(connection: AbstractConnection) -> ConnectionState:
    """Return what is remembered about a connection that this module has made."""
    return cast("ConnectionState", connection)
