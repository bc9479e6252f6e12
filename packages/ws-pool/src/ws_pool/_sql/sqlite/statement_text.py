"""What the text of a SQLite statement alone shows: its verb, whether it writes, and what it leaves behind.

What outlives a statement on a connection of SQLite is little: settings (PRAGMA), attached databases,
temporary tables, and an open transaction, of which the driver knows. Everything else is in the file.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ws_pool._sql.text import first_word, has_several

_READING = frozenset({"select", "values", "explain", "with", "("})
_DML = re.compile(r"\b(?:insert|update|delete|replace)\b(?!\s*\()", re.IGNORECASE)

# Comments, and strings and names in quotes: no backslash escapes anything, and # begins no comment.
_SKIP = re.compile(
    r"""(?P<comment> /\*.*?(?:\*/|\Z) | --[^\n]* )
    | '(?:[^']++|'')*' | "(?:[^"]++|"")*" | `(?:[^`]++|``)*` | \[[^\]]*\]""",
    re.VERBOSE | re.DOTALL,
)
_KEPT = re.compile(r"\b(?:temp|temporary|attach|detach|pragma|load_extension)\b", re.IGNORECASE)
_CONTROL = re.compile(r"\s*(?:begin|commit|end|rollback(?!(?:\s+transaction)?\s+to))\b", re.IGNORECASE)
_UPSERT = re.compile(r"\binsert\b.*\bon\s+conflict\b.*\bdo\s+update\b", re.IGNORECASE | re.DOTALL)
_NAME = r"(?:'+|[\w$]+)"
_TARGET = re.compile(
    rf"\b(?:insert(?:\s+or\s+\w+)?|replace)\s+into\s+({_NAME}(?:\s*\.\s*{_NAME})?)", re.IGNORECASE
)
_RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)
_CONNECTION = re.compile(r"\b(?:last_insert_rowid|changes|total_changes)\s*\(", re.IGNORECASE)


@lru_cache(maxsize=2048)
def verb(sql: str) -> str:
    r"""
    Return a statement's first word in lower case, or ``(`` for a statement in parentheses.

    Example:
        >>> verb("-- a hint\n Select 1")
        'select'
    """
    return first_word(_bare(sql))


@lru_cache(maxsize=2048)
def leaves_clean(sql: str) -> bool:
    """
    Whether a statement leaves settings, attached databases and temporary tables as they were.

    Example:
        >>> leaves_clean("CREATE TABLE t (a)"), leaves_clean("CREATE TEMP TABLE t (a)")
        (True, False)
    """
    return not _KEPT.search(_bare(sql))


@lru_cache(maxsize=2048)
def reads_only(sql: str) -> bool:
    """Whether a statement surely changes nothing; False when in doubt."""
    text = _bare(sql)
    return verb(sql) in _READING and not (_DML.search(text) or has_several(text))


def hides_placeholder(sql: str) -> bool:
    """Return False: SQLite itself counts the places of values, and refuses those that have none."""
    return False


@lru_cache(maxsize=2048)
def ends_transaction(sql: str) -> bool:
    """
    Whether a statement ends or begins a transaction; a savepoint's do not.

    Example:
        >>> ends_transaction("END TRANSACTION"), ends_transaction("ROLLBACK TO here")
        (True, False)
    """
    return bool(_CONTROL.match(_bare(sql)))


@lru_cache(maxsize=2048)
def reads_connection(sql: str) -> bool:
    """Whether a query is about the last statement of its own connection, as ``changes()`` is."""
    return bool(_CONNECTION.search(_bare(sql)))


@lru_cache(maxsize=2048)
def returning_number(sql: str) -> str | None:
    """
    Have an INSERT that may update a row instead return the row's number; None for any other statement.

    Example:
        >>> returning_number("INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 1; -- so")
        'INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 1 RETURNING _rowid_'
    """
    masked = _masked(sql)
    end = len(masked.rstrip("; \t\r\n"))
    text = masked[:end]

    if ";" in text or _RETURNING.search(text) or not _UPSERT.search(text):
        return None

    return f"{sql[:end]} RETURNING _rowid_"


@lru_cache(maxsize=2048)
def inserted_table(sql: str) -> str | None:
    """
    Return the table of an INSERT or REPLACE, as it is written; None for any other statement.

    Example:
        >>> inserted_table("INSERT OR IGNORE INTO main.[a b] VALUES (1)"), inserted_table("SELECT 1")
        ('main.[a b]', None)
    """
    found = _TARGET.search(_masked(sql))
    return None if found is None else sql[found.start(1) : found.end(1)]


def _masked(sql: str) -> str:
    """Write blanks for comments, and quotes for strings and names in quotes: each keeps its place."""
    return _SKIP.sub(lambda found: (" " if found["comment"] is not None else "'") * len(found[0]), sql)


def _bare(sql: str) -> str:
    """Take comments, and strings and names in quotes away."""
    return _SKIP.sub(lambda found: " " if found.group("comment") is not None else "''", sql)
