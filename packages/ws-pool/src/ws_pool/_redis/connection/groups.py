"""Which of several shared connections are for reads, for writes and for large values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.table import READ_ONLY

LARGE: Final = 64 * 1024
"""Commands with so many bytes of arguments go where no others wait behind them, if there is such a place."""

T = TypeVar("T")


class ConnectionGroups(Generic[T]):
    """
    Shared connections in groups: with two, reads have one of them; with more, large values have another.

    What one connection carries is executed and answered in order, so a read behind a write waits as long
    as that does: while the server is paused for writes, or a large value is on its way.

    Example:
        >>> groups = ConnectionGroups(["a", "b", "c", "d"])
        >>> groups.reads, groups.writes, groups.large
        (['a', 'b'], ['c'], ['d'])
        >>> groups.choose([("GET", "k")]), groups.choose([("GET", "k"), ("DEL", "k")])
        (['a', 'b'], ['c'])
        >>> groups.choose([("SET", "k", bytes(LARGE))])
        ['d']
    """

    def __init__(self, connections: Sequence[T]) -> None:
        others = len(connections) - (len(connections) > 2)
        readers = (others + 1) // 2
        self.reads = connections[:readers]
        self.writes = connections[readers:others]
        self.large = connections[others:] or self.writes

    def choose(
        self, commands: Sequence[Sequence[Any]]
    ) -> Sequence[T]:  # Any: arguments of redis-py's callers
        """Return the connections for commands that are sent as one piece."""
        if sum(map(_size, commands)) >= LARGE:
            return self.large

        return self.reads if all(map(_only_reads, commands)) else self.writes


def _only_reads(args: Sequence[Any]) -> bool:
    verb = args[0]
    return (verb.__class__ is str and verb in READ_ONLY) or Command(args).read_only


def _size(args: Sequence[Any]) -> int:
    return sum(len(arg) for arg in args if isinstance(arg, str | bytes | bytearray | memoryview))
