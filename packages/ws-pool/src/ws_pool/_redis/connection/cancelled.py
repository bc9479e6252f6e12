"""Which keys a cancelled command may still change, on one of several shared connections. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.keys import KeySpecs
from ws_pool._redis.connection.encoder import Encode
from ws_pool._redis.connection.pipelined import PipelinedConnection

_MAX_KEYS: Final = 1_000  # beyond this, keys whose commands were answered are dropped


class CancelledKeys:
    """
    The first keys of cancelled commands, until the server has answered these commands.

    A later command on one of these keys must use the same connection, or it could overtake the
    cancelled one. It is not enough that each task keeps to one connection: the later command may be
    another task's, since `asyncio.wait_for` of Python 3.11 runs its argument in a new task.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._key_specs = KeySpecs((), encode)
        self._connection: PipelinedConnection | None = None
        self._last: dict[bytes, int] = {}  # how many replies must have come, by key
        self._end = 0  # the same, for all keys

    def add(self, connection: PipelinedConnection, commands: Sequence[Sequence[Any]]) -> None:
        """Note that commands were cancelled; those that only read may be overtaken, for nobody sees that."""
        commands = [args for args in commands if not Command(args).read_only]

        if not commands:
            return

        if connection is not self._connection or connection.answered >= self._end:
            self._connection, self._last = connection, {}

        if len(self._last) >= _MAX_KEYS:
            self._last = {key: last for key, last in self._last.items() if last > connection.answered}

        self._end = connection.answered + len(connection.pending)
        self._last |= dict.fromkeys(self._keys(commands), self._end)

    def cover(self, connection: PipelinedConnection, commands: Sequence[Sequence[Any]]) -> bool:
        """Return whether a command has a key of a cancelled one that was not answered yet."""
        if connection is not self._connection or connection.answered >= self._end:
            return False

        return any(self._last.get(key, 0) > connection.answered for key in self._keys(commands))

    def _keys(self, commands: Sequence[Sequence[Any]]) -> Iterator[bytes]:
        # Without COMMAND's reply most keys are unknown: the first argument is a good guess, and a wrong
        # guess only means that an unrelated command takes this connection.
        for command in map(Command, commands):
            for key in (*self._key_specs.keys(command), *command.arguments[:1])[:1]:
                yield bytes(self._encode(key))
