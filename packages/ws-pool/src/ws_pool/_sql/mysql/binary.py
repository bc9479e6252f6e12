"""Which queries return the same in MySQL's binary protocol as in text, over asyncmy.

The binary protocol is faster; but a parameter is not a literal to the server, and some values have
another form in it. Only what is surely the same may take it, so that a handle of ``pool.prepare``
never returns another result than its statement does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what has a form in the binary protocol
_LONG = 1 << 20  # characters or bytes: longer values gain nothing
_SURROGATE = re.compile("[\ud800-\udfff]")

# Type codes of columns. Text shows a FLOAT with fewer digits than it has, and a DOUBLE with a number of
# decimals with these; TIME may be out of the range of what the driver makes of it.
_OTHER_IN_BINARY = frozenset({4, 5, 11})

# DATE, TIMESTAMP, DATETIME, NEWDATE: zero dates such as '0000-00-00' are text in text and None in binary.
_DATES = frozenset({7, 10, 12, 14})

_STRING = re.compile(r"""'(?:[^'\\]++|\\.|'')*' | "(?:[^"\\]++|\\.|"")*" | `[^`]*`""", re.VERBOSE | re.DOTALL)

# Where a parameter means something else than a literal: in VALUES (MariaDB loses it, MDEV-35747), and in
# ORDER BY and GROUP BY (a number is the position of a column there, a parameter a constant).
_VALUES = re.compile(r"\bvalues\b", re.IGNORECASE)
_BY = re.compile(r"\b(?:order|group|partition)\s+by\b(?:(?!\blimit\b).)*%s", re.IGNORECASE | re.DOTALL)
_LIMIT = re.compile(r"\b(?:limit|offset)\b", re.IGNORECASE)  # where text refuses what binary takes


def same_as_text(sql: str, values: Sequence[Any]) -> bool:
    """Whether a query's parameters mean the same in both protocols."""
    for value in values:
        kind = type(value)

        if kind is int:
            if not _INT_MIN <= value <= _INT_MAX or (value < 0 and _limits(sql)):
                return False
        elif kind is str:
            if len(value) > _LONG or not (value.isascii() or not _SURROGATE.search(value)):
                return False
        elif kind is bytes:
            if len(value) > _LONG:
                return False
        elif value is not None:  # a date, a Decimal and so on has a literal of another type than it has
            return False

    return _parameters_are_literals(sql)


def read_as_text(rows: Sequence[Sequence[Any]], description: Sequence[Sequence[Any]]) -> bool:
    """Whether a result in the binary protocol is surely what text would have returned."""
    kinds = [column[1] for column in description]

    # A column without a label is named after its expression, where a parameter is a question mark.
    if any("?" in column[0] for column in description):
        return False

    if not _OTHER_IN_BINARY.isdisjoint(kinds):
        return False

    dates = [n for n, kind in enumerate(kinds) if kind in _DATES]
    return not dates or all(row[n] is not None for row in rows for n in dates)


def has_dates(description: Sequence[Sequence[Any]]) -> bool:
    """Whether the values of a result decide as well whether it is what text would have returned."""
    return any(column[1] in _DATES for column in description)


@lru_cache(maxsize=2048)
def _limits(sql: str) -> bool:
    return bool(_LIMIT.search(sql))


@lru_cache(maxsize=2048)
def _parameters_are_literals(sql: str) -> bool:
    text = _STRING.sub("''", sql)
    return not (_VALUES.search(text) or _BY.search(text))
