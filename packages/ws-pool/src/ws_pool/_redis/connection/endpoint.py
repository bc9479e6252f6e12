"""Where a server is and how to log in: the socket and the handshake of a shared connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from ws_pool._redis.commands.command import text_of
from ws_pool._redis.connection.credentials import CredentialSource, Login
from ws_pool._redis.connection.encoder import CommandEncoder
from ws_pool._redis.connection.pipelined import PipelinedConnection

_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, and all that the handshake with it needs."""

    host: str = "localhost"  # unused with a path
    port: int = 6379
    path: str | None = None  # of a unix socket
    db: int = 0
    username: str | None = None  # None for the default user
    password: str | None = field(default=None, repr=False)
    credentials: CredentialSource | None = field(default=None, repr=False)  # used for each connection
    tls: ssl.SSLContext | None = None
    client_name: str | None = None  # shown in CLIENT LIST
    protocol: int = 3  # the RESP version to ask for
    tracking: bool = False  # whether the server shall report changes of keys that were read
    broadcast: tuple[str, ...] = ()  # report changes of all keys that begin so, instead of those read
    reads_only: bool = False  # whether to read from a replica of a cluster, which refuses it otherwise
    role: str | None = None  # what the server must be ("master"), or None for anything

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def at(self, host: str, port: int) -> Endpoint:
        """Return the same settings for another server."""
        return replace(self, host=host, port=port, path=None)

    def at_path(self, path: Path) -> Endpoint:
        """Return the same settings for a server on a unix socket."""
        return replace(self, path=str(path))

    @property
    def url(self) -> str:
        """The URL without secrets."""
        if self.path:
            return f"unix://{self.path}?db={self.db}"

        scheme = "redis" if self.tls is None else "rediss"
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/{self.db}"


async def resolve_credentials(endpoint: Endpoint) -> Login:
    """Return what to log in with."""
    if endpoint.credentials is None:
        return Login(endpoint.username, endpoint.password)

    return await endpoint.credentials.request()


async def connect(
    endpoint: Endpoint,
    connection: PipelinedConnection,
    encoder: CommandEncoder,
    *,
    timeout: float,
) -> None:
    """Open a connection's socket and do the handshake; on any error the connection is closed."""
    loop = asyncio.get_running_loop()
    connection.tracking = endpoint.tracking

    try:
        async with asyncio.timeout(timeout):
            if endpoint.path is not None:
                await loop.create_unix_connection(lambda: connection, endpoint.path, ssl=endpoint.tls)
            else:
                transport, _ = await loop.create_connection(
                    lambda: connection, endpoint.host, endpoint.port, ssl=endpoint.tls
                )
                _keep_alive(transport.get_extra_info("socket"))

            await _handshake(endpoint, connection, encoder)
    except BaseException as error:
        connection.kill(f"the handshake failed: {error}")
        raise


async def _handshake(endpoint: Endpoint, connection: PipelinedConnection, encoder: CommandEncoder) -> None:
    await _log_in(endpoint, connection, encoder)
    commands: list[Sequence[str]] = []

    if endpoint.db:
        commands.append(("SELECT", str(endpoint.db)))

    if endpoint.client_name:
        commands.append(("CLIENT", "SETNAME", endpoint.client_name))

    if endpoint.tracking:
        prefixes = [word for prefix in endpoint.broadcast if prefix for word in ("PREFIX", prefix)]
        commands.append(("CLIENT", "TRACKING", "ON", *(("BCAST", *prefixes) if endpoint.broadcast else ())))

    if endpoint.reads_only:
        commands.append(("READONLY",))

    if endpoint.role:
        commands.append(("ROLE",))

    commands.append(("PING",))  # refused by a server that is still loading
    replies = await _send(connection, encoder, commands)

    if endpoint.role and (actual := text_of(replies[-2][0])) != endpoint.role:
        raise RedisError(f"{endpoint} is a {actual}, not a {endpoint.role}")


async def _log_in(endpoint: Endpoint, connection: PipelinedConnection, encoder: CommandEncoder) -> None:
    """Agree on the protocol version and log in; a server without HELLO speaks RESP2."""
    login = connection.login = await resolve_credentials(endpoint)

    if endpoint.protocol == 3:
        words = () if login.password is None else ("AUTH", login.username or "default", login.password)

        try:
            await _send(connection, encoder, [("HELLO", "3", *words)])
        except ResponseError as error:
            if not _refuses_hello(error):
                raise
        else:
            connection.protocol = 3
            return

    if login.words:
        await _send(connection, encoder, [("AUTH", *login.words)])


async def _send(
    connection: PipelinedConnection, encoder: CommandEncoder, commands: Sequence[Sequence[str]]
) -> list[Any]:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in commands]

    for future, command in zip(futures, commands, strict=True):
        connection.send(future, encoder.pack(command))

    try:
        return [await future for future in futures]
    finally:
        for future in futures:
            if future.done() and not future.cancelled():
                future.exception()  # retrieved, so that only the first error is reported


def _refuses_hello(error: ResponseError) -> bool:
    text = str(error).lower()
    return "unknown command" in text or "noproto" in text or "unsupported protocol" in text


def _keep_alive(sock: socket.socket | None) -> None:
    if sock is None:
        return

    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
