"""What a client is before it has any verbs: a connection held for a block, and statements run over it."""

from __future__ import annotations

import asyncio
import time
from asyncio import current_task
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from sqlalchemy.sql.elements import ClauseElement

from ws_pool._sql.compiler import Compiler, Prepared
from ws_pool._sql.connection import Reply, SqlConnection
from ws_pool._sql.defaults import fill_in
from ws_pool._sql.mysql_connector import MysqlConnection
from ws_pool._sql.plan import CompiledPlan, Plan
from ws_pool._sql.transaction import Transaction
from ws_pool.errors import TransactionConflict, UnsupportedStatement, UsageError
from ws_pool.pool import Lease, Pool

if TYPE_CHECKING:
    from ws_pool._sql.pool import SqlPool

__all__ = ("Session", "Statement")

Statement = ClauseElement | Prepared | str
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
        "_lease",
        "_lock",
        "_plain",
        "_pool",
        "_row_type",
        "_source",
        "_task",
        "connection",
        "depth",
        "doomed",
        "read_only",
    )

    def __init__(self, pool: SqlPool, alone: bool, read_only: bool) -> None:  # noqa: FBT001 - made by the pool only
        self._pool = pool
        self._alone = alone
        self.read_only: bool = read_only
        self._lease: Lease[Any] | None = None
        self._lock: asyncio.Lock | None = None
        self._row_type = pool.row_type
        self.connection: SqlConnection = _GONE
        self._compiler: Compiler = _GONE
        self.depth: int = 0
        self.doomed: bool = False
        self._plain = not read_only and self._is_plain()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of pool {self._pool.name!r}>"

    async def __aenter__(self) -> Self:
        pool = self._pool
        task = current_task()

        if not self._alone:
            bound = pool.bound.get(task)

            if bound is not None and (self.read_only or not bound.read_only):
                return cast("Self", bound)

        if self._lease is not None:
            message = "this client's block has begun before: call get_client() for each block"
            raise UsageError(message)

        if pool.untaught:
            await pool.learn()

        self._source: Pool[Any] = pool.source
        self._lease = lease = await (pool.choose(self) if self.read_only else self._source.acquire())
        self.connection = lease.connection
        self._compiler = pool.compiler

        if not self._alone:
            self._task = task
            pool.bound[task] = self

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease = self._lease

        if lease is None:
            return  # the block was that of the client of an outer block

        if self.depth:  # a transaction that was begun and never ended: the reset rolls it back
            self.depth = 0
            self.ended()

        self._lease = None
        self.connection = _GONE

        if not self._alone:
            self._pool.bound.unbind(self, self._task)

        self._source.release(lease)

    @property
    def raw(self) -> Any:
        """The driver's own connection. The session is reset when the block ends."""
        self.connection.dirty = True
        return self.connection.raw

    @property
    def begun(self) -> bool:
        """Whether the client's block has begun and not ended."""
        return self._lease is not None

    @property
    def in_transaction(self) -> bool:
        """Whether a `begin` or `atomic` block is open."""
        return self.depth > 0

    def draw_from(self, source: Pool[Any]) -> None:
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
            read_only: Have the server refuse changes.
            savepoint: False joins an outer transaction without a savepoint.

        Returns:
            An async context manager: leaving it commits, an error or a cancellation rolls back.
        """
        return Transaction(self, isolation=isolation, read_only=read_only, savepoint=savepoint)

    def share(self) -> Self:
        """
        Let other tasks use this client while its block lasts: from now on they wait for each other.

        Without it, two tasks that use one client at the same time get a `ConnectionBusy` error.

        Returns:
            The client itself.
        """
        if self._lock is None:
            self._lock = asyncio.Lock()
            self._plain = False

        return self

    # -- for transactions, defaults and bulk inserts -----------------------------------------------

    async def control(self, sql: str, *, always: bool = False) -> None:
        """
        Run a statement of transaction control.

        Args:
            sql: Without placeholders.
            always: Also when the server has rolled the transaction back.
        """
        if always:
            self.doomed = False

        await self._exchange(self.connection, sql, None)

    async def begin_outermost(self, isolation: str | None, *, read_only: bool) -> None:
        """
        Open a transaction where none is.

        Args:
            isolation: Its level, or None for the session's.
            read_only: Whether changes are refused.
        """
        self.doomed = False

        if isolation is not None:
            await self.control(f"SET TRANSACTION ISOLATION LEVEL {isolation}")

        await self.control("START TRANSACTION READ ONLY" if read_only else "BEGIN")

    def ended(self) -> None:
        """Book the end of the outermost transaction."""
        self.doomed = False
        self._plain = self._is_plain()

    @property
    def compiler(self) -> Compiler:
        """What compiles the pool's statements."""
        return self._compiler

    async def scalar(self, sql: str, values: Sequence[Any]) -> Any:
        """
        Run a query in the driver's own style, and give its one value.

        Args:
            sql: The query.
            values: Its values.
        """
        reply = await self._exchange(self.connection, sql, list(values) or None)
        return reply.rows[0][0] if reply.rows else None

    async def insert_written(self, sql: str, shown: str) -> int:
        """
        Run an INSERT that has its values in it.

        Args:
            sql: The statement.
            shown: The statement without values, for logs and errors.

        Returns:
            How many rows it inserted.
        """
        connection = cast("MysqlConnection", self.connection)
        return (await self._in_turn(connection.run_written(sql, shown))).rowcount

    # -- inside ----------------------------------------------------------------------------------

    async def _run(
        self, statement: Statement, args: Sequence[Any], params: Mapping[str, Any]
    ) -> tuple[Plan, Reply]:
        plan, sql, values = self._resolve(statement, args, params)

        if sql is None:
            sql, values = await self._complete(plan, values)

        if not self._plain:
            return plan, await self._perform(plan, sql, values)

        connection = self.connection

        if not plan.clean:
            connection.dirty = True

        run = connection.run

        if plan.quick:
            plan.runs += 1

            if plan.runs > _OFTEN or isinstance(statement, Prepared):
                run = connection.run_prepared

        try:
            return plan, await run(sql, values)
        except TransactionConflict as error:
            self._conflict(connection, error)
            raise

    async def _perform(self, plan: Plan, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a statement on the connection that it belongs to, with all that may have to be observed."""
        self._check(plan)
        connection = self.connection

        if not plan.clean:
            connection.dirty = True

        return await self._exchange(connection, sql, values)

    def _resolve(
        self, statement: Statement, args: Sequence[Any], params: Mapping[str, Any]
    ) -> tuple[Plan, Any, Any]:
        """
        Turn a statement and its parameters into text and values for the driver.

        The text is None when defaults have to be filled in first, which may need the server; the
        values are then those known so far, by name.
        """
        named: Mapping[str, Any] | None = params or None

        if args:
            if len(args) == 1 and isinstance(args[0], Mapping):
                named = {**args[0], **params}
            elif isinstance(statement, str):
                return self._positional(statement, args, params)
            else:
                message = f"parameters of a Core statement are given by name, not as {type(args[0]).__name__}"
                raise UsageError(message)

        if isinstance(statement, Prepared):
            plan = statement.plan_for(self._compiler, named)
            binds = statement.binds

            if statement.own:
                named = {**statement.own, **(named or {})}
        else:
            plan, binds, named = self._compiler.plan(statement, named)

        if not isinstance(plan, CompiledPlan):
            return plan, plan.sql, None

        if plan.direct is not None:
            return plan, plan.sql, plan.values(binds, named)

        by_name = plan.named(binds, named)
        return (plan, None, by_name) if plan.defaults else (plan, *plan.arrange(by_name))

    def _positional(self, sql: str, args: Sequence[Any], params: Mapping[str, Any]) -> tuple[Plan, Any, Any]:
        if params:
            message = "give a string's values by position or by name, not both"
            raise UsageError(message)

        plan, _, _ = self._compiler.plan(sql, None)
        values = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
        return plan, plan.sql, tuple(values)

    async def _complete(self, plan: Plan, by_name: dict[str, Any]) -> tuple[str, Sequence[Any] | None]:
        compiled = cast("CompiledPlan", plan)
        await fill_in(compiled, self._compiler.dialect, [by_name], self.scalar)
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
            await fill_in(plan, compiler.dialect, named, self.scalar)

        values = [plan.arrange(row)[1] or () for row in named]
        return await self.run_many(plan, plan.sql, values)

    async def run_many(self, plan: Plan, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """
        Run one statement once per row of values, all or nothing.

        Args:
            plan: The statement's plan.
            sql: Its text for the driver.
            values: The rows.
        """
        if not self.depth:
            async with self.begin():
                return await self.run_many(plan, sql, values)

        self._check(plan)
        connection = self.connection
        connection.dirty = connection.dirty or not plan.clean

        return await self._in_turn(connection.run_many(sql, values))

    def _is_plain(self) -> bool:
        """Tell whether statements need nothing but to be run."""
        return not (self.read_only or self._lock is not None or self._pool.watched)

    def _check(self, plan: Plan) -> None:
        """Refuse changes by a client that only reads."""
        if self.read_only and not plan.reading:
            what = plan.kind.upper() or "the statement"
            message = f"this client only reads, and {what} may change data: take one without read_only"
            raise UsageError(message, sql=plan.sql)

    async def _exchange(self, connection: SqlConnection, sql: str, values: Sequence[Any] | None) -> Reply:
        if self.doomed and self.depth:
            message = "the server has rolled this transaction back because of a conflict: run it again"
            raise TransactionConflict(message)

        try:
            if self._lock is not None:
                async with self._lock:
                    return await self._timed(connection, sql, values)

            return await self._timed(connection, sql, values)
        except TransactionConflict as error:
            self._conflict(connection, error)
            raise

    async def _in_turn(self, work: Coroutine[Any, Any, T]) -> T:
        """Run what the connection is asked for in one go, when it is this task's turn."""
        try:
            if self._lock is None:
                return await work

            async with self._lock:
                return await work
        except TransactionConflict as error:
            self._conflict(self.connection, error)
            raise
        finally:
            work.close()

    def _conflict(self, connection: SqlConnection, error: TransactionConflict) -> None:
        """Remember that the server has rolled back, so that nothing runs outside of it unnoticed."""
        if self.depth and (error.errno == _DEADLOCK or not connection.in_transaction):
            self.doomed = True
            self._plain = False

    async def _timed(self, connection: SqlConnection, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a statement, and log it when that was asked for; never its values."""
        if not self._pool.watched:
            return await connection.run(sql, values)

        start = time.monotonic()

        try:
            return await connection.run(sql, values)
        finally:
            self._pool.watch(sql, time.monotonic() - start)


class _Gone:
    """Stands for the connection of a client whose block has ended."""

    def __getattr__(self, name: str) -> Any:
        message = "this client's block has ended: take a new client with get_client()"
        raise UsageError(message)

    def __setattr__(self, name: str, value: object) -> None:
        self.__getattr__(name)


_GONE: Any = _Gone()  # Any: it stands for a connection
