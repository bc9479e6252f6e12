"""Which commands concern several nodes of a cluster, and how their replies are merged. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.table import words
from ws_pool._redis.errors import MaybeExecuted

_SAME: Final = words(
    "FLUSHALL FLUSHDB PING",
    CONFIG="RESETSTAT REWRITE SET",
    FUNCTION="DELETE FLUSH LOAD RESTORE",
    SCRIPT="FLUSH KILL LOAD",
)
_SUMMED, _JOINED, _ALL_TRUE = words("DBSIZE"), words("KEYS"), words("", SCRIPT="EXISTS")
_WORDS_PER_KEY: Final = {"DEL": 1, "EXISTS": 1, "TOUCH": 1, "UNLINK": 1, "MGET": 1, "MSET": 2}
SPLIT: Final = frozenset(_WORDS_PER_KEY)
"""Commands of any number of keys, which are split when these live on several nodes. That is not atomic."""
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


def split_keys(command: Command, slot_of: Callable[[Any], int]) -> dict[int, list[int]]:
    """
    Return for each hash slot which keys of a command, by number, belong to it.

    Example:
        >>> split_keys(Command(("MSET", "a", 1, "b", 2, "a", 3)), ord)
        {97: [0, 2], 98: [1]}
    """
    parts: dict[int, list[int]] = {}

    for number, key in enumerate(command.arguments[:: _WORDS_PER_KEY[command.name]]):
        parts.setdefault(slot_of(key), []).append(number)

    return parts


def part_of(command: Command, numbers: Sequence[int]) -> Command:
    """
    Return the part of a command that has these keys.

    Example:
        >>> part_of(Command(("MSET", "a", 1, "b", 2)), [1]).args
        ('MSET', 'b', 2)
    """
    width, arguments = _WORDS_PER_KEY[command.name], command.arguments
    chosen = (word for number in numbers for word in arguments[number * width : (number + 1) * width])
    return Command((command.name, *chosen))


def merge_split(
    command: Command, parts: Sequence[Sequence[int]], replies: Sequence[Any]
) -> Any:  # Any: replies
    """
    Merge the replies to the parts of a split command.

    Example:
        >>> merge_split(Command(("MGET", "a", "b", "c")), [[0, 2], [1]], [[1, 3], [2]])
        [1, 2, 3]
    """
    if command.name == "MGET":
        values = {
            number: value
            for numbers, reply in zip(parts, replies, strict=True)
            for number, value in zip(numbers, reply, strict=True)
        }
        return [values[number] for number in range(len(values))]

    return replies[0] if command.name == "MSET" else sum(replies)


def failure_of(
    pool: str, command: str, parts: Sequence[object], outcomes: Sequence[Any], *, read_only: bool
) -> BaseException | None:
    """
    Return the error of a command that was sent in parts, all of which have ended; None if all succeeded.

    Example:
        >>> failure_of("main", "DEL", ["a", "b"], [1, ValueError("no")], read_only=True)
        ValueError('no')
        >>> error = failure_of("main", "DEL", ["a", "b"], [1, ValueError("no")], read_only=False)
        >>> str(error).partition(";")[0]
        "redis pool 'main': only a part of DEL was executed: done for a"
    """
    done: list[object] = []
    unknown: list[object] = []
    refused: list[object] = []
    first: BaseException | None = None

    for part, outcome in zip(parts, outcomes, strict=True):
        if not isinstance(outcome, BaseException):
            done.append(part)
            continue

        first = first or outcome
        (unknown if isinstance(outcome, MaybeExecuted) else refused).append(part)

    # The error of one part is the error of the whole only when no other part has changed anything: a
    # caller who gets UnavailableError or a refusal may then repeat the command without a second thought.
    if read_only or not (done or unknown) or not isinstance(first, Exception):
        return first

    said = {"done for": done, "unknown for": unknown, "failed for": refused}
    error = MaybeExecuted(
        f"redis pool {pool!r}: only a part of {command} was executed:"
        f" {'; '.join(f'{what} {_listed(which)}' for what, which in said.items() if which)} ({first});"
        " repeat it only if that does no harm",
        pool=pool,
        command=command,
        done=done,
        unknown=unknown,
        failed=refused,
    )
    error.__cause__ = first
    return error


def _listed(parts: Sequence[object]) -> str:
    shown = ", ".join(map(str, parts[:5]))
    return f"{shown} and {len(parts) - 5} more" if len(parts) > 5 else shown
