"""What the client needs of a connection, and how drivers' errors become ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from ws_pool.errors import (
    ConnectionBusy,
    IntegrityViolation,
    QueryError,
    TransactionConflict,
    UnavailableError,
    WsError,
)

__all__ = ("Reply", "SqlConnection", "busy", "cut_short", "mysql_error", "sqlite_error")

# Error numbers of MySQL and MariaDB: the connection is gone; running the transaction again may help.
_LOST = frozenset({0, 1053, 1927, 2003, 2006, 2013, 2014, 2055, 4031})
_CONFLICT = frozenset({1205, 1213, 1020, 3572, 1637})


class Reply:
    """What the server answered to one statement."""

    __slots__ = ("description", "last_id", "rowcount", "rows")

    def __init__(
        self,
        rows: Sequence[tuple[Any, ...]] | None,
        description: Sequence[Sequence[Any]] | None,
        rowcount: int,
        last_id: int,
    ) -> None:
        self.rows = rows
        self.description = description
        self.rowcount = rowcount
        self.last_id = last_id


class SqlConnection(Protocol):
    """A driver's connection under one interface."""

    raw: Any  # Any: the driver's own connection, which is the user's to know
    dirty: bool
    """Whether a statement may have changed the session's state."""
    cut: bool
    """Whether an exchange was cut short, so that nothing more may run."""

    @property
    def gathers(self) -> bool:
        """Whether `stream` is a good way to read a long result as a whole."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, as far as the driver knows."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the connection can be used; False when an exchange was cut short."""
        ...

    async def run(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run one statement; ``values`` fill its placeholders, None means it has none."""
        ...

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a query that will be run again and again; a driver may know a shorter way for it."""
        ...

    async def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """Run one statement once per row of values, and give the sum of rows matched."""
        ...

    def stream(self, sql: str, values: Sequence[Any] | None, size: int) -> AsyncIterator[Reply]:
        """Run one statement and give its rows in blocks."""
        ...

    def terminate(self) -> object:
        """Close at once."""


def busy() -> ConnectionBusy:
    """Say that two tasks use one connection at the same time."""
    message = (
        "two tasks use one connection at the same time: take a client in each task, "
        "or share() this one so that they wait for each other"
    )
    return ConnectionBusy(message)


def cut_short() -> UnavailableError:
    """Say that a connection cannot be used, because an exchange on it was cancelled."""
    message = "a statement on this connection was cut short: leave the block and take a new client"
    return UnavailableError(message, code="cut_short")


def mysql_error(error: Exception, sql: str) -> WsError:
    """
    Turn an error of aiomysql or asyncmy into ours.

    Args:
        error: The driver's error; its first argument is the server's number.
        sql: The statement, with placeholders instead of values.
    """
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


def sqlite_error(error: Exception, sql: str) -> WsError:
    """
    Turn an error of sqlite3 into ours.

    Args:
        error: The driver's error.
        sql: The statement, with placeholders instead of values.
    """
    number = int(getattr(error, "sqlite_errorcode", 0) or 0)
    kind = type(error).__name__

    if number & 0xFF in {5, 6}:  # SQLITE_BUSY, SQLITE_LOCKED
        return TransactionConflict(str(error), errno=number, sql=sql)

    if kind == "IntegrityError":
        return IntegrityViolation(str(error), errno=number, sql=sql)

    return QueryError(str(error), errno=number, sql=sql)
