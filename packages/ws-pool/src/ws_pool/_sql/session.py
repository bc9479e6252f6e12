"""One connection, held for a client's block: what may run on it now, and the transaction on it."""

from __future__ import annotations

import asyncio
import time
from asyncio import current_task
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Protocol, TypeVar

from ws_pool._sql.connection import Reply, SqlConnection
from ws_pool._sql.context import SessionContext, Source
from ws_pool._sql.task_lock import TaskLock
from ws_pool.errors import TransactionConflict, UnsupportedStatement, UsageError, WsError
from ws_pool.pool import Lease

__all__ = ("GONE", "Judged", "Session")

T = TypeVar("T")


class Judged(Protocol):
    """A statement, as far as it decides where and whether it may run: a plan."""

    sql: str
    kind: str
    clean: bool
    """Whether it leaves the session as it was."""
    reading: bool
    """Whether it changes nothing."""


class Session:
    """
    A connection of a pool, from the beginning of a client's block to its end.

    Statements run through `run`; `plain` says that nothing has to be observed or refused, so that
    a client may call the connection itself.
    """

    __slots__ = (
        "_lease",
        "_lock",
        "_reader",
        "_source",
        "_transaction_task",
        "_writer",
        "connection",
        "context",
        "depth",
        "doomed",
        "plain",
        "read_only",
        "restricted",
        "savepoints",
    )

    def __init__(
        self, context: SessionContext, source: Source, lease: Lease[Any], *, read_only: bool
    ) -> None:
        self.context = context
        self.connection: SqlConnection = lease.connection
        self.read_only = read_only
        self.restricted: bool = False  # by a block that only reads, inside a transaction that may write
        self.doomed: bool = (
            False  # the server has rolled the transaction back, and its block does not know yet
        )
        self.depth: int = 0
        self.savepoints: int = 0
        self._source = source
        self._lease: Lease[Any] | None = lease
        self._lock: TaskLock | None = None
        self._transaction_task: asyncio.Task[Any] | None = None
        self._writer: Lease[Any] | None = None
        self._reader: SqlConnection | None = None
        self.plain: bool = self._is_plain()

    @property
    def rollback_timeout(self) -> float:
        """Seconds that a rollback may take when its block has failed: the pool's ``ping_timeout``."""
        return self._source.ping_timeout

    def close(self) -> None:
        """Release the connection; a transaction that was begun and never ended, its reset rolls back."""
        if self.depth:
            self.depth = 0
            self.end_transaction()

        if self._writer is not None:
            self._unpin()

        lease, self._lease = self._lease, None
        self.connection = GONE

        if lease is not None:
            self._source.release(lease)

    def share(self) -> None:
        """Let other tasks use the session: they wait for each other from now on."""
        if self._lock is None:
            self._lock = TaskLock()
            self.plain = False

    def turn(self) -> AbstractAsyncContextManager[object]:
        """Keep other tasks away from a shared session for several statements."""
        return nullcontext() if self._lock is None else self._lock

    async def run(self, plan: Judged | None, shown: str, work: Callable[[SqlConnection], Awaitable[T]]) -> T:
        """
        Run a statement when it is this task's turn, on the connection that it belongs to.

        The plan is None for transaction control; ``shown`` is the statement without values, for logs.
        """
        if self._lock is None:
            return await self._route(plan, shown, work)

        # The connection is chosen after the wait: another task's transaction may end meanwhile, and
        # with it the loan of the writing connection.
        async with self._lock:
            return await self._route(plan, shown, work)

    async def scalar(self, plan: Judged, values: Sequence[Any]) -> Any:
        """Run a query in the driver's own style, and return its one value."""
        reply = await self.run(
            plan, plan.sql, lambda connection: connection.run(plan.sql, list(values) or None)
        )
        return reply.rows[0][0] if reply.rows else None

    async def run_many(self, plan: Judged, values: Sequence[Sequence[Any]]) -> int:
        """Run a statement once per row of values, inside an open transaction."""
        return await self.run(plan, plan.sql, lambda connection: connection.run_many(plan.sql, values))

    async def run_literal(self, plan: Judged, sql: str) -> int:
        """Run a statement with its values in it; logs and errors show that of the plan, without them."""

        async def work(connection: SqlConnection) -> Reply:
            try:
                return await connection.run(sql, None)
            except WsError as error:
                error.context["sql"] = plan.sql
                raise

        return (await self.run(plan, plan.sql, work)).rowcount

    @asynccontextmanager
    async def stream(self, plan: Judged) -> AsyncIterator[SqlConnection]:
        """Keep the connection of a statement, and other tasks away from it, for several exchanges."""
        async with self.turn():
            self._check_connection(plan)

            if self._writes(plan):
                await self._pin()

            connection = self.guard(plan, self.connection)

            try:
                yield connection
            except TransactionConflict as error:
                self.note_conflict(connection, error)
                raise
            finally:
                self._unpin_if_done()

    def guard(self, plan: Judged | None, connection: SqlConnection) -> SqlConnection:
        """
        Refuse what must not run now, and note what may be left behind; nothing runs without it.

        A session in its usual state is `plain`: nothing can be refused, and its client notes what is
        left behind.
        """
        if self.doomed and self.depth:
            message = "the server has rolled this transaction back because of a conflict: run it again"
            raise TransactionConflict(message)

        if plan is not None:
            self.check(plan)

            if not plan.clean:
                connection.dirty = True

        return connection

    def check(self, plan: Judged) -> None:
        """Refuse changes in a block that only reads."""
        if self.restricted and not plan.reading:
            raise refused(plan, "block", "make it one")

    def note_conflict(self, connection: SqlConnection, error: TransactionConflict) -> None:
        """Remember that the server has rolled back, so that nothing runs outside of it unnoticed."""
        # A deadlock ends the transaction whatever the server's status says of it; of other conflicts
        # (a lock timeout) the status decides: MySQL has rolled back the statement alone, or all.
        if self.depth and (self.context.dialect.ends_transaction(error) or not connection.in_transaction):
            self.doomed = True
            self.plain = False

    # -- the transaction: see ws_pool._sql.transaction ---------------------------------------------

    async def control(self, sql: str, *, always: bool = False) -> None:
        """Run a statement of transaction control; ``always`` also when the server has rolled back."""
        if always:
            self.doomed = False

        await self.run(None, sql, lambda connection: connection.run(sql, None))

    async def begin_outermost(self, isolation: str | None, *, read_only: bool) -> None:
        """Open a transaction where none is: on the writing connection, if it may write and there is one."""
        context = self.context
        statements = context.dialect.begin(isolation, read_only=read_only or self.read_only)
        self.doomed = False

        if context.writers is not None and not (read_only or self.read_only):
            await self._pin()

        connection = self.connection
        dirty = connection.dirty
        connection.dirty = dirty or len(statements) > 1  # a level stays until a transaction has begun with it

        try:
            for statement in statements:
                await self.control(statement)
        except BaseException:
            self.end_transaction()
            raise

        connection.dirty = dirty
        self._transaction_task = current_task()

        if read_only and not context.dialect.refuses_changes:
            self.restrict(True)

    def check_own(self) -> None:
        """Refuse a transaction inside that of another task, on a shared session."""
        if self._lock is not None and self.depth and self._transaction_task is not current_task():
            message = (
                "another task's transaction is open on this shared client, and a transaction belongs to one "
                "task: take a client of its own in each task"
            )
            raise UsageError(message)

    def restrict(self, restricted: bool) -> None:  # noqa: FBT001 - it is all there is to say
        """Refuse changes from now on, or no longer."""
        self.restricted = restricted
        self.plain = not self.doomed and self._is_plain()

    def end_transaction(self) -> None:
        """Note the end of the outermost transaction; the writing connection goes back."""
        self.doomed = self.restricted = False
        self._transaction_task = None
        self.plain = self._is_plain()
        self._unpin_if_done()

    # -- inside ------------------------------------------------------------------------------------

    async def _route(
        self, plan: Judged | None, shown: str, work: Callable[[SqlConnection], Awaitable[T]]
    ) -> T:
        """Run a statement on the session's connection, or a change outside a transaction on a writer's."""
        if self.context.writers is None:
            return await self._observe(plan, shown, work, self.connection)

        self._check_connection(plan)

        if self._writes(plan):
            await self._pin()

        try:
            return await self._observe(plan, shown, work, self.connection)
        finally:
            self._unpin_if_done()

    def _writes(self, plan: Judged | None) -> bool:
        """Whether a statement needs the writing connection, which the session does not have."""
        writers = self.context.writers
        reading = plan is None or plan.reading or self.read_only
        return not (writers is None or reading or self._writer is not None or self._lease is None)

    async def _pin(self) -> None:
        """Take the writing connection, if the session does not have it."""
        if self._writer is None and self.context.writers is not None:
            self._writer = lease = await self.context.writers.acquire()
            self._reader, self.connection = self.connection, lease.connection

    def _unpin_if_done(self) -> None:
        """
        Release the writing connection, unless the block goes on with what is on it.

        That is a transaction, be it one that the text BEGIN or SAVEPOINT has opened, a temporary
        table, an attached database, or a setting: one client is one connection.
        """
        if self._writer is None or self.depth:
            return

        connection = self.connection

        if connection.cut or not (connection.in_transaction or connection.dirty):
            self._unpin()

    def _unpin(self) -> None:
        lease, self._writer = self._writer, None
        self.connection, self._reader = self._reader or GONE, None

        if lease is not None and self.context.writers is not None:
            self.context.writers.release(lease)

    def _check_connection(self, plan: Judged | None) -> None:
        """Refuse a query about the last statement, which ran on the writing connection, on a reader."""
        context = self.context

        if context.writers is None or plan is None or self._writer is not None:
            return

        if context.dialect.reads_connection(plan.sql):
            message = (
                "the statement is about the one before it, which ran on another connection: run both inside "
                "begin() or atomic(), or use what insert() or execute() returned"
            )
            raise UnsupportedStatement(message, sql=plan.sql)

    async def _observe(
        self,
        plan: Judged | None,
        shown: str,
        work: Callable[[SqlConnection], Awaitable[T]],
        connection: SqlConnection,
    ) -> T:
        self.guard(plan, connection)
        context = self.context
        start = time.monotonic() if context.watched else 0.0

        try:
            return await context.limited(work(connection), shown)
        except TransactionConflict as error:
            self.note_conflict(connection, error)
            raise
        finally:
            if context.watched:
                context.log(shown, time.monotonic() - start)

    def _is_plain(self) -> bool:
        context = self.context
        return not (
            self.restricted or self._lock is not None or context.watched or context.writers is not None
        )


def refused(plan: Judged, what: str, remedy: str) -> UsageError:
    """Return the error of a change by a client, or in a block, that only reads."""
    kind = plan.kind.upper() or "the statement"
    message = f"this {what} only reads, and {kind} may change data: {remedy} without read_only"
    return UsageError(message, sql=plan.sql)


class _Gone:
    """Stands for the session or connection of a client whose block has not begun, or has ended."""

    def __getattr__(self, name: str) -> Any:
        message = "this client's block has ended: take a new client with get_client()"
        raise UsageError(message)

    def __setattr__(self, name: str, value: object) -> None:
        self.__getattr__(name)


GONE: Any = _Gone()  # Any: it stands for a session and for a connection
