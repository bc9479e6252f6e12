"""Commands: their routes and keys, and how they are packed."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import DataError

from ws_pool._redis.commands.command import Command, verb_is_enough
from ws_pool._redis.commands.table import Route
from ws_pool._redis.connection.encoder import CommandEncoder


@pytest.mark.parametrize(
    ("args", "route"),
    [
        (("GET", "k"), Route.SHARED),
        ((b"blpop", "k", 0), Route.BLOCKING),
        (("BRPOPLPUSH", "a", "b", 0), Route.BLOCKING),
        (("WAIT", 1, 0), Route.BLOCKING),
        (("XREAD", "STREAMS", "block", "0"), Route.SHARED),
        (("XREAD", "COUNT", 1, b"block", 0, "STREAMS", "s", "$"), Route.BLOCKING),
        (("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"), Route.SHARED),
        (("XREADGROUP", "GROUP", "g", "c", "BLOCK", 5, "STREAMS", "s", ">"), Route.BLOCKING),
        (("XREADGROUP", "GROUP", "streams", "c", "BLOCK", 5, "STREAMS", "s", ">"), Route.BLOCKING),
        (("XREADGROUP", "GROUP", "g", "block", "STREAMS", "s", ">"), Route.SHARED),
        (("XREAD",), Route.SHARED),
        (("SELECT 3",), Route.SESSION),
        ((b"auth secret",), Route.SESSION),
        (("BLPOP q 3",), Route.BLOCKING),
        (("XREAD BLOCK 0 STREAMS s $",), Route.BLOCKING),
        (("client  no-evict", "on"), Route.SESSION),
        (("GET a",), Route.SHARED),
        (("  ",), Route.SHARED),
        (("CLIENT PAUSE", 1), Route.BLOCKING),
        (("CLIENT", "pause", 1), Route.BLOCKING),
        (("CLIENT ID",), Route.SHARED),
        (("CLIENT", "REPLY", "OFF"), Route.SESSION),
        (("CLIENT TRACKING", "ON"), Route.SESSION),
        (("select", 1), Route.SESSION),
        (("MULTI",), Route.SESSION),
        (("SUBSCRIBE", "c"), Route.SESSION),
        (("SPUBLISH", "c", "m"), Route.SHARED),
        (("SOME.MODULE", "k"), Route.SHARED),
    ],
)
def test_route(args: tuple[Any, ...], route: Route) -> None:
    """Commands that block or change the session don't share a connection; all others do."""
    assert Command(args).route is route


@pytest.mark.parametrize(
    ("args", "read_only"),
    [
        (("GET", "k"), True),
        ((b"hgetall", "k"), True),
        (("OBJECT", "ENCODING", "k"), True),
        (("OBJECT ENCODING", "k"), True),
        (("SET", "k", "v"), False),
        (("GETEX", "k"), False),
        (("GETSET", "k", "v"), False),
        (("SORT", "k"), False),
        (("EVAL", "return 1", 0), False),
        (("EVAL_RO", "return 1", 0), True),
        (("SOME.MODULE", "k"), False),
        (("XREADGROUP",), False),
    ],
)
def test_read_only(args: tuple[Any, ...], read_only: bool) -> None:
    """Only what is known to read alone may be repeated."""
    assert Command(args).read_only is read_only


@pytest.mark.parametrize(
    ("args", "seconds"),
    [
        (("BLPOP", "a", "b", 1.5), 1.5),
        (("BLPOP", "a", 0), None),
        (("BLPOP", "a", b"2"), 2.0),
        (("BLPOP", "a", "nonsense"), None),
        (("BLMPOP", 3, 1, "a", "LEFT"), 3.0),
        (("BZMPOP",), None),
        (("WAIT", 1, 250), 0.25),
        (("WAIT",), None),
        (("XREAD", "BLOCK", 100, "STREAMS", "s", "$"), 0.1),
        (("XREAD", "STREAMS", "s", "$"), None),
        (("MIGRATE", "h", 1, "k", 0, 5000), 5.0),
        (("CLIENT PAUSE", 10), None),
    ],
)
def test_block_seconds(args: tuple[Any, ...], seconds: float | None) -> None:
    """How long a server may take over a command is read from the command."""
    assert Command(args).block_seconds == seconds


def test_names() -> None:
    """Names are compared in one form, whatever form they come in."""
    assert Command(("CLIENT",)).name == "CLIENT"
    assert Command((memoryview(b"get"), "k")).name == "GET"
    assert not verb_is_enough("xread")
    assert not verb_is_enough(b"CLIENT")
    assert verb_is_enough("CLIENT ID")


class TestPacker:
    """The bytes of commands."""

    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
    @pytest.mark.parametrize(
        "args",
        [
            ("GET", "key"),
            ("SET", "ü", b"\x00\xff"),
            ("SET", "k", 12, 1.5, -1, 1e300, 0.1, float("inf")),
            ("SET", "k", bytearray(b"x"), memoryview(b"yz")),
            ("CLIENT SETNAME", "me"),
            (b"CLIENT SETNAME", b"me"),
            (b"GET", ""),
            ("SET", "k", "x" * 100_000),
        ],
    )
    def test_the_same_bytes_as_redis_py(self, encoding: str, args: tuple[Any, ...]) -> None:
        """Every kind of argument is packed into the bytes that redis-py sends."""
        connection = Connection(encoding=encoding)
        encoder = CommandEncoder(connection.encoder.encode, fast=encoding == "utf-8")

        try:
            expected = b"".join(connection.pack_command(*args))
        except DataError as error:  # redis-py 7 takes no bytearray
            with pytest.raises(DataError, match=str(error)[:30]):
                encoder.pack(args)
        else:
            assert encoder.pack(args) == expected
            assert encoder.pack_many([args, args]) == 2 * expected

    @pytest.mark.parametrize("fast", [True, False])
    @pytest.mark.parametrize("value", [True, None, object(), [], {}])
    def test_what_redis_py_refuses(self, value: object, *, fast: bool) -> None:
        """What redis-py refuses is refused with redis-py's error."""
        encoder = CommandEncoder(Connection().encoder.encode, fast=fast)

        with pytest.raises(DataError, match="Invalid input of type"):
            encoder.pack(("SET", "k", value))  # type: ignore[arg-type]  # wrong on purpose
