"""SQLite: how transactions begin."""

from __future__ import annotations

from collections.abc import Sequence

from ws_pool._sql.dialect import SqlDialect
from ws_pool._sql.sqlite import statement_text
from ws_pool._sql.sqlite.errors import map_error
from ws_pool.errors import UsageError, WsError


class SqliteDialect(SqlDialect):
    """The dialect of SQLite; a database in memory has one connection, which may always write."""

    grammar = statement_text
    ids_beside_rows = True
    only_isolation = "SERIALIZABLE"

    def __init__(self, *, in_memory: bool) -> None:
        self.refuses_changes = not in_memory
        self.read_only_session = "PRAGMA query_only = ON" if in_memory else None  # readers of a file have it
        self._in_memory = in_memory

    def begin(self, isolation: str | None, *, read_only: bool) -> Sequence[str]:
        """Begin; a writer takes the write lock at once, so that it cannot fail as busy in the middle."""
        if isolation not in {None, "SERIALIZABLE"}:
            message = f"SQLite has no isolation level {isolation!r}: its transactions are serializable"
            raise UsageError(message)

        return ["BEGIN" if read_only or self._in_memory else "BEGIN IMMEDIATE"]

    def map_error(self, error: Exception, sql: str) -> WsError:
        """Map an error of sqlite3."""
        return map_error(error, sql)
