"""A MySQL client of some lines: enough to prepare databases and to look into them.

Speaks the text protocol of https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html
and logs in as a user without a password.
"""

from __future__ import annotations

import socket
import struct
from typing import IO, Self

__all__ = ("MysqlConnection", "MysqlError")

_CAPABILITIES = (
    0x1  # long password
    | 0x4  # long flag
    | 0x200  # protocol 4.1
    | 0x2000  # transactions
    | 0x8000  # secure connection
    | 0x80000  # plugin auth
)
_COM_QUERY = 3
_UTF8MB4 = 45


class MysqlError(Exception):
    """The server answered with an error packet; the text is the server's."""


class MysqlConnection:
    """
    A blocking connection for statements without results, or with small ones.

    Args:
        target: Host and port.
        user: A user without a password.
        timeout: Seconds for the connect and for each reply.
    """

    def __init__(self, target: tuple[str, int], *, user: str = "root", timeout: float = 10.0) -> None:
        self._socket = socket.create_connection(target, timeout)
        self._reader: IO[bytes] = self._socket.makefile("rb")
        self._sequence = 0

        try:
            self._log_in(user)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __call__(self, statement: str) -> list[tuple[str | None, ...]]:
        """Run one statement; return its rows as text, none when it has no result."""
        self._sequence = 0
        self._send(bytes([_COM_QUERY]) + statement.encode())
        first = self._receive()

        if first[0] == 0x00:
            return []

        for _ in range(first[0]):  # a column count over 250 would take more bytes: not for us
            self._receive()

        self._receive()  # EOF of the columns
        rows: list[tuple[str | None, ...]] = []

        while True:
            packet = self._receive()

            if packet[0] == 0xFE and len(packet) < 9:
                return rows

            rows.append(tuple(_texts(packet)))

    def close(self) -> None:
        """Say goodbye and close the connection."""
        try:
            self._sequence = 0
            self._send(b"\x01")  # COM_QUIT
        except OSError:
            pass  # the server has gone already: nothing to say goodbye to
        finally:
            self._reader.close()
            self._socket.close()

    def _log_in(self, user: str) -> None:
        handshake = self._receive()

        if handshake[0] != 0x0A:
            raise MysqlError(f"not a MySQL 4.1 handshake: {handshake[:32]!r}")

        answer = struct.pack("<IIB23x", _CAPABILITIES, 1 << 24, _UTF8MB4)
        self._send(answer + user.encode() + b"\0" + b"\0" + b"mysql_native_password\0")

        if self._receive()[0] == 0xFE:  # the server names another method; an empty password fits all
            self._send(b"")
            self._receive()

    def _send(self, payload: bytes) -> None:
        self._socket.sendall(len(payload).to_bytes(3, "little") + bytes([self._sequence]) + payload)
        self._sequence = (self._sequence + 1) & 0xFF

    def _receive(self) -> bytes:
        header = self._read(4)
        self._sequence = (header[3] + 1) & 0xFF
        payload = self._read(int.from_bytes(header[:3], "little"))

        if payload[:1] == b"\xff":
            (code,) = struct.unpack_from("<H", payload, 1)
            raise MysqlError(f"({code}) {payload[3:].decode(errors='replace')}")

        return payload

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)

        if len(data) < size:
            raise ConnectionResetError("the server closed the connection")

        return data


def _texts(packet: bytes) -> list[str | None]:
    values: list[str | None] = []
    at = 0

    while at < len(packet):
        size = packet[at]
        at += 1

        if size == 0xFB:
            values.append(None)
            continue

        if size > 0xFB:
            width = {0xFC: 2, 0xFD: 3, 0xFE: 8}[size]
            size = int.from_bytes(packet[at : at + width], "little")
            at += width

        values.append(packet[at : at + size].decode(errors="surrogateescape"))
        at += size

    return values
