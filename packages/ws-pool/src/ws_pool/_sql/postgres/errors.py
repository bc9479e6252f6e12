"""Errors of the drivers become ours, by the server's SQLSTATE."""

from __future__ import annotations

import re
from typing import Any

from ws_pool._sql.connection import busy
from ws_pool.errors import (
    IntegrityViolation,
    QueryError,
    QueryTimeout,
    TransactionConflict,
    UnavailableError,
    WsError,
)

CANCELLED = "57014"
_INTEGRITY = "23"
_CONFLICT = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available
# The connection is gone, or the server wants us gone: connection exceptions, shutdown, crash, start-up.
_LOST = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "53300"})
# A prepared statement that this process of the server does not know, or knows from somebody else.
_MIXED_UP = frozenset({"26000", "42P05"})
# The value stands behind it, and must not be in the error.
_ARGUMENT = re.compile(r"(query argument \$\d+):.*?(?= \([^()]*\)$|$)", re.DOTALL)


def map_error(  # noqa: PLR0911 - one for each kind of error
    error: Exception, sql: str, *, lost: bool = False
) -> WsError:
    """Map an error of a driver; ``sql`` is the statement without values."""
    state: str | None = getattr(error, "sqlstate", None)
    diagnosis = getattr(error, "diag", error)  # psycopg has beside the error what asyncpg has in it
    text = _text(error, diagnosis)

    if state is None:
        # Without a SQLSTATE it is the driver's own: a connection that is closed, busy, or a wrong argument.
        if "another operation is in progress" in text:
            return busy()

        if lost or "closed" in text or isinstance(error, OSError):
            return UnavailableError(f"the connection to the server was lost: {text}", sql=sql)

        return QueryError(text, sql=sql)

    message = f"({state}) {text}"
    context: dict[str, Any] = {"sqlstate": state, "sql": sql}

    if state in _LOST or state.startswith("08"):
        return UnavailableError(f"the connection to the server was lost: {message}", **context)

    if state in _CONFLICT:
        return TransactionConflict(message, **context)

    if state.startswith(_INTEGRITY):
        return IntegrityViolation(message, constraint=getattr(diagnosis, "constraint_name", None), **context)

    if state == CANCELLED:
        return QueryTimeout(f"the server cancelled the statement: {message}", **context)

    if state in _MIXED_UP:
        message += (
            ": a pooler between here and the server keeps no prepared statements; "
            "set prepared=False when it is pgbouncer in transaction mode"
        )

    return QueryError(message, **context)


def _text(error: Exception, diagnosis: object) -> str:
    """Return the server's message with its detail, which names the row or the key; values stay out of it."""
    primary: str | None = getattr(diagnosis, "message_primary", None)
    text = _ARGUMENT.sub(r"\1", primary or str(error))
    detail: str | None = getattr(diagnosis, "message_detail", None) or getattr(error, "detail", None)
    return text if not detail or detail in text else f"{text} ({detail})"
