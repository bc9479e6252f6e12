"""What a client is before it has any verbs: a connection held for a block, and statements run over it."""

from __future__ import annotations

import asyncio
import time
from asyncio import current_task
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from ws_pool._sql.compile.compiler import Compiler, Prepared
from ws_pool._sql.compile.defaults import fill_in
from ws_pool._sql.compile.parameters import Statement, bind_parameters
from ws_pool._sql.compile.plan import CompiledPlan, Plan, TextPlan
from ws_pool._sql.connection import Reply, SqlConnection
from ws_pool._sql.mysql.connector import MysqlConnection
from ws_pool._sql.task_lock import TaskLock
from ws_pool._sql.transaction import Transaction
from ws_pool.errors import TransactionConflict, UnsupportedStatement, UsageError
from ws_pool.pool import Lease, Pool

if TYPE_CHECKING:
    from ws_pool._sql.pool import SqlPool

__all__ = ("Session", "Statement")

_DEADLOCK = 1213
_OFTEN = 10  # runs after which a query is worth preparing, where the driver can do that
T = TypeVar("T")


class Session:
    """
    A connection of a pool, held for the length of an ``async with`` block.

    Args:
        pool: Where the connection comes from.
        alone: Take a connection of its own even inside another block of the same task.
        read_only: Refuse changes; the connection may be a replica's.
    """

    __slots__ = (
        "_alone",
        "_compiler",
        "_doomed",
        "_lease",
        "_lock",
        "_outer",
        "_plain",
        "_pool",
        "_root",
        "_row_type",
        "_source",
        "_task",
        "_transaction_task",
        "connection",
        "depth",
        "read_only",
        "restricted",
        "savepoints",
    )

    def __init__(self, pool: SqlPool, alone: bool, read_only: bool) -> None:  # noqa: FBT001 - made by the pool only
        self._pool = pool
        self._alone = alone
        self.read_only: bool = read_only
        self._lease: Lease[Any] | None = None
        self._lock: TaskLock | None = None
        self._root: Session = self  # whose connection, transaction and turns these are
        self._transaction_task: asyncio.Task[Any] | None = None
        self.savepoints: int = 0
        self._row_type = pool.row_type
        self.connection: SqlConnection = _GONE
        self._compiler: Compiler = _GONE
        self.depth: int = 0
        self._doomed: bool = False
        self.restricted: bool = False  # by a block that only reads, whose transaction may write
        self._plain = not read_only and self._is_plain()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of pool {self._pool.name!r}>"

    async def __aenter__(self) -> Self:
        pool = self._pool
        task = current_task()

        bound: Session | None = None

        if not self._alone:
            bound = pool.bound.get(task)

            if bound is not None and self.read_only == bound.read_only:
                return cast("Self", bound)

            if bound is not None and self.read_only:
                return self._look_through(bound)

        if self._lease is not None:
            raise self._begun_before()

        if pool.untaught:
            await pool._learn()

        self._source: Pool[Any] = pool.source
        self._lease = lease = await (pool._choose(self) if self.read_only else self._source.acquire())
        self.connection = lease.connection
        self._compiler = pool.compiler

        if not self._alone:
            self._task = task
            self._outer = bound  # one that only reads, in a block of which this one writes
            pool.bound[task] = self

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease = self._lease

        if lease is None:  # the block was that of the client of an outer block
            if self._root is not self:
                self._root = self
                self.connection = _GONE

            return

        if self.depth:  # a transaction that was begun and never ended: the reset rolls it back
            self.depth = 0
            self._ended()

        self._lease = None
        self.connection = _GONE

        if not self._alone:
            outer, self._outer = self._outer, None
            self._pool.bound.unbind(self, self._task, outer if outer is not None and outer._begun else None)

        self._source.release(lease)

    @property
    def raw(self) -> Any:
        """The driver's own connection. The session is reset when the block ends."""
        connection = self._root.connection
        connection.dirty = True
        return connection.raw

    @property
    def _begun(self) -> bool:
        """Whether the client's block has begun and not ended."""
        return self._root._lease is not None

    @property
    def in_transaction(self) -> bool:
        """Whether a `begin` or `atomic` block is open."""
        return self._root.depth > 0

    def _draw_from(self, source: Pool[Any]) -> None:
        """
        Note where the connection comes from, when it is not the pool's usual source.

        Args:
            source: Where it goes back to.
        """
        self._source = source

    def begin(
        self, *, isolation: str | None = None, read_only: bool = False, savepoint: bool = True
    ) -> Transaction:
        """
        Open a transaction for the length of a block; inside of another one, a savepoint.

        Args:
            isolation: ``READ COMMITTED`` and so on, for this transaction only.
            read_only: Have the server refuse changes; inside of a transaction that may write, the
                client itself refuses them.
            savepoint: False joins an outer transaction without a savepoint.

        Returns:
            An async context manager: leaving it commits, an error or a cancellation rolls back.
        """
        return Transaction(self._root, isolation=isolation, read_only=read_only, savepoint=savepoint)

    def share(self) -> Self:
        """
        Let other tasks use this client while its block lasts: from now on they wait for each other.

        Without it, two tasks that use one client at the same time get a `ConnectionBusy` error. A
        transaction belongs to the task that began it: what others run meanwhile is part of it, but
        they cannot begin one. An iteration keeps the others waiting until it ends.

        Returns:
            The client itself.
        """
        root = self._root

        if root._lock is None:
            root._lock = TaskLock()
            root._plain = False

        return self

    # -- for transactions, defaults and bulk inserts -----------------------------------------------

    async def _control(self, sql: str, *, always: bool = False) -> None:
        """
        Run a statement of transaction control, for no longer than ``query_timeout``.

        Args:
            sql: Without placeholders.
            always: Also when the server has rolled the transaction back.
        """
        if always:
            self._doomed = False

        await self._in_turn(None, sql, self.connection.run, sql, None)

    def _turn(self) -> AbstractAsyncContextManager[object]:
        """Keep other tasks away from a shared client for several statements."""
        lock = self._root._lock
        return nullcontext() if lock is None else lock

    async def _begin_outermost(self, isolation: str | None, *, read_only: bool) -> None:
        """
        Open a transaction where none is.

        Args:
            isolation: Its level, or None for the session's.
            read_only: Whether changes are refused.
        """
        self._doomed = False

        connection = self.connection
        dirty = connection.dirty

        if isolation is not None:
            connection.dirty = True  # the level stays until a transaction has begun with it
            await self._control(f"SET TRANSACTION ISOLATION LEVEL {isolation}")

        await self._control("START TRANSACTION READ ONLY" if read_only else "BEGIN")
        connection.dirty = dirty
        self._transaction_task = current_task()

    def _check_own(self) -> None:
        """
        Refuse a transaction inside that of another task.

        Raises:
            UsageError: The client is shared, and another task's transaction is open.
        """
        if self._lock is not None and self.depth and self._transaction_task is not current_task():
            message = (
                "another task's transaction is open on this shared client, and a transaction belongs to one "
                "task: take a client of its own in each task"
            )
            raise UsageError(message)

    @property
    def _patience(self) -> float:
        """Seconds that a rollback may take when its block has failed: the pool's ``ping_timeout``."""
        return self._source.ping_timeout

    def _ended(self) -> None:
        """Book the end of the outermost transaction."""
        self._doomed = self.restricted = False
        self._transaction_task = None
        self._plain = self._is_plain()

    def _restrict(self, restricted: bool) -> None:  # noqa: FBT001 - it is all there is to say
        """
        Refuse changes from now on, or no longer.

        Args:
            restricted: Whether to refuse them.
        """
        self.restricted = restricted
        self._plain = not self._doomed and self._is_plain()

    async def _scalar(self, sql: str, values: Sequence[Any]) -> Any:
        """
        Run a query in the driver's own style, and give its one value.

        Args:
            sql: The query.
            values: Its values.
        """
        reply = await self._in_turn(TextPlan(sql), sql, self.connection.run, sql, list(values) or None)
        return reply.rows[0][0] if reply.rows else None

    async def _insert_written(self, sql: str, shown: str) -> int:
        """
        Run an INSERT that has its values in it.

        Args:
            sql: The statement.
            shown: The statement without values, for logs and errors.

        Returns:
            How many rows it inserted.
        """
        connection = cast("MysqlConnection", self.connection)
        return (await self._in_turn(TextPlan(shown), shown, connection.run_written, sql, shown)).rowcount

    # -- inside ----------------------------------------------------------------------------------

    async def _run(
        self, statement: Statement, args: Sequence[Any], params: Mapping[str, Any]
    ) -> tuple[Plan, Reply]:
        plan, sql, values = bind_parameters(self._compiler, statement, args, params)

        if sql is None:
            sql, values = await self._complete(plan, values)

        return plan, await self._send(plan, sql, values, isinstance(statement, Prepared))

    async def _send(self, plan: Plan, sql: str, values: Sequence[Any] | None, prepared: bool) -> Reply:  # noqa: FBT001 - it is part of the statement
        if plan.quick:
            plan.runs += _OFTEN + 1 if prepared else 1

        if not self._plain:
            return await self._perform(plan, sql, values)

        connection = self.connection

        if not plan.clean:
            connection.dirty = True

        run = connection.run if plan.runs <= _OFTEN else connection.run_prepared

        try:
            return await run(sql, values)
        except TransactionConflict as error:
            self._conflict(connection, error)
            raise

    async def _perform(self, plan: Plan, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a statement on the connection that it belongs to, with all that may have to be observed."""
        connection = self._root.connection
        run = connection.run if plan.runs <= _OFTEN else connection.run_prepared
        return await self._in_turn(plan, sql, run, sql, values)

    async def _exchange(self, connection: SqlConnection, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a statement that was judged before, on a connection that was chosen for it."""
        return await self._in_turn(None, sql, connection.run, sql, values)

    async def _complete(self, plan: Plan, by_name: dict[str, Any]) -> tuple[str, Sequence[Any] | None]:
        compiled = cast("CompiledPlan", plan)
        await fill_in(compiled, self._compiler.dialect, [by_name], self._scalar)
        return compiled.arrange(by_name)

    async def _run_many(self, statement: Statement, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run a statement once for each set of parameters, all or nothing."""
        if not rows:
            return 0

        if isinstance(statement, Prepared):
            statement = statement.statement

        compiler = self._compiler
        plan, binds, _ = compiler.plan(statement, rows[0], many=True)

        if not isinstance(plan, CompiledPlan) or plan.expanding:
            message = "this statement cannot run once per set of parameters: run it in a loop"
            raise UnsupportedStatement(message)

        named = [plan.named(binds, row) for row in rows]

        if plan.defaults:
            await fill_in(plan, compiler.dialect, named, self._scalar)

        values = [plan.arrange(row)[1] or () for row in named]
        return await self._run_rows(plan, plan.sql, values)

    async def _run_rows(self, plan: Plan, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """
        Run one statement once per row of values, all or nothing.

        Args:
            plan: The statement's plan.
            sql: Its text for the driver.
            values: The rows.
        """
        self._check(plan)

        async with self._turn():  # first: the transaction that is open now may be another task's, ending soon
            if self.in_transaction:
                return await self._in_turn(plan, sql, self.connection.run_many, sql, values)

            async with self.begin():
                return await self._in_turn(plan, sql, self.connection.run_many, sql, values)

    def _is_plain(self) -> bool:
        """Tell whether statements need nothing but to be run."""
        return not (self.read_only or self.restricted or self._lock is not None or self._pool.watched)

    def _look_through(self, outer: Session) -> Self:
        """Read over the connection of an outer block's client, inside its transaction; refuse changes."""
        if self._root is not self:
            raise self._begun_before()

        self._root = outer
        self.connection = outer.connection
        self._compiler = outer._compiler
        return self

    def _begun_before(self) -> UsageError:
        message = "this client's block has begun before: call get_client() for each block"
        return UsageError(message)

    def _check(self, plan: Plan) -> None:
        """Refuse changes by a client, or in a block, that only reads."""
        if (self.read_only or self._root.restricted) and not plan.reading:
            what = plan.kind.upper() or "the statement"
            who, other = ("client", "take one") if self.read_only else ("block", "make it one")
            message = f"this {who} only reads, and {what} may change data: {other} without read_only"
            raise UsageError(message, sql=plan.sql)

    def _guard(self, plan: Plan | None) -> SqlConnection:
        """
        Refuse what must not run now, and note what may be left behind; nothing runs without it.

        Statements of a client in its usual state don't come here: `_plain` says that nothing can be
        refused, and what is left behind is noted in `_run`.

        Args:
            plan: The statement's plan; None for transaction control.
        """
        root = self._root

        if root._doomed and root.depth:
            message = "the server has rolled this transaction back because of a conflict: run it again"
            raise TransactionConflict(message)

        connection = root.connection

        if plan is not None:
            self._check(plan)

            if not plan.clean:
                connection.dirty = True

        return connection

    async def _in_turn(
        self, plan: Plan | None, shown: str, run: Callable[..., Awaitable[T]], *args: object
    ) -> T:
        """
        Run something over the connection when it is this task's turn, with all that has to be observed.

        Args:
            plan: As for `_guard`.
            shown: The statement without values, for the log.
            run: What to run.
            *args: What to give it.
        """
        if self._root._lock is None:
            return await self._observed(plan, shown, run, args)

        async with self._turn():
            return await self._observed(plan, shown, run, args)

    async def _observed(
        self, plan: Plan | None, shown: str, run: Callable[..., Awaitable[T]], args: Sequence[object]
    ) -> T:
        connection = self._guard(plan)
        pool = self._pool
        start = time.monotonic() if pool.watched else 0.0

        try:
            return await pool._limited(run(*args), shown)
        except TransactionConflict as error:
            self._conflict(connection, error)
            raise
        finally:
            if pool.watched:
                pool._watch(shown, time.monotonic() - start)

    def _conflict(self, connection: SqlConnection, error: TransactionConflict) -> None:
        """Remember that the server has rolled back, so that nothing runs outside of it unnoticed."""
        root = self._root

        if root.depth and (error.errno == _DEADLOCK or not connection.in_transaction):
            root._doomed = True
            root._plain = False


class _Gone:
    """Stands for the connection of a client whose block has ended."""

    def __getattr__(self, name: str) -> Any:
        message = "this client's block has ended: take a new client with get_client()"
        raise UsageError(message)

    def __setattr__(self, name: str, value: object) -> None:
        self.__getattr__(name)


_GONE: Any = _Gone()  # Any: it stands for a connection
