"""redis-py's own connections, with what we remember about each, such as whose session is on it."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from redis import exceptions as driver
from redis.asyncio.connection import AbstractConnection, Connection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from ws_pool._redis.commands.table import Route, routing_of
from ws_pool._redis.connection.endpoint import Endpoint, resolve_credentials
from ws_pool._redis.errors import UnavailableError

__all__ = ("ConnectionState", "connection_options", "lost_session", "make_connection", "state_of")


_WATCHED: Final = frozenset({"WATCH", "UNWATCH", "MULTI", "EXEC", "DISCARD"})


class ConnectionState:
    """What we remember about a connection of redis-py."""

    clean = True
    """Whether the last user left nothing behind: all replies read, session untouched."""

    client_id = 0
    """The connection's id at the server; 0 where that may not be asked."""

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
        self.spoiled |= routing_of(args) is Route.SESSION


class _Noting(ConnectionState, AbstractConnection):
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
        A connection that is also a `ConnectionState`.
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


def lost_session() -> UnavailableError:
    """Build the error for a client whose connection was lost, and with it what the server knew of it."""
    return UnavailableError(
        "the connection of this client was lost, and its session with it: take another client"
    )


def state_of(connection: AbstractConnection) -> ConnectionState:
    """Give what is remembered about a connection that this module has made."""
    return cast("ConnectionState", connection)
