"""Which of its two connections a client of a SQLite file uses: a reader's, or the only one that writes."""

from __future__ import annotations

import asyncio

from ws_pool._sql.compile.plan import Plan
from ws_pool._sql.connection import SqlConnection
from ws_pool._sql.context import Source
from ws_pool._sql.sqlite import statement_text
from ws_pool._sql.sqlite.connection import SqliteConnection
from ws_pool.errors import UnsupportedStatement, UsageError
from ws_pool.pool import Lease, Pool


class WriterPool(Pool[SqliteConnection]):
    """The pool of the one connection that writes."""

    async def acquire(self, *, timeout: float | None = None) -> Lease[SqliteConnection]:
        """Acquire it; a task that has it already, and would wait for itself, is refused."""
        if self.full and self.held_by(asyncio.current_task()):
            message = (
                f"pool {self.name!r}: this task has the database's one writing connection, in a session of "
                "engine() or another client's block, and would wait for itself: end that before, or work in "
                "one transaction with atomic() and its client.orm_session()"
            )
            raise UsageError(message, pool=self.name)

        return await super().acquire(timeout=timeout)


class WriterRouting:
    """
    A client's way between its reading connection and the pool's writing one.

    The writing connection is taken for a change, and kept for as long as the block goes on with what
    is on it: one client is one connection.
    """

    __slots__ = ("_lease", "_reader", "_writers")

    def __init__(self, writers: Source) -> None:
        self._writers = writers
        self._lease: Lease[SqlConnection] | None = None
        self._reader: SqlConnection | None = None

    def check(self, sql: str) -> None:
        """Refuse a query about the last statement, which ran on the writing connection, on a reader."""
        if self._lease is None and statement_text.reads_connection(sql):
            message = (
                "the statement is about the one before it, which ran on another connection: run both inside "
                "begin() or atomic(), or use what insert() or execute() returned"
            )
            raise UnsupportedStatement(message, sql=sql)

    def needs_writer(self, plan: Plan | None) -> bool:
        """Return whether a statement needs the writing connection, which the client does not have."""
        return not (self._lease is not None or plan is None or plan.reading)

    async def pin(self, reader: SqlConnection) -> SqlConnection:
        """Return the writing connection, which is taken unless the client has it."""
        if self._lease is None:
            self._lease, self._reader = await self._writers.acquire(), reader

        return self._lease.connection

    def unpin(self, connection: SqlConnection, *, always: bool = False) -> SqlConnection:
        """
        Return the connection to go on with; the writing one is released unless something is left on it.

        That is a transaction, be it one that the text BEGIN or SAVEPOINT has opened, a temporary
        table, an attached database, or a setting.
        """
        lease, reader = self._lease, self._reader

        if lease is None or reader is None:
            return connection

        if not (always or connection.cut) and (connection.in_transaction or connection.dirty):
            return connection

        self._lease = self._reader = None
        self._writers.release(lease)
        return reader
