"""The client that `MysqlPool` and `SqlitePool` give: statements in, rows and counts out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import func, select
from sqlalchemy.schema import CreateTable, DropTable, MetaData, Table
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import SelectBase

from ws_pool._sql.bulk import insert_in_batches
from ws_pool._sql.compiler import Compiler, Prepared
from ws_pool._sql.connection import Reply, SqlConnection
from ws_pool._sql.defaults import fill_in
from ws_pool._sql.mysql_connector import MysqlConnection
from ws_pool._sql.plan import CompiledPlan, Plan
from ws_pool._sql.transaction import Transaction
from ws_pool.errors import TransactionConflict, UnsupportedStatement, UsageError

if TYPE_CHECKING:
    from ws_pool._sql.pool import SqlPool

__all__ = ("Result", "SqlClient", "Statement")

logger = logging.getLogger("ws_pool.sql")

Statement = ClauseElement | Prepared | str
Parameters = Mapping[str, Any] | Sequence[Any]  # Any: parameters are whatever their columns take
_DEADLOCK = 1213


@dataclass(frozen=True, slots=True)
class Result:
    """
    What `SqlClient.execute` gives.

    Args:
        rows: The rows; empty for a statement that has none.
        rowcount: Rows found, matched by an UPDATE, deleted or inserted.
        last_id: The value of the AUTO_INCREMENT or INTEGER PRIMARY KEY column of an insert, or 0.
    """

    rows: list[Any]
    rowcount: int
    last_id: int


class SqlClient:
    """
    Runs statements over one connection.

    A statement is a SQLAlchemy Core construct, a handle of ``pool.prepare``, or a string.
    Parameters are given as keywords or as one mapping (``:name`` or ``%(name)s`` in a string), or
    by position in the driver's own style (``%s`` for MySQL, ``?`` for SQLite) for a string.
    """

    __slots__ = ("_lock", "_pool", "_row_type", "connection", "depth", "doomed", "read_only")

    def __init__(self, pool: SqlPool, connection: SqlConnection, *, read_only: bool = False) -> None:
        self._pool = pool
        self._row_type = pool.row_type
        self._lock: asyncio.Lock | None = None
        self.connection = connection
        self.read_only = read_only
        self.depth = 0
        self.doomed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of pool {self._pool.name!r}>"

    @property
    def raw(self) -> Any:
        """The driver's own connection. The session is reset when the block ends."""
        self.connection.dirty = True
        return self.connection.raw

    @property
    def in_transaction(self) -> bool:
        """Whether a `begin` or `atomic` block is open."""
        return self.depth > 0

    async def execute(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> Result:
        """
        Run any statement.

        Args:
            statement: What to run.
            *args: One mapping, a sequence of mappings to run it once for each, or values by position.
            row_type: `dict` for rows as dicts.
            **params: Parameters by name.

        Returns:
            Rows, counts and the last id.
        """
        many = _many(args)

        if many is not None:
            return Result([], await self._run_many(statement, many), 0)

        plan, reply = await self._run(statement, args, params)
        return Result(self._rows(plan, reply, row_type), reply.rowcount, reply.last_id)

    async def select(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> list[Any]:
        """
        Run a query.

        Args:
            statement: What to run.
            *args: One mapping, or values by position.
            row_type: `dict` for rows as dicts.
            **params: Parameters by name.

        Returns:
            All rows.
        """
        plan, reply = await self._run(statement, args, params)
        return self._rows(plan, reply, row_type)

    async def find(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> Any:
        """
        Run a query and give its first row.

        Args:
            statement: What to run. It is run as it is: put a LIMIT to one that finds many.
            *args: One mapping, or values by position.
            row_type: `dict` for a dict.
            **params: Parameters by name.

        Returns:
            The row, or None when there is none.
        """
        plan, reply = await self._run(statement, args, params)

        if not reply.rows:
            return None

        return self._rows(plan, Reply(reply.rows[:1], reply.description, 1, 0), row_type)[0]

    async def count(self, statement: Statement | Table, *args: Any, **params: Any) -> int:
        """
        Count the rows that a query would give.

        Args:
            statement: Any query, as for `select`, or a table.
            *args: One mapping, or values by position.
            **params: Parameters by name.

        Returns:
            How many.
        """
        counting: Statement

        if isinstance(statement, Prepared):
            statement = statement.statement

        if isinstance(statement, str):
            plain = statement.strip().rstrip(";")
            counting = f"SELECT COUNT(*) AS n FROM ({plain}) AS counted"  # noqa: S608 - the caller's own statement
        elif isinstance(statement, Table):
            counting = select(func.count().label("n")).select_from(statement)
        elif isinstance(statement, SelectBase):
            query = cast("Any", statement)  # Any: not every query has an order, which is asked for first
            inner = query.order_by(None) if _order_is_moot(statement) else query
            counting = select(func.count().label("n")).select_from(inner.subquery("counted"))
        else:
            message = f"count() takes a query or a table, not a {type(statement).__name__}"
            raise UsageError(message)

        _, reply = await self._run(counting, args, params)
        return int(reply.rows[0][0]) if reply.rows else 0

    async def insert(self, statement: Statement | Table, *args: Any, **params: Any) -> int:
        """
        Insert a row.

        Args:
            statement: An INSERT, or a table to insert the parameters into.
            *args: One mapping, or values by position.
            **params: Parameters by name.

        Returns:
            The new row's AUTO_INCREMENT or INTEGER PRIMARY KEY value; 0 when there is none.
        """
        if isinstance(statement, Table):
            statement = statement.insert()

        _, reply = await self._run(statement, args, params)
        return reply.last_id

    async def update(self, statement: Statement, *args: Any, **params: Any) -> int:
        """
        Update rows.

        Args:
            statement: An UPDATE.
            *args: One mapping, a sequence of mappings to run it once for each, or values by position.
            **params: Parameters by name.

        Returns:
            How many rows matched, whether they changed or not.
        """
        return (await self.execute(statement, *args, **params)).rowcount

    async def delete(self, statement: Statement, *args: Any, **params: Any) -> int:
        """
        Delete rows.

        Args:
            statement: A DELETE.
            *args: One mapping, a sequence of mappings to run it once for each, or values by position.
            **params: Parameters by name.

        Returns:
            How many rows were deleted.
        """
        return (await self.execute(statement, *args, **params)).rowcount

    async def insert_many(
        self, statement: Statement | Table, rows: Iterable[Mapping[str, Any]], *, batch: int = 1000
    ) -> int:
        """
        Insert many rows with few statements.

        Outside a transaction the rows are inserted in one of their own: all or none.

        Args:
            statement: An INSERT without values, or a table.
            rows: The rows, all with the same keys.
            batch: Most rows per statement; a statement stays below the server's packet size too.

        Returns:
            How many rows were inserted.
        """
        if isinstance(statement, Table):
            statement = statement.insert()

        rows = list(rows)

        if not rows:
            return 0

        if self.depth:
            return await insert_in_batches(self, statement, rows, batch)

        async with self.begin():
            return await insert_in_batches(self, statement, rows, batch)

    async def iterate(
        self, statement: Statement, *args: Any, size: int = 500, row_type: type | None = None, **params: Any
    ) -> AsyncIterator[Any]:
        """
        Run a query and give its rows as they come, without holding them all in memory.

        The connection can do nothing else until the iteration ends. An iteration that is left
        early costs the connection; use `contextlib.aclosing` to leave it at a known moment.

        Args:
            statement: What to run.
            *args: One mapping, or values by position.
            size: Rows fetched together.
            row_type: `dict` for rows as dicts.
            **params: Parameters by name.

        Yields:
            The rows.
        """
        plan, sql, values = await self._resolve(statement, args, params)
        make = row_type or self._row_type
        self._check(plan)
        stream = cast(
            "Any", self.connection.stream(sql, values, size)
        )  # Any: a generator, which has aclose()

        async with aclosing(stream):
            async for reply in stream:
                for row in plan.row_maker(reply.description).many(reply.rows, make):
                    yield row

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

    def share(self) -> SqlClient:
        """
        Let other tasks use this client while its block lasts: from now on they wait for each other.

        Without it, two tasks that use one client at the same time get a `ConnectionBusy` error.

        Returns:
            The client itself.
        """
        if self._lock is None:
            self._lock = asyncio.Lock()

        return self

    async def create_all(self, metadata: MetaData) -> None:
        """
        Create the tables of a metadata that do not exist yet, with their indexes.

        Args:
            metadata: Has the tables.
        """
        for table in metadata.sorted_tables:
            await self._create(table)

    async def drop_all(self, metadata: MetaData) -> None:
        """
        Drop the tables of a metadata that exist.

        Args:
            metadata: Has the tables.
        """
        for table in reversed(metadata.sorted_tables):
            await self.execute(DropTable(table, if_exists=True))

    # -- for the transaction and the bulk insert -------------------------------------------------

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

    @property
    def compiler(self) -> Compiler:
        """What compiles the pool's statements."""
        return self._pool.compiler

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

        if self._lock is None:
            return (await connection.run_written(sql, shown)).rowcount

        async with self._lock:
            return (await connection.run_written(sql, shown)).rowcount

    # -- inside ----------------------------------------------------------------------------------

    async def _run(
        self, statement: Statement, args: Sequence[Any], params: Mapping[str, Any]
    ) -> tuple[Plan, Reply]:
        plan, sql, values = await self._resolve(statement, args, params)
        return plan, await self._perform(plan, sql, values)

    async def _perform(self, plan: Plan, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a statement on the connection that it belongs to."""
        self._check(plan)
        connection = self.connection

        if not plan.clean:
            connection.dirty = True

        return await self._exchange(connection, sql, values)

    async def _resolve(
        self, statement: Statement, args: Sequence[Any], params: Mapping[str, Any]
    ) -> tuple[Plan, str, Sequence[Any] | None]:
        """Turn a statement and its parameters into text and values for the driver."""
        named: Mapping[str, Any] | None = params or None

        if args:
            if len(args) == 1 and isinstance(args[0], Mapping):
                named = {**args[0], **params}
            elif isinstance(statement, str):
                if params:
                    message = "give a string's values by position or by name, not both"
                    raise UsageError(message)

                plan, _, _ = self._pool.compiler.plan(statement, None)
                values = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
                return plan, plan.sql, tuple(values)
            else:
                message = f"parameters of a Core statement are given by name, not as {type(args[0]).__name__}"
                raise UsageError(message)

        if isinstance(statement, Prepared):
            plan = statement.plan_for(self._pool.compiler, named)
            binds = statement.binds
        else:
            plan, binds, named = self._pool.compiler.plan(statement, named)

        if not isinstance(plan, CompiledPlan):
            return plan, plan.sql, None

        if not plan.defaults and not plan.expanding:
            return plan, plan.sql, plan.values(binds, named)

        values_by_name = plan.named(binds, named)

        if plan.defaults:
            await fill_in(plan, self._pool.compiler.dialect, [values_by_name], self.scalar)

        return plan, *plan.arrange(values_by_name)

    async def _run_many(self, statement: Statement, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run a statement once for each set of parameters, all or nothing."""
        if not rows:
            return 0

        if isinstance(statement, Prepared):
            statement = statement.statement

        compiler = self._pool.compiler
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

        if self._lock is None:
            return await connection.run_many(sql, values)

        async with self._lock:
            return await connection.run_many(sql, values)

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

            if self._pool.watched:
                return await self._timed(connection, sql, values)

            return await connection.run(sql, values)
        except TransactionConflict as error:
            self.doomed = self.depth > 0 and (error.errno == _DEADLOCK or not connection.in_transaction)
            raise

    async def _timed(self, connection: SqlConnection, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a statement, and log it when that was asked for; never its values."""
        start = time.monotonic()

        try:
            return await connection.run(sql, values)
        finally:
            self._pool.watch(sql, time.monotonic() - start)

    def _rows(self, plan: Plan, reply: Reply, row_type: type | None) -> list[Any]:
        if not reply.rows or reply.description is None:
            return []

        return plan.row_maker(reply.description).many(reply.rows, row_type or self._row_type)

    async def _create(self, table: Table) -> None:
        await self.execute(CreateTable(table, if_not_exists=True))
        creatable = self._pool.index_statements(table)

        for statement in creatable:
            await self.execute(statement)


def _many(args: Sequence[Any]) -> Sequence[Mapping[str, Any]] | None:
    """Recognise a sequence of mappings."""
    if len(args) == 1 and isinstance(args[0], list | tuple) and args[0] and isinstance(args[0][0], Mapping):
        return args[0]

    return None


def _order_is_moot(statement: Any) -> bool:
    """Tell whether a query's order cannot matter for how many rows it has."""
    return (
        hasattr(statement, "order_by")
        and getattr(statement, "_limit_clause", None) is None
        and getattr(statement, "_offset_clause", None) is None
        and getattr(statement, "_fetch_clause", None) is None
        and not getattr(statement, "_distinct_on", ())
    )
