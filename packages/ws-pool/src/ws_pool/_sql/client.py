"""The client that `MysqlPool` and `SqlitePool` give: statements in, rows and counts out."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import TextClause, func, select, text
from sqlalchemy.schema import CreateTable, DropTable, MetaData, Table
from sqlalchemy.sql.selectable import SelectBase

from ws_pool._sql.bulk_insert import insert_in_batches
from ws_pool._sql.compile.compiler import Prepared
from ws_pool._sql.compile.parameters import Statement, bind_parameters
from ws_pool._sql.compile.plan import CompiledPlan, Plan
from ws_pool._sql.connection import Reply
from ws_pool._sql.gc_pause import GcPaused
from ws_pool._sql.session import Session
from ws_pool.errors import QueryError, TransactionConflict, UsageError

__all__ = ("Result", "SqlClient", "Statement")

_LARGE = 1_000  # rows from which a query's result is read in blocks when it runs next
_BLOCK = 1_000  # rows in a block
_DUPLICATE_NAME = 1060  # MySQL's "Duplicate column name"


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


class SqlClient(Session):
    """
    Runs statements over one connection.

    A statement is a SQLAlchemy Core construct, a handle of ``pool.prepare``, or a string.
    Parameters are given as keywords or as one mapping (``:name`` or ``%(name)s`` in a string), or
    by position in the driver's own style (``%s`` for MySQL, ``?`` for SQLite) for a string.
    """

    __slots__ = ()

    async def execute(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> Result:
        """
        Run any statement.

        Args:
            statement: What to run.
            *args: One mapping, a sequence of mappings to run it once for each, or values by position.
            row_type: `dict` for rows as dicts, `tuple` for plain tuples.
            **params: Parameters by name.

        Returns:
            Rows, counts and the last id.
        """
        many = _many(args)

        if many is not None:
            return Result([], await self._run_many(statement, many), 0)

        plan, reply = await self._run(statement, args, params)
        return Result(self._rows(plan, reply, row_type), reply.rowcount, _last_id(plan, reply))

    async def select(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> list[Any]:
        """
        Run a query.

        Args:
            statement: What to run.
            *args: One mapping, or values by position.
            row_type: `dict` for rows as dicts, `tuple` for plain tuples.
            **params: Parameters by name.

        Returns:
            All rows.
        """
        if self._plain and type(statement) is Prepared and not args:
            plan = statement._plan_for(self._compiler, params)

            if (
                type(plan) is CompiledPlan
                and plan.direct is not None
                and plan.quick
                and not (statement.own or plan.large)
            ):
                # the usual case of a service, without a detour
                connection = self.connection

                try:
                    reply = await connection.run_prepared(plan.sql, plan.values(statement.binds, params))
                except TransactionConflict as error:
                    self._conflict(connection, error)
                    raise

                return self._rows(plan, reply, row_type)

        plan, sql, values = bind_parameters(self._compiler, statement, args, params)

        if sql is None:
            sql, values = await self._complete(plan, values)

        if plan.large and plan.quick:
            with GcPaused():
                return await self._select_many(plan, sql, values, row_type)

        return self._rows(
            plan, await self._send(plan, sql, values, isinstance(statement, Prepared)), row_type
        )

    async def find(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> Any:
        """
        Run a query and give its first row.

        Args:
            statement: What to run. It is run as it is: put a LIMIT to one that finds many.
            *args: One mapping, or values by position.
            row_type: `dict` for a dict, `tuple` for a plain tuple.
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
            counting = _counted(statement)
        elif isinstance(statement, TextClause):
            counting = text(_counted(statement.text)).bindparams(
                *statement._bindparams.values()
            )  # no public way to see them
        elif isinstance(statement, Table):
            counting = select(func.count().label("n")).select_from(statement)
        elif isinstance(statement, SelectBase):
            query = cast("Any", statement)  # Any: not every query has an order, which is asked for first
            inner = query.order_by(None) if _order_is_moot(statement) else query
            counting = select(func.count().label("n")).select_from(inner.subquery("counted"))
        else:
            message = f"count() takes a query or a table, not a {type(statement).__name__}"
            raise UsageError(message)

        try:
            _, reply = await self._run(counting, args, params)
        except QueryError as error:
            if error.context.get("errno") != _DUPLICATE_NAME or isinstance(statement, Table):
                raise  # otherwise the server takes no query with two columns of one name inside of another

            rows = self.iterate(statement, *args, row_type=tuple, **params)
            total = 0

            async for _ in rows:
                total += 1

            return total

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

        plan, reply = await self._run(statement, args, params)
        return _last_id(plan, reply)

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
        self, statement: Statement | Table, rows: Iterable[Mapping[str, Any]], *, batch: int = 10_000
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

        async with self._turn():  # first: the transaction that is open now may be another task's, ending soon
            if self.in_transaction:
                return await insert_in_batches(self, statement, rows, batch)

            async with self.begin():
                return await insert_in_batches(self, statement, rows, batch)

    async def iterate(
        self, statement: Statement, *args: Any, size: int = 500, row_type: type | None = None, **params: Any
    ) -> AsyncGenerator[Any, None]:
        """
        Run a query and give its rows as they come, without holding them all in memory.

        The connection can do nothing else until the iteration ends. An iteration that is left
        early costs the connection; use `contextlib.aclosing` to leave it at a known moment. A
        ``query_timeout`` is for each wait for the server, not for all of the rows.

        Args:
            statement: What to run.
            *args: One mapping, or values by position.
            size: Rows fetched together.
            row_type: `dict` for rows as dicts, `tuple` for plain tuples.
            **params: Parameters by name.

        Yields:
            The rows.
        """
        plan, sql, values = bind_parameters(self._compiler, statement, args, params)

        if sql is None:
            sql, values = await self._complete(plan, values)

        make = row_type or self._row_type
        spent = 0.0

        async with self._turn():
            connection = self._guard(plan)
            stream = cast("Any", connection.stream(sql, values, size))  # Any: a generator, which has aclose()

            try:
                async with aclosing(stream):
                    while True:
                        start = time.monotonic()
                        reply = await self._pool._limited(anext(stream, None), sql)
                        spent += time.monotonic() - start

                        if reply is None:
                            break

                        for row in plan.row_maker(reply.description).many(reply.rows, make):
                            yield row
            except TransactionConflict as error:
                self._conflict(connection, error)
                raise
            finally:
                if self._pool.watched:
                    self._pool._watch(sql, spent)

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

    def _rows(self, plan: Plan, reply: Reply, row_type: type | None) -> list[Any]:
        if not reply.rows or reply.description is None or plan.silent:
            return []

        if len(reply.rows) >= _LARGE:
            plan.large = True

        return plan.row_maker(reply.description).many(reply.rows, row_type or self._row_type)

    async def _select_many(
        self, plan: Plan, sql: str, values: Sequence[Any] | None, row_type: type | None
    ) -> list[Any]:
        """Run a query that gave many rows the last time."""
        row_type = row_type or self._row_type

        if row_type is tuple or not self._root.connection.gathers:
            rows = self._rows(plan, await self._perform(plan, sql, values), row_type)
        else:
            rows = await self._in_turn(plan, sql, self._gather, plan, sql, values, row_type)

        plan.large = len(rows) >= _LARGE
        return rows

    async def _gather(
        self, plan: Plan, sql: str, values: Sequence[Any] | None, row_type: type | None
    ) -> list[Any]:
        """Run a query, and make its rows while the server still sends others."""
        stream = cast("Any", self._root.connection.stream(sql, values, _BLOCK))  # Any: as in iterate()
        rows: list[Any] = []

        async with aclosing(stream):
            async for reply in stream:
                rows += plan.row_maker(reply.description).many(reply.rows, row_type)

        return rows

    async def _create(self, table: Table) -> None:
        await self.execute(CreateTable(table, if_not_exists=True))
        creatable = self._pool._index_statements(table)

        for statement in creatable:
            await self.execute(statement)


def _counted(sql: str) -> str:
    """Count what a query gives; the line breaks end a comment behind it."""
    plain = sql.strip().rstrip(";")
    return f"SELECT COUNT(*) AS n FROM (\n{plain}\n) AS counted"  # noqa: S608 - the caller's own statement


def _last_id(plan: Plan, reply: Reply) -> int:
    """Give the generated key; SQLite would give the number of any row, and of an earlier one if none came."""
    if reply.rowcount <= 0 or plan.kind not in {"insert", "replace"}:
        return 0

    known = isinstance(plan, CompiledPlan) and plan.from_table
    return 0 if known and not cast("CompiledPlan", plan).numbered else reply.last_id


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
