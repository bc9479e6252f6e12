"""Which keys a cancelled command may still change, on one of several shared connections. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ws_pool._redis.commands.keys import KeySpecs
from ws_pool._redis.commands.table import canonical, split
from ws_pool._redis.connection.encoder import Encode
from ws_pool._redis.connection.pipelined import PipelinedConnection

__all__ = ("CancelledKeys",)

_MOST: Final = 1_000  # keys to remember before those are dropped whose commands were answered


class CancelledKeys:
    """
    The first keys of commands that nobody waits for any more, until the server has answered them.

    Whoever uses one of these keys next must use the same connection, or could overtake them. It is
    not enough that a task keeps to its connection: the next command may be another task's, as
    `asyncio.wait_for` of Python 3.11 runs what it waits for in a task of its own.

    Args:
        encode: Turns an argument into bytes.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._table = KeySpecs((), encode)
        self._link: PipelinedConnection | None = None
        self._last: dict[bytes, int] = {}  # how many replies must have come, by key
        self._end = 0  # the same, for all keys

    def add(self, link: PipelinedConnection, commands: Sequence[Sequence[Any]]) -> None:
        """
        Note that commands were cancelled.

        Args:
            link: Where they may be under way.
            commands: The commands.
        """
        if link is not self._link or link.answered >= self._end:
            self._link, self._last = link, {}

        if len(self._last) >= _MOST:
            self._last = {key: last for key, last in self._last.items() if last > link.answered}

        self._end = link.answered + len(link.pending)
        self._last |= dict.fromkeys(self._keys(commands), self._end)

    def concern(self, link: PipelinedConnection, commands: Sequence[Sequence[Any]]) -> bool:
        """
        Tell whether commands must not overtake a cancelled one.

        Args:
            link: The present link.
            commands: The commands.

        Returns:
            Whether they have a key in common, and the cancelled one was not answered.
        """
        if link is not self._link or link.answered >= self._end:
            return False

        return any(self._last.get(key, 0) > link.answered for key in self._keys(commands))

    def _keys(self, commands: Sequence[Sequence[Any]]) -> Iterator[bytes]:
        for command in commands:
            behind = split(command)[canonical(command).count(" ") + 1 :]

            for key in (*self._table.keys(command), *behind[:1])[:1]:
                yield bytes(self._encode(key))
