"""An INSERT of one row becomes statements with many groups of values, each below the server's limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

_PACKET = 1_000_000  # bytes per statement at most: longer ones are no faster
_RESERVE = 64  # bytes of a packet that are not the statement's
_QUOTES = "'\"`"


def batches(
    split: tuple[str, str, str],
    values: Sequence[Sequence[Any]],
    literal: Callable[[Any], str],
    most_rows: int,
    most_bytes: int,
) -> Iterator[str]:
    """Write the rows into statements of at most ``most_rows`` groups and ``most_bytes``."""
    head, group, tail = split
    end = tail % () if "%" in tail else tail
    start = head % () if "%" in head else head
    most = min(_PACKET, most_bytes - _RESERVE) - len(start.encode()) - len(end.encode())
    groups: list[str] = []
    size = 0

    for row in values:
        written = group % tuple([literal(value) for value in row])
        length = len(written) if written.isascii() else len(written.encode())

        if groups and (len(groups) >= most_rows or size + length > most):
            yield f"{start}{','.join(groups)}{end}"
            groups, size = [], 0

        groups.append(written)
        size += length + 1

    yield f"{start}{','.join(groups)}{end}"


def split_values(sql: str) -> tuple[str, str, str] | None:
    """
    Split an INSERT of one row into what is before, in and behind its group of values.

    None when it has no such group, or placeholders outside of it.

    Example:
        >>> split_values("INSERT INTO t (a) VALUES (%s) ON DUPLICATE KEY UPDATE a = 1")
        ('INSERT INTO t (a) VALUES ', '(%s)', ' ON DUPLICATE KEY UPDATE a = 1')
    """
    start = sql.find(" VALUES (")

    if start < 0:
        return None

    start += len(" VALUES ")
    depth = 0
    quote = ""

    for position in range(start, len(sql)):
        char = sql[position]

        if quote:
            quote = "" if char == quote else quote
        elif char in _QUOTES:
            quote = char
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1

            if not depth:
                head, group, tail = sql[:start], sql[start : position + 1], sql[position + 1 :]
                return (
                    None
                    if "%s" in head.replace("%%", "") or "%s" in tail.replace("%%", "")
                    else (head, group, tail)
                )

    return None
