"""Which commands concern several nodes of a cluster, and how their replies are put together. Pure."""

from __future__ import annotations

from typing import Any, Final

__all__ = ("EVERYWHERE", "SPLIT", "SPREAD", "merge_replies")

_SAME: Final = frozenset(
    {
        "CONFIG RESETSTAT",
        "CONFIG REWRITE",
        "CONFIG SET",
        "FLUSHALL",
        "FLUSHDB",
        "FUNCTION DELETE",
        "FUNCTION FLUSH",
        "FUNCTION LOAD",
        "FUNCTION RESTORE",
        "PING",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "SCRIPT LOAD",
    }
)
_SUMMED: Final = frozenset({"DBSIZE"})
_JOINED: Final = frozenset({"KEYS"})
_ALL_TRUE: Final = frozenset({"SCRIPT EXISTS"})
SPLIT: Final = frozenset({"DEL", "EXISTS", "TOUCH", "UNLINK"})
"""Commands of any number of keys, whose replies are counts."""
EVERYWHERE: Final = _SAME | _SUMMED | _JOINED | _ALL_TRUE
"""Commands that go to all masters."""
SPREAD: Final = EVERYWHERE | SPLIT
"""All that may concern several nodes."""


def merge_replies(name: str, replies: list[Any]) -> Any:  # Any: replies
    """
    Make one reply of those of all masters.

    Args:
        name: The command's name as the tables have it.
        replies: One of each master.

    Returns:
        Their sum, their union, what all agree on, or the first.

    Example:
        >>> merge_replies("DBSIZE", [2, 3]), merge_replies("KEYS", [[b"a"], [b"b"]])
        (5, [b'a', b'b'])
    """
    if name in _SUMMED:
        return sum(replies)

    if name in _JOINED:
        return [key for reply in replies for key in reply]

    return [min(flags) for flags in zip(*replies, strict=True)] if name in _ALL_TRUE else replies[0]
