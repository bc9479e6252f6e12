"""
A server that checks passwords as MySQL 8 does, with caching_sha2_password, which MariaDB does not have.

Behind it is a MariaDB, to which a connection is relayed once its user is known, so that a whole pool works
over it. See https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_CONNECT_WITH_DB, _TLS, _ATTRIBUTES, _LENGTH_ENCODED, _PLUGIN = 0x8, 0x800, 0x100000, 0x200000, 0x80000
_OFFERED = 0xFFFF | _PLUGIN | _LENGTH_ENCODED | 0x70000 | 0x1000000  # several results, no EOF
_MORE, _FAST, _FULL, _KEY = b"\1", b"\3", b"\4", b"\2"
_DENIED = 1045


class Refused(Exception):
    """The user is not let in."""


class Packets:
    """The packets of one side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int = 0) -> None:
        self.reader = reader
        self.writer = writer
        self.seen = b""  # what the other side has sent
        self._number = number

    async def read(self) -> bytes:
        """Read one packet."""
        head = await self.reader.readexactly(4)
        self._number = head[3] + 1
        body = await self.reader.readexactly(int.from_bytes(head[:3], "little"))
        self.seen += body
        return body

    def write(self, body: bytes) -> None:
        """Write one packet."""
        self.writer.write(_packet(self._number, body))
        self._number += 1


class CachingSha2Server:
    """
    Serves one user on a port of its own, before the MariaDB at ``host`` and ``port``.

    With ``tls`` it offers TLS. With ``switches`` it names another plugin first, as a server does whose
    default is not that of the user. ``paths`` are the ways on which users came in: "empty", "fast",
    "tls" or "rsa"; after a login the next one is fast, until `forget`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        user: str = "shop",
        password: str = "secret",
        tls: ssl.SSLContext | None = None,
        switches: bool = False,
    ) -> None:
        self.user = user
        self.password = password.encode()
        self.paths: list[str] = []
        self.seen: list[bytes] = []
        self.port = 0
        self._place = host, port
        self.tls = tls
        self._switches = switches
        self._cached = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._tasks.add(asyncio.create_task(self._accept()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._tasks:
            tasks = list(self._tasks)

            for task in tasks:
                task.cancel()

            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(tasks)

        self._socket.close()

    def forget(self) -> None:
        """Forget the password, as FLUSH PRIVILEGES and a restart make a server do."""
        self._cached = False

    async def _accept(self) -> None:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
            connection.setblocking(False)
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        server = Packets(*await asyncio.open_connection(*self._place))
        client: Packets | None = None

        try:
            with suppress(OSError, EOFError):
                handshake = await server.read()
                nonce = os.urandom(20).replace(b"\0", b"\1")
                client, response = await self._begin(connection, self._handshake(handshake, nonce))
                await self._log_in(client, response, server, nonce)
                await _relay(client, server)
        finally:
            server.writer.transport.abort()

            if client is not None:
                client.writer.transport.abort()

            connection.close()

    async def _begin(self, connection: socket.socket, handshake: bytes) -> tuple[Packets, bytes]:
        """Send the handshake, and read the client's answer, over TLS if the client asks for that."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, _packet(0, handshake))
        head = await _exactly(connection, 4)
        response = await _exactly(connection, int.from_bytes(head[:3], "little"))
        secure = len(response) == 32  # the beginning of an answer alone asks for TLS
        # Not before: what a stream has read in advance would be lost to TLS.
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=self.tls if secure else None
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        client = Packets(reader, writer, head[3] + 1)
        return (client, await client.read()) if secure else (client, response)

    async def _log_in(self, client: Packets, response: bytes, server: Packets, nonce: bytes) -> None:
        secure = client.writer.get_extra_info("ssl_object") is not None

        try:
            database, flags = await self._check(client, response, nonce, secure=secure)
        except Refused as error:
            client.write(b"\xff" + _DENIED.to_bytes(2, "little") + b"#28000" + str(error).encode())
            await client.writer.drain()
            raise EOFError from error
        finally:
            self.seen.append(b"" if secure else response + client.seen)

        server.write(
            (flags & ~(_TLS | _ATTRIBUTES | _LENGTH_ENCODED)).to_bytes(4, "little")
            + response[4:32]
            + b"root\0\0"
            + (database + b"\0" if flags & _CONNECT_WITH_DB else b"")
            + b"mysql_native_password\0"
        )
        client.write(await server.read())  # its OK, or that there is no such database

    def _handshake(self, theirs: bytes, nonce: bytes) -> bytes:
        """Return MariaDB's first packet with a nonce, a plugin and capabilities of ours."""
        version_end = theirs.index(b"\0", 1) + 1
        thread = theirs[version_end : version_end + 4]
        rest = theirs[version_end + 13 :]  # behind the first part of the nonce
        offered = int.from_bytes(rest[:2] + rest[5:7], "little") & _OFFERED & ~_TLS | 1
        low, high = (offered | (_TLS if self.tls else 0)).to_bytes(4, "little")[:2], offered >> 16
        plugin = b"mysql_native_password" if self._switches else b"caching_sha2_password"
        return (
            theirs[:version_end] + thread + nonce[:8] + b"\0" + low + rest[2:5]
            + high.to_bytes(2, "little") + b"\x15" + bytes(10) + nonce[8:] + b"\0" + plugin + b"\0"
        )  # fmt: skip

    async def _check(
        self, client: Packets, response: bytes, nonce: bytes, *, secure: bool
    ) -> tuple[bytes, int]:
        """Check the password; return the database and the capabilities that the client asks for."""
        flags = int.from_bytes(response[:4], "little")
        user, _, rest = response[32:].partition(b"\0")
        answer, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        database = rest.partition(b"\0")[0] if flags & _CONNECT_WITH_DB else b""

        if self._switches:
            nonce = nonce[::-1]
            client.write(b"\xfecaching_sha2_password\0" + nonce + b"\0")
            answer = await client.read()

        if not answer.rstrip(b"\0"):
            self._let_in("empty", user, b"")
        elif self._cached and answer == _scramble(self.password, nonce):
            client.write(_MORE + _FAST)
            self._let_in("fast", user, self.password)
        else:
            client.write(_MORE + _FULL)
            self._let_in(*await self._full(client, user, nonce, secure=secure))
            self._cached = True

        return database, flags

    async def _full(
        self, client: Packets, user: bytes, nonce: bytes, *, secure: bool
    ) -> tuple[str, bytes, bytes]:
        """Ask for the password itself."""
        answer = await client.read()

        if secure:
            return "tls", user, answer.removesuffix(b"\0")

        if answer == _KEY:
            public = serialization.PublicFormat.SubjectPublicKeyInfo
            client.write(_MORE + _key().public_key().public_bytes(serialization.Encoding.PEM, public))
            answer = await client.read()

        mixed = _key().decrypt(answer, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
        given = bytes(byte ^ nonce[n % len(nonce)] for n, byte in enumerate(mixed))
        return "rsa", user, given.removesuffix(b"\0")

    def _let_in(self, path: str, user: bytes, password: bytes) -> None:
        if user.decode() != self.user or password != self.password:
            raise Refused(f"Access denied for user '{user.decode()}' (using password: YES)")

        self.paths.append(path)


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _scramble(password: bytes, nonce: bytes) -> bytes:
    """Return what only somebody who knows the password can answer to a nonce."""
    once = hashlib.sha256(password).digest()
    mask = hashlib.sha256(hashlib.sha256(once).digest() + nonce).digest()
    return bytes(one ^ other for one, other in zip(once, mask, strict=True))


def _packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


async def _exactly(connection: socket.socket, size: int) -> bytes:
    """Read so many bytes and no more."""
    data = b""

    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(connection, size - len(data))

        if not more:
            raise EOFError

        data += more

    return data


async def _relay(client: Packets, server: Packets) -> None:
    """Pass on what either side says, until one of them closes."""

    async def pump(source: Packets, target: Packets) -> None:
        while data := await source.reader.read(1 << 16):
            target.writer.write(data)
            await target.writer.drain()

    tasks = [asyncio.ensure_future(pump(client, server)), asyncio.ensure_future(pump(server, client))]

    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

        await asyncio.gather(*tasks, return_exceptions=True)
