"""The few words of Redis's protocol that scripts and their replies need (RESP 2 and 3).

Encoding one command, and reading replies incrementally: with hiredis where it is installed, else
in Python. Errors become exceptions of redis-py, so that all ways to Redis fail alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from redis import exceptions

__all__ = ("Push", "Reader", "encode", "new_reader")

_ERRORS: dict[bytes, type[exceptions.RedisError]] = {
    b"NOSCRIPT": exceptions.NoScriptError,
    b"READONLY": exceptions.ReadOnlyError,
    b"LOADING": exceptions.BusyLoadingError,
    b"CLUSTERDOWN": exceptions.ClusterDownError,
    b"MASTERDOWN": exceptions.MasterDownError,
    b"TRYAGAIN": exceptions.TryAgainError,
    b"NOAUTH": exceptions.AuthenticationError,
    b"NOPERM": exceptions.NoPermissionError,
}
_ABSENT = object()


class Push(list[object]):
    """A message that the server sends by itself (RESP 3); it answers no call."""


class Reader(Protocol):
    """An incremental parser of replies."""

    def feed(self, data: bytes, /) -> object:
        """Take bytes from the server."""
        ...

    def gets(self) -> Any:  # Any: a reply is whatever the script returned
        """Return the next whole reply, an exception for an error, or False when there is none."""
        ...


def encode(arguments: Sequence[str | bytes | int]) -> bytes:
    r"""
    Encode one command.

    Args:
        arguments: Its name and arguments.

    Example:
        >>> encode((b"GET", "k", 1))
        b'*3\r\n$3\r\nGET\r\n$1\r\nk\r\n$1\r\n1\r\n'
    """
    data = [a if type(a) is bytes else str(a).encode() for a in arguments]
    return b"*%d\r\n" % len(data) + b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in data])


def error_of(text: str | bytes) -> exceptions.RedisError:
    """
    Return the exception for an error reply.

    Args:
        text: The reply without its leading minus.

    Example:
        >>> type(error_of(b"NOSCRIPT No matching script.")).__name__
        'NoScriptError'
    """
    line = text.encode() if isinstance(text, str) else text
    kind = _ERRORS.get(line.split(b" ", 1)[0], exceptions.ResponseError)
    return kind(line.decode("utf-8", "replace"))


def new_reader() -> tuple[Reader, type]:
    """Return hiredis's reader where it is installed, else the one in Python, and its class of pushes."""
    try:
        import hiredis  # noqa: PLC0415 - an optional accelerator
    except ImportError:
        return PythonReader(), Push

    reader: Reader = hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=error_of)
    return reader, hiredis.PushNotification


class PythonReader:
    r"""
    Reads replies from a growing buffer; an incomplete one is parsed again when more has come.

    Example:
        >>> reader = PythonReader()
        >>> reader.feed(b"*2\r\n:1\r\n$3\r\nab")
        >>> reader.gets()
        False
        >>> reader.feed(b"c\r\n")
        >>> reader.gets()
        [1, b'abc']
    """

    __slots__ = ("_buffer", "_position")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0

    def feed(self, data: bytes) -> None:
        """Take bytes from the server."""
        self._buffer += data

    def gets(self) -> Any:  # Any: a reply is whatever the script returned
        """Return the next whole reply, an exception for an error, or False when there is none."""
        self._position = 0
        reply = self._parse()

        if reply is _ABSENT:
            return False

        self._buffer = self._buffer[self._position :]
        return reply

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", self._position)

        if end < 0:
            return None

        line = self._buffer[self._position : end]
        self._position = end + 2
        return line

    def _parse(self) -> object:  # noqa: C901, PLR0911 - one branch per kind of reply
        line = self._line()

        if line is None:
            return _ABSENT

        kind, rest = line[:1], line[1:]

        if kind == b":":
            return int(rest)

        if kind == b"+":
            return rest

        if kind == b"-":
            return error_of(rest)

        if kind in (b"$", b"=", b"!"):
            return self._bulk(int(rest))

        if kind in (b"*", b"~"):
            return self._list(int(rest))

        if kind == b">":
            items = self._list(int(rest))
            return Push(items) if isinstance(items, list) else items

        if kind == b"%":
            return self._list(2 * int(rest))

        if kind == b"_":
            return None

        if kind in (b",", b"(", b"#"):
            return rest

        raise exceptions.InvalidResponse(f"Redis sent what is no reply: {line[:40]!r}")

    def _bulk(self, size: int) -> object:
        if size < 0:
            return None

        end = self._position + size

        if len(self._buffer) < end + 2:
            return _ABSENT

        data = self._buffer[self._position : end]
        self._position = end + 2
        return data

    def _list(self, size: int) -> object:
        if size < 0:
            return None

        items = []

        for _ in range(size):
            item = self._parse()

            if item is _ABSENT:
                return _ABSENT

            items.append(item)

        return items
