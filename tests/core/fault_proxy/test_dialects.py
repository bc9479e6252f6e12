"""The dialects split streams exactly, wherever the network has cut them."""

from __future__ import annotations

import random

import pytest

from ws_core._fault_proxy.dialects import Dialect, MysqlDialect, RawDialect, RespDialect


def command(*args: bytes) -> bytes:
    """Return a RESP command."""
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def packet(number: int, payload: bytes) -> bytes:
    """Return a MySQL packet."""
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def request_names(dialect: Dialect, data: bytes, *, chunks: int = 0) -> list[str]:
    """Feed a client's bytes, cut at random places; return the names of the requests."""
    names: list[str] = []
    out = b""

    for chunk in cut(data, chunks):
        for piece in dialect.requests(chunk):
            out += piece.data
            names += [piece.name] if piece.name is not None else []

    assert out + dialect.rest("client") == data
    return names


def count_replies(dialect: Dialect, data: bytes, *, chunks: int = 0) -> int:
    """Feed a server's bytes, cut at random places; return how many replies begin."""
    count = 0
    out = b""

    for chunk in cut(data, chunks):
        for piece in dialect.replies(chunk):
            out += piece.data
            count += piece.begins

    assert out + dialect.rest("server") == data
    return count


def cut(data: bytes, chunks: int) -> list[bytes]:
    """Cut bytes at random places."""
    chance = random.Random(chunks)
    places = sorted(chance.randrange(len(data) + 1) for _ in range(chunks))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


RESP_REPLIES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":12\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$4\r\n\r\n\r\n\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n",
    b"%1\r\n+a\r\n~2\r\n#t\r\n,1.5\r\n",
    b"|1\r\n+ttl\r\n:3\r\n*1\r\n_\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"!3\r\nERR\r\n",
    b"(123456789012345678901\r\n",
]


class TestResp:
    """`RespDialect`."""

    @pytest.mark.parametrize("chunks", range(0, 40, 3))
    def test_commands_are_found_wherever_cut(self, chunks: int) -> None:
        """Pipelined and inline commands are named, and no byte is lost."""
        data = (
            command(b"set", b"k", b"*1\r\n$4\r\nPING\r\n") + b"PING\r\n" + command(b"GET", b"") + b"get k\n"
        )

        assert request_names(RespDialect(), data, chunks=chunks) == ["SET", "PING", "GET", "GET"]

    @pytest.mark.parametrize("chunks", range(0, 80, 7))
    def test_replies_are_counted_wherever_cut(self, chunks: int) -> None:
        """Every type of reply counts once, nested or not."""
        assert count_replies(RespDialect(), b"".join(RESP_REPLIES), chunks=chunks) == len(RESP_REPLIES)

    def test_push_messages_are_no_replies(self) -> None:
        """A push message of RESP3 is passed on and not counted."""
        data = b"+OK\r\n>2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n+OK\r\n"

        assert count_replies(RespDialect(), data) == 2

    def test_subscribed_connections_have_no_replies(self) -> None:
        """After SUBSCRIBE nothing counts as a reply any more."""
        dialect = RespDialect()
        dialect.requests(command(b"subscribe", b"channel"))

        assert count_replies(dialect, b"*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n") == 0

    @pytest.mark.parametrize("data", [b"\x16\x03\x01\x00\xa5\x01\x00", b"*x\r\nabc", b"*1\r\n@\r\n"])
    def test_other_protocols_pass(self, data: bytes) -> None:
        """What is not RESP passes at once, uncounted, now and later."""
        dialect = RespDialect()

        assert [piece.data for piece in dialect.requests(data)] == [data]
        assert [piece.data for piece in dialect.requests(b"more")] == [b"more"]

    def test_incomplete_values(self) -> None:
        """The rest of an incomplete value can be taken."""
        dialect = RespDialect()

        assert [piece.data for piece in dialect.replies(b"+OK\r\n$10\r\nabc")] == [b"+OK\r\n"]
        assert dialect.rest("server") == b"$10\r\nabc"
        assert dialect.rest("server") == b""


class TestMysql:
    """`MysqlDialect`."""

    LOGIN = packet(1, b"\x05\xa2\x08\x00" + b"\0" * 28 + b"root\0\0")

    @pytest.mark.parametrize("chunks", range(0, 40, 3))
    def test_commands_are_found_wherever_cut(self, chunks: int) -> None:
        """The login is not a request, commands are named, unknown ones by number."""
        data = self.LOGIN + packet(0, b"\x03SELECT 1") + packet(0, b"\x0e") + packet(0, b"\x33?")

        assert request_names(MysqlDialect(), data, chunks=chunks) == ["QUERY", "PING", "COM_33"]

    def test_long_requests_count_once(self) -> None:
        """The second packet of a long request is not a request."""
        data = packet(0, b"\x03" + b"x" * (0xFFFFFF - 1)) + packet(1, b"y")

        assert request_names(MysqlDialect(), data) == ["QUERY"]

    def test_replies_begin_with_packet_one(self) -> None:
        """A reply of several packets begins once, even when the packet number wraps round."""
        dialect = MysqlDialect()
        handshake = packet(0, b"\x0a") + packet(2, b"\x00")
        result = b"".join(packet(number % 256, b"row") for number in range(1, 600))

        assert count_replies(dialect, handshake) == 0
        request_names(dialect, self.LOGIN + packet(0, b"\x03SELECT 1"))
        assert count_replies(dialect, result, chunks=9) == 1
        request_names(dialect, packet(0, b"\x0e"))
        assert count_replies(dialect, packet(1, b"\x00")) == 1

    def test_unanswered_commands(self) -> None:
        """STMT_CLOSE and QUIT have no reply."""
        dialect = MysqlDialect()
        pieces = dialect.requests(packet(0, b"\x19\x01\0\0\0") + packet(0, b"\x01"))

        assert [(piece.name, piece.answered) for piece in pieces] == [("STMT_CLOSE", False), ("QUIT", False)]

    def test_tls_passes(self) -> None:
        """After a request for TLS everything passes uncounted."""
        dialect = MysqlDialect()
        asks = packet(1, b"\x05\xaa\x08\x00" + b"\0" * 28)

        assert request_names(dialect, asks + b"\x16\x03\x01") == []
        assert request_names(dialect, b"\x16\x03\x01\x00\x05hello") == []
        assert count_replies(dialect, b"\x16\x03\x01\x00\x05hello") == 0


def test_raw() -> None:
    """Each chunk of the client's is a request; a reply begins with the server's next chunk."""
    dialect = RawDialect()

    assert request_names(dialect, b"GET / HTTP/1.1\r\n\r\n") == ["RAW"]
    assert count_replies(dialect, b"HTTP/1.1 200 OK\r\n") == 1
    assert count_replies(dialect, b"more") == 0
