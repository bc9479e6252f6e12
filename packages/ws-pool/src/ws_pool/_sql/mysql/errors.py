"""Errors of aiomysql and asyncmy become ours, by the server's error numbers."""

from __future__ import annotations

from ws_pool.errors import IntegrityViolation, QueryError, TransactionConflict, UnavailableError, WsError

__all__ = ("map_error",)

# The connection is gone.
_LOST = frozenset({0, 1053, 1927, 2003, 2006, 2013, 2014, 2055, 4031})

# Running the whole transaction again may help.
_CONFLICT = frozenset({1205, 1213, 1020, 3572, 1637})


def map_error(error: Exception, sql: str) -> WsError:
    """Map a driver's error, whose first argument is the server's number; ``sql`` is without values."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    kind = type(error).__name__

    if number in _LOST and (number or kind == "InterfaceError"):
        return UnavailableError(
            f"the connection to the server was lost: ({number}) {text}", errno=number, sql=sql
        )

    if number in _CONFLICT:
        return TransactionConflict(f"({number}) {text}", errno=number, sql=sql)

    if kind == "IntegrityError":
        return IntegrityViolation(f"({number}) {text}", errno=number, sql=sql)

    return QueryError(f"({number}) {text}" if number else text, errno=number, sql=sql)
