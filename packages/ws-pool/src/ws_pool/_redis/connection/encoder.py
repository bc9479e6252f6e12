"""Commands to bytes, in redis-py's sense of what an argument may be. Pure.

hiredis packs in C what is common (str, bytes, int, float); everything else takes redis-py's own
encoder, so that the same values are accepted and refused, with the same errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import hiredis
from redis.typing import EncodableT

from ws_pool._redis.commands.command import split

Encode = Callable[[EncodableT], bytes | memoryview]

_pack: Callable[[Any], bytes] = hiredis.pack_command  # Any: hiredis takes any tuple


class CommandEncoder:
    r"""
    Turns commands into bytes.

    Example:
        >>> from redis._parsers.encoders import Encoder
        >>> CommandEncoder(Encoder("utf-8", "strict", False).encode, fast=True).pack(("GET", "key"))
        b'*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n'
    """

    def __init__(self, encode: Encode, *, fast: bool) -> None:
        self.encode: Encode = encode
        self.pack_plain: Callable[[Sequence[EncodableT]], bytes] = _pack if fast else self.pack_slowly
        """Pack a command whose name is one word; raises TypeError for values that hiredis refuses."""

    def pack(self, args: Sequence[EncodableT]) -> bytes:
        """Pack a command whose name may be of several words; raise DataError for values redis-py refuses."""
        args = split(args)

        try:
            return self.pack_plain(args)
        except TypeError:
            return self.pack_slowly(args)

    def pack_many(self, commands: Iterable[Sequence[EncodableT]]) -> bytes:
        """Pack several commands into one piece."""
        return b"".join(map(self.pack, commands))

    def pack_slowly(self, args: Sequence[EncodableT]) -> bytes:
        """Pack a command with redis-py's encoder, whose name is one word."""
        pieces: list[bytes | memoryview] = [b"*%d\r\n" % len(args)]

        for value in map(self.encode, args):
            size = value.nbytes if isinstance(value, memoryview) else len(value)
            pieces += (b"$%d\r\n" % size, value, b"\r\n")

        return b"".join(pieces)
