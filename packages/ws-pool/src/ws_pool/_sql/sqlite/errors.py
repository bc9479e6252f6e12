"""Errors of sqlite3 become ours, by SQLite's result codes."""

from __future__ import annotations

from ws_pool.errors import IntegrityViolation, QueryError, TransactionConflict, WsError

_BUSY, _LOCKED = 5, 6  # the primary codes SQLITE_BUSY and SQLITE_LOCKED


def map_error(error: Exception, sql: str) -> WsError:
    """Map an error of sqlite3; ``sql`` is without values."""
    number = int(getattr(error, "sqlite_errorcode", 0) or 0)
    kind = type(error).__name__

    if number & 0xFF in {_BUSY, _LOCKED}:
        return TransactionConflict(str(error), errno=number, sql=sql)

    if kind == "IntegrityError":
        return IntegrityViolation(str(error), errno=number, sql=sql)

    return QueryError(str(error), errno=number, sql=sql)
