"""Which commands concern several nodes of a cluster, and how their replies are merged. Pure."""

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
    Merge the replies of several nodes into one: their sum, their union, or what all agree on.

    Example:
        >>> merge_replies("DBSIZE", [2, 3]), merge_replies("KEYS", [[b"a"], [b"b"]])
        (5, [b'a', b'b'])
    """
    if name in _SUMMED:
        return sum(replies)

    if name in _JOINED:
        return [key for reply in replies for key in reply]

    return [min(flags) for flags in zip(*replies, strict=True)] if name in _ALL_TRUE else replies[0]
