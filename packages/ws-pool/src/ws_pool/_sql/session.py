"""One connection, held for a client's block: what may run on it now, and the transaction on it."""

from __future__ import annotations

import asyncio
import time
from asyncio import current_task
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, TypeVar, cast

from ws_pool._sql.compile.plan import Plan, refused
from ws_pool._sql.connection import Reply, SqlConnection
from ws_pool._sql.context import Routing, SessionContext, Source
from ws_pool._sql.task_lock import TaskLock
from ws_pool._sql.tenants import Tenants
from ws_pool.errors import QueryError, TransactionConflict, UsageError, WsError
from ws_pool.pool import Lease

T = TypeVar("T")


class Session:
    """
    A connection of a pool, from the beginning of a client's block to its end.

    Statements run through `run`; `plain` says that nothing has to be observed or refused, so that
    a client may call the connection itself.
    """

    __slots__ = (
        "_confirmed",
        "_lease",
        "_lock",
        "_routing",
        "_source",
        "_transaction_task",
        "by_text",
        "connection",
        "context",
        "depth",
        "doomed",
        "ended_by",
        "isolation",
        "plain",
        "read_only",
        "restricted",
        "savepoints",
        "tenant",
    )

    def __init__(
        self, context: SessionContext, source: Source, lease: Lease[Any], *, read_only: bool
    ) -> None:
        self.context = context
        self.connection: SqlConnection = lease.connection
        self.read_only = read_only
        self.restricted: bool = False  # by a block that only reads, inside a transaction that may write
        self.doomed: bool = False  # the server has ended the transaction, and its block does not know yet
        self.ended_by: Plan | None = None  # the statement that did it, unless it was a conflict
        self.by_text: bool = False  # whether a transaction is open that was begun as text, by no block
        self.depth: int = 0
        self.isolation: str | None = None  # of the open transaction, when it is known
        self.savepoints: int = 0
        self._confirmed = False  # whether the server, or a proxy before it, says that a transaction is open
        self._source = source
        self._lease: Lease[Any] | None = lease
        self._lock: TaskLock | None = None
        self._transaction_task: asyncio.Task[Any] | None = None
        # Where there is one: a client that only reads needs no writing connection.
        self._routing: Routing | None = None if context.route is None else context.route()
        self.tenant: str | None = None
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

        if self._routing is not None:
            self._routing.unpin(self.connection, always=True)

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

    async def run(self, plan: Plan | None, shown: str, work: Callable[[SqlConnection], Awaitable[T]]) -> T:
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

    async def scalar(self, plan: Plan, values: Sequence[Any]) -> Any:
        """Run a query in the driver's own style, and return its one value."""
        reply = await self.run(
            plan, plan.sql, lambda connection: connection.run(plan.sql, list(values) or None)
        )
        return reply.rows[0][0] if reply.rows else None

    async def run_many(self, plan: Plan, values: Sequence[Sequence[Any]]) -> int:
        """Run a statement once per row of values, inside an open transaction."""
        return await self.run(plan, plan.sql, lambda connection: connection.run_many(plan.sql, values))

    async def run_literal(self, plan: Plan, sql: str) -> int:
        """Run a statement with its values in it; logs and errors show that of the plan, without them."""

        async def work(connection: SqlConnection) -> Reply:
            try:
                return await connection.run(sql, None)
            except WsError as error:
                error.context["sql"] = plan.sql
                raise

        return (await self.run(plan, plan.sql, work)).rowcount

    @asynccontextmanager
    async def stream(self, plan: Plan) -> AsyncIterator[SqlConnection]:
        """Keep the connection of a statement, and other tasks away from it, for several exchanges."""
        async with self.turn():
            await self._choose(plan)
            connection = self.guard(plan, self.connection)

            try:
                yield connection
            except QueryError as error:
                self.note_error(connection, error)
                raise
            else:
                self.check_transaction(plan, connection)
            finally:
                self._unpin_if_done()

    def guard(self, plan: Plan | None, connection: SqlConnection) -> SqlConnection:
        """
        Refuse what must not run now, and note what may be left behind; nothing runs without it.

        A session in its usual state is `plain`: nothing can be refused, and its client notes what is
        left behind.
        """
        if self.doomed and self.depth:
            raise self.doom()

        if plan is not None:
            self.check(plan)

            if not self.depth and self._transaction_tenant is not None:
                raise cast("Tenants", self.context.tenants).outside_transaction(self._transaction_tenant)

            if not plan.clean:
                connection.dirty = True

        return connection

    @property
    def _transaction_tenant(self) -> str | None:
        """The tenant that only a transaction can be put into, if the session has such a one."""
        tenants = self.context.tenants
        return self.tenant if tenants is not None and tenants.per_transaction else None

    async def enter(self, tenants: Tenants, tenant: str) -> None:
        """Put the session into a tenant's database or schema, or have its transactions begin there."""
        self.tenant = tenant
        self.plain = self._is_plain()

        try:
            await tenants.enter(self.connection, tenant)
        except BaseException:
            self.close()
            raise

    def lose_transaction(self) -> None:
        """Note that the server has ended the transaction, so that nothing runs outside of it unnoticed."""
        if self.depth:
            self.doomed = True
            self.plain = False

    def check(self, plan: Plan) -> None:
        """Refuse changes in a block that only reads."""
        if self.restricted and not plan.reading:
            raise refused(plan, "block", "make it one")

    def check_open(self) -> None:
        """Refuse to go on with an iteration when the client's block has ended."""
        if self.connection is GONE:
            raise _outside()

    def check_control(self, plan: Plan) -> None:
        """Refuse what would end the transaction of a block, so that nothing of it runs outside."""
        if self.depth:
            message = (
                f"{plan.kind.upper()} would end the transaction of this begin() or atomic() block, which "
                "could not be undone any more: run it outside of the block, whose end commits or rolls back"
            )
            raise UsageError(message, sql=plan.sql)

    def check_transaction(self, plan: Plan, connection: SqlConnection) -> None:
        """Report a statement that has ended the transaction all the same, as a procedure may."""
        if plan.ends:  # which is not run in a block
            self.by_text = connection.in_transaction

        if self.depth and self._confirmed and not (plan.reading or self.doomed or connection.in_transaction):
            self.lose_transaction()
            self.ended_by = plan
            raise self.doom()

    def doom(self) -> WsError:
        """Return the error of what was about to run, or to be committed, when the transaction has ended."""
        if self.ended_by is None:
            message = "the server has rolled this transaction back because of a conflict: run it again"
            return TransactionConflict(message)

        message = (
            f"{self.ended_by.kind.upper()} has ended the transaction of this begin() or atomic() block: the "
            "server has committed or undone what ran before it, and nothing more runs in the block"
        )
        return UsageError(message, sql=self.ended_by.sql)

    def note_error(self, connection: SqlConnection, error: QueryError) -> None:
        """Remember that the server has rolled back, so that nothing runs outside of it unnoticed."""
        # A deadlock ends the transaction whatever the server's status says of it; of other errors
        # (a lock timeout, SQLite's OR ROLLBACK) the status decides: the statement was undone alone, or all.
        conflict = isinstance(error, TransactionConflict)
        ended = not connection.in_transaction and (conflict or self._confirmed)

        if ended or (conflict and self.context.dialect.ends_transaction(error)):
            self.lose_transaction()

    # -- the transaction: see ws_pool._sql.transaction ---------------------------------------------

    async def control(self, sql: str, *, always: bool = False) -> None:
        """Run a statement of transaction control; ``always`` also when the server has rolled back."""
        if always:
            self.doomed = False

        await self.run(None, sql, lambda connection: connection.run(sql, None))

    async def begin_outermost(self, isolation: str | None, *, read_only: bool) -> None:
        """Open a transaction where none is: on the writing connection, if it may write and there is one."""
        context = self.context
        tenants = context.tenants

        if self.by_text and self.connection.in_transaction:  # MySQL would commit it
            message = "a transaction that was begun as text is open on this client: end it before this block"
            raise UsageError(message)

        statements = context.dialect.begin(isolation, read_only=read_only or self.read_only)
        self.doomed, self.ended_by = False, None

        if self._routing is not None and not (read_only or self.read_only):
            self.connection = await self._routing.pin(self.connection)

        connection = self.connection
        dirty = connection.dirty
        connection.dirty = dirty or len(statements) > 1  # a level stays until a transaction has begun with it

        try:
            for statement in statements:
                await self.control(statement)

            if tenants is not None and (local := tenants.local_statement(self.tenant)) is not None:
                await self.control(local)
        except BaseException:
            self.end_transaction()
            raise

        connection.dirty = dirty
        self.isolation = isolation or context.dialect.only_isolation
        self._confirmed = connection.in_transaction
        self._transaction_task = current_task()

        if read_only and not context.dialect.refuses_changes:
            self.set_restricted(restricted=True)

    def check_own(self) -> None:
        """Refuse a transaction inside that of another task, on a shared session."""
        if self._lock is not None and self.depth and self._transaction_task is not current_task():
            message = (
                "another task's transaction is open on this shared client, and a transaction belongs to one "
                "task: take a client of its own in each task"
            )
            raise UsageError(message)

    def set_restricted(self, *, restricted: bool) -> None:
        """Refuse changes from now on, or no longer."""
        self.restricted = restricted
        self.plain = not self.doomed and self._is_plain()

    def end_transaction(self) -> None:
        """Note the end of the outermost transaction; the writing connection goes back."""
        self.doomed = self.restricted = False
        self.ended_by = self.isolation = None
        self._transaction_task = None
        self.plain = self._is_plain()
        self._unpin_if_done()

    # -- inside ------------------------------------------------------------------------------------

    async def _route(self, plan: Plan | None, shown: str, work: Callable[[SqlConnection], Awaitable[T]]) -> T:
        """Run a statement on the session's connection, or a change outside a transaction on a writer's."""
        if self._routing is None:
            return await self._observe(plan, shown, work, self.connection)

        await self._choose(plan)

        try:
            return await self._observe(plan, shown, work, self.connection)
        finally:
            self._unpin_if_done()

    async def _choose(self, plan: Plan | None) -> None:
        """Take the writing connection for a change, if the session does not have it."""
        routing = self._routing

        if routing is None:
            return

        if plan is not None:
            routing.check(plan.sql)

        # Not inside of a transaction, which has the writing connection from its beginning, or only reads:
        # a change would be made outside of it.
        if not (self.depth or self.read_only) and routing.needs_writer(plan) and self._lease is not None:
            self.connection = await routing.pin(self.connection)

    def _unpin_if_done(self) -> None:
        """Release the writing connection, unless the block goes on with what is on it."""
        if self._routing is not None and not self.depth:
            self.connection = self._routing.unpin(self.connection)

    async def _observe(
        self,
        plan: Plan | None,
        shown: str,
        work: Callable[[SqlConnection], Awaitable[T]],
        connection: SqlConnection,
    ) -> T:
        self.guard(plan, connection)
        context = self.context
        start = time.monotonic() if context.watched else 0.0

        try:
            result = await context.limited(work(connection), shown)
        except BaseException as error:
            if isinstance(error, QueryError):
                self.note_error(connection, error)

            if context.watched:
                context.report(shown, time.monotonic() - start, error)

            raise

        if context.watched:
            context.report(shown, time.monotonic() - start, None)

        if plan is not None:
            self.check_transaction(plan, connection)

        return result

    def _is_plain(self) -> bool:
        context = self.context
        return not (
            self.restricted
            or self._lock is not None
            or context.watched
            or context.route is not None
            or self._transaction_tenant is not None
        )


def begun_before() -> UsageError:
    """Return the error of a client whose block is entered twice."""
    message = "this client's block has begun before: call get_client() for each block"
    return UsageError(message)


def _outside() -> UsageError:
    """Return the error of a client, or of its iteration, whose block has not begun or has ended."""
    message = "this client is outside of its block: take one by `async with pool.get_client() as client:`"
    return UsageError(message)


class _Gone:
    """Stands for the session or connection of a client whose block has not begun, or has ended."""

    def __getattr__(self, name: str) -> Any:
        raise _outside()

    def __setattr__(self, name: str, value: object) -> None:
        self.__getattr__(name)


GONE: Any = _Gone()  # Any: it stands for a session and for a connection
