"""A Redis client of some lines: enough to set up servers and to look into them."""

from __future__ import annotations

import socket
from typing import IO, Self

__all__ = ("RespConnection", "RespError", "Value")

Value = str | int | None | list["Value"]


class RespError(Exception):
    """The server answered with an error; the text is the server's."""


class RespConnection:
    """
    A blocking connection that speaks RESP2.

    Args:
        target: Host and port, or the path of a unix socket.
        timeout: Seconds for the connect and for each reply.
    """

    def __init__(self, target: tuple[str, int] | str, *, timeout: float = 5.0) -> None:
        if isinstance(target, str):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(timeout)

            try:
                self._socket.connect(target)
            except BaseException:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection(target, timeout)

        self._reader: IO[bytes] = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __call__(self, *args: str | bytes | float) -> Value:
        """Send one command and return its reply; text is decoded as UTF-8."""
        self._socket.sendall(encode_command(*args))
        return self._read()

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
        self._socket.close()

    def _read(self) -> Value:
        line = self._reader.readline()

        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")

        kind, rest = line[:1], line[1:-2]

        if kind == b"+":
            return rest.decode()

        if kind == b"-":
            raise RespError(rest.decode())

        if kind == b":":
            return int(rest)

        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._read_text(size)

        if kind == b"*":
            size = int(rest)
            return None if size < 0 else [self._read_item() for _ in range(size)]

        raise RespError(f"not a RESP2 reply: {line!r}")

    def _read_text(self, size: int) -> str:
        data = self._reader.read(size + 2)

        if len(data) < size + 2:
            raise ConnectionResetError("the server closed the connection")

        return data[:-2].decode(errors="surrogateescape")

    def _read_item(self) -> Value:
        try:
            return self._read()
        except RespError as error:
            return f"-{error}"


def encode_command(*args: str | bytes | float) -> bytes:
    """Return the bytes of one command."""
    parts = [b"*%d\r\n" % len(args)]

    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))

    return b"".join(parts)
