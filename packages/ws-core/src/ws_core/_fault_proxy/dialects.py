"""What a request and a reply are, in the protocols that the proxy understands.

A dialect is pure: bytes in, pieces out, nothing lost and nothing added. One object reads one
connection, both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class RequestPiece:
    """Bytes from the client."""

    data: bytes  # the bytes, to be forwarded as they are
    name: str | None = None  # the command in upper case when a request begins here, else None
    answered: bool = True  # whether the server answers the request that begins here


@dataclass(frozen=True, slots=True)
class ReplyPiece:
    """Bytes from the server."""

    data: bytes  # the bytes, to be forwarded as they are
    begins: bool = False  # whether the reply to the oldest unanswered request begins here


class Dialect(Protocol):
    """Splits the two streams of one connection."""

    def requests(self, data: bytes) -> list[RequestPiece]:
        """Take bytes from the client; return the pieces that are complete now."""
        ...

    def replies(self, data: bytes) -> list[ReplyPiece]:
        """Take bytes from the server; return the pieces that are complete now."""
        ...

    def rest(self, side: Literal["client", "server"]) -> bytes:
        """Take the beginning of a piece that its sender has not completed before its end."""
        ...


class RawDialect:
    """
    Every chunk of the client's is a request, and what the server says then is its reply.

    Right for protocols whose client waits for each reply, as long as its requests fit in one chunk.
    """

    def __init__(self) -> None:
        self._expecting = False

    def requests(self, data: bytes) -> list[RequestPiece]:
        """Take a chunk for a request."""
        self._expecting = True
        return [RequestPiece(data, "RAW")]

    def replies(self, data: bytes) -> list[ReplyPiece]:
        """Take the first chunk after a request for the beginning of its reply."""
        begins, self._expecting = self._expecting, False
        return [ReplyPiece(data, begins)]

    def rest(self, side: Literal["client", "server"]) -> bytes:
        """Return nothing: every chunk was passed on whole."""
        return b""


class RespDialect:
    """
    Redis: RESP2 and RESP3, pipelined or not, and inline commands.

    Push messages are not replies. A connection that has subscribed in RESP2 gets messages which look
    like replies, so nothing is counted as a reply on it any more. What is not RESP, such as TLS,
    passes uncounted.
    """

    _UNPAIRED = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR"})

    def __init__(self) -> None:
        self._client = _RespScanner(inline=True)
        self._server = _RespScanner(inline=False)
        self._paired = True

    def requests(self, data: bytes) -> list[RequestPiece]:
        """Return complete commands."""
        pieces = [RequestPiece(message, _resp_name(message)) for message in self._client.feed(data)]

        if any(piece.name in self._UNPAIRED for piece in pieces):
            self._paired = False

        return pieces

    def replies(self, data: bytes) -> list[ReplyPiece]:
        """Return complete replies and push messages."""
        return [
            ReplyPiece(message, self._paired and not message.startswith(b">"))
            for message in self._server.feed(data)
        ]

    def rest(self, side: Literal["client", "server"]) -> bytes:
        """Return an incomplete command or reply."""
        return (self._client if side == "client" else self._server).rest()


class _RespScanner:
    """Splits a stream of RESP values; it goes on where it stopped, so that no byte is read twice."""

    def __init__(self, *, inline: bool) -> None:
        self._inline = inline
        self._buffer = bytearray()
        self._at = 0
        self._left = 1  # values still to be read until the message is complete, nested ones included
        self._foreign = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the messages that are complete now."""
        self._buffer += data
        messages: list[bytes] = []

        while not self._foreign:
            try:
                complete = self._read_value()
            except ValueError:
                self._foreign = True
                break

            if not complete:
                return messages

            if self._left == 0:
                messages.append(bytes(self._buffer[: self._at]))
                del self._buffer[: self._at]
                self._at, self._left = 0, 1

        return [*messages, self.rest()]

    def rest(self) -> bytes:
        """Take what is not complete."""
        data = bytes(self._buffer)
        self._buffer.clear()
        self._at, self._left = 0, 1
        return data

    def _read_value(self) -> bool:
        """Read the value that begins at ``_at``, without the values nested in it."""
        if self._at == len(self._buffer):
            return False

        kind = chr(self._buffer[self._at])

        if self._at == 0 and self._inline and kind != "*":
            if not kind.isprintable() or not kind.isascii():
                raise ValueError("not RESP")

            kind = "inline"
        elif kind not in "+-:$*_#,(!=%~>|":
            raise ValueError("not RESP")

        end = self._buffer.find(b"\n", self._at)

        if end < 0:
            return False

        size = int(self._buffer[self._at + 1 : end]) if kind in "$!=*~>%|" else -1
        end += 1

        if kind in "$!=" and size >= 0:
            end += size + 2

            if end > len(self._buffer):
                return False

        self._at = end
        self._left -= 1

        if kind in "*~>%|" and size > 0:
            self._left += size * (2 if kind in "%|" else 1)

        if kind == "|":
            self._left += 1  # an attribute stands before the value that it speaks of

        return True


def _resp_name(command: bytes) -> str:
    if not command.startswith(b"*"):
        return (command.split() or [b""])[0].decode(errors="replace").upper()

    lines = command.split(b"\r\n", 3)
    return lines[2].decode(errors="replace").upper() if len(lines) > 2 else ""


class MysqlDialect:
    """
    MySQL's text and binary protocol; the login is not a request.

    A request begins with a packet of number 0, its reply with a packet of number 1. Once a client
    asks for TLS, the rest of its connection passes uncounted.
    """

    _NAMES = {  # noqa: RUF012 - never changed
        0x01: "QUIT",
        0x02: "INIT_DB",
        0x03: "QUERY",
        0x0E: "PING",
        0x16: "STMT_PREPARE",
        0x17: "STMT_EXECUTE",
        0x18: "STMT_SEND_LONG_DATA",
        0x19: "STMT_CLOSE",
        0x1A: "STMT_RESET",
        0x1C: "STMT_FETCH",
        0x1F: "RESET_CONNECTION",
    }
    _UNANSWERED = frozenset({"QUIT", "STMT_SEND_LONG_DATA", "STMT_CLOSE"})

    def __init__(self) -> None:
        self._client = _PacketScanner()
        self._server = _PacketScanner()
        self._unanswered = 0
        self._encrypted = False

    def requests(self, data: bytes) -> list[RequestPiece]:
        """Return complete packets."""
        if self._encrypted:
            return [RequestPiece(data)]

        pieces: list[RequestPiece] = []

        for packet in self._client.feed(data):
            if _asks_for_tls(packet):
                self._encrypted = True
                return [*pieces, RequestPiece(packet + self._client.rest())]

            if packet[3] != 0 or len(packet) == 4:  # the login, or more of a long request
                pieces.append(RequestPiece(packet))
                continue

            name = self._NAMES.get(packet[4], f"COM_{packet[4]:02X}")
            answered = name not in self._UNANSWERED
            self._unanswered += answered
            pieces.append(RequestPiece(packet, name, answered))

        return pieces

    def replies(self, data: bytes) -> list[ReplyPiece]:
        """Return complete packets."""
        if self._encrypted:
            return [ReplyPiece(data)]

        pieces: list[ReplyPiece] = []

        for packet in self._server.feed(data):
            # The number wraps round in long results, but then no request is unanswered.
            begins = packet[3] == 1 and self._unanswered > 0
            self._unanswered -= begins
            pieces.append(ReplyPiece(packet, begins))

        return pieces

    def rest(self, side: Literal["client", "server"]) -> bytes:
        """Return an incomplete packet."""
        return (self._client if side == "client" else self._server).rest()


class _PacketScanner:
    """Splits a stream of MySQL packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the packets that are complete now, with their headers."""
        self._buffer += data
        packets: list[bytes] = []
        begin = 0

        while len(self._buffer) >= begin + 4:
            end = begin + 4 + int.from_bytes(self._buffer[begin : begin + 3], "little")

            if len(self._buffer) < end:
                break

            packets.append(bytes(self._buffer[begin:end]))
            begin = end

        del self._buffer[:begin]
        return packets

    def rest(self) -> bytes:
        """Take what is not complete."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


def _asks_for_tls(packet: bytes) -> bool:
    """Recognise an SSLRequest: number 1, exactly the fixed part of a login, with the flag CLIENT_SSL."""
    return len(packet) == 36 and packet[3] == 1 and bool(packet[5] & 0x08)


DIALECTS: dict[str, type[RawDialect | RespDialect | MysqlDialect]] = {
    "raw": RawDialect,
    "resp": RespDialect,
    "mysql": MysqlDialect,
}
