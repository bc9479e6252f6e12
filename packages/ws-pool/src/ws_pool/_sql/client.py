"""The client that SQL pools return: statements in, rows and counts out."""

from __future__ import annotations

import asyncio
import time
from asyncio import current_task
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeVar, TypeVarTuple, cast, overload

from sqlalchemy.schema import MetaData, Table
from sqlalchemy.sql.selectable import TypedReturnsRows as Typed

from ws_pool._sql.bulk_insert import insert_in_batches
from ws_pool._sql.compile.compiler import Compiler, CompilerSource, Prepared, plan_for
from ws_pool._sql.compile.counting import countable, counted
from ws_pool._sql.compile.defaults import fill_in
from ws_pool._sql.compile.parameters import Statement, bind_parameters
from ws_pool._sql.compile.plan import CompiledPlan, Plan, refused
from ws_pool._sql.connection import Reply, SqlConnection
from ws_pool._sql.context import SessionContext
from ws_pool._sql.gc_pause import gc_paused
from ws_pool._sql.iteration import RowIterator
from ws_pool._sql.many import as_mappings, bind_many, check_positive, run_each, run_whole
from ws_pool._sql.orm import JoinedSession
from ws_pool._sql.results import Result, last_id, make_rows, select_large, several
from ws_pool._sql.rows import Row, check_row_type
from ws_pool._sql.session import GONE, Session, begun_before
from ws_pool._sql.transaction import Transaction
from ws_pool.errors import QueryError, UnsupportedStatement

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SqlClient:
    """
    Runs statements over one connection, held for the length of an ``async with`` block.

    A statement is a SQLAlchemy Core construct, a handle of ``pool.prepare``, or a string. Its parameters
    are ``params`` by name (``:name`` or ``%(name)s`` in a string) or, as ``args``, one mapping; for a
    string also values by position in the driver's own style (``%s``, of SQLite ``?``, of PostgreSQL ``$1``).
    ``row_type`` is `dict` for rows as dicts and `tuple` for plain tuples; `Row` is the default.
    """

    __slots__ = (
        "_alone",
        "_bound",
        "_compiler",
        "_compilers",
        "_context",
        "_outer",
        "_own",
        "_schemas",
        "_session",
        "_task",
        "read_only",
    )

    def __init__(
        self,
        context: SessionContext,
        compilers: CompilerSource,
        *,
        alone: bool,
        read_only: bool,
        schemas: Mapping[str | None, str | None] | None = None,
    ) -> None:
        self.read_only: bool = read_only
        self._context = context
        self._compilers = compilers
        self._alone = alone
        self._schemas = schemas
        self._session: Session = GONE  # where statements run
        self._own: Session | None = None  # the same, unless it is that of an outer block's client
        self._compiler: Compiler = GONE
        self._task: asyncio.Task[Any] | None = None
        self._outer: SqlClient | None = None
        self._bound = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of pool {self._context.name!r}>"

    async def __aenter__(self) -> Self:
        context = self._context
        task = current_task()
        outer: Self | None = None if self._alone else context.bound.get(task)
        tenants = context.tenants

        if outer is not None and (joined := await self._join(task, outer)) is not None:
            return joined

        if self._session is not GONE:
            raise begun_before()

        # Otherwise it takes a connection. That of an outer block may be here too, when that only
        # reads: its connection may be a replica's, so a writer inside of it needs its own.
        compiler = self._compilers.compiler

        if compiler is None:
            compiler = await self._compilers.learn()

        if self._schemas is not None:
            compiler = compiler.translated(self._schemas)

        tenant = None if tenants is None else await tenants.find()
        source, lease = await context.acquire(read_only=self.read_only)
        session = Session(context, source, lease, read_only=self.read_only)

        if tenants is not None and tenant is not None:
            await session.enter(tenants, tenant)

        self._compiler, self._session, self._own = compiler, session, session

        if not self._alone:
            self._bind_to(task, outer)

        return self

    async def __aexit__(self, *_: object) -> None:
        self._session = GONE
        own, self._own = self._own, None

        if self._bound:
            self._bound = False
            outer, self._outer = self._outer, None

            if outer is not None and outer._session is GONE:  # noqa: SLF001 - a client as well, whose block has ended
                outer = None

            self._context.bound.unbind(self, self._task, outer)

        if own is not None:  # otherwise the session is that of the client of an outer block
            own.close()

    @property
    def connection(self) -> SqlConnection:
        """The connection that statements run on at the moment."""
        return self._session.connection

    @property
    def raw(self) -> Any:
        """The driver's own connection. The session is reset when the block ends."""
        connection = self._session.connection
        connection.dirty = True
        return connection.raw

    @property
    def in_transaction(self) -> bool:
        """Whether a `begin` or `atomic` block is open."""
        return self._session is not GONE and self._session.depth > 0

    def begin(
        self, *, isolation: str | None = None, read_only: bool = False, savepoint: bool = True
    ) -> Transaction:
        """
        Open a transaction for the length of a block; inside of another one, a savepoint.

        ``isolation`` is ``READ COMMITTED`` and so on, for this transaction only. With ``read_only``
        the server refuses changes; inside of a transaction that may write, the client itself does.
        ``savepoint=False`` joins an outer transaction without a savepoint.

        Leaving the block commits, an error or a cancellation rolls back.
        """
        return Transaction(self._session, isolation=isolation, read_only=read_only, savepoint=savepoint)

    def orm_session(self, **options: Any) -> JoinedSession:
        """
        Return an ORM session inside this client's transaction, for the length of an ``async with`` block.

        Its ``commit()`` is that of a savepoint: all of it is kept, or undone, with the transaction.
        A deadlock is a `TransactionConflict`, as from the client's own statements.

        ``options`` are those of SQLAlchemy's `AsyncSession`, without ``bind``.
        """
        return JoinedSession(self._session, self._context.dialect, self._context.join, options)

    def share(self) -> Self:
        """
        Let other tasks use this client while its block lasts: from now on they wait for each other.

        Without it, two tasks that use one client at the same time get a `ConnectionBusy` error. A
        transaction belongs to the task that began it: what others run meanwhile is part of it, but
        they cannot begin one. An iteration keeps the others waiting until it ends.
        """
        self._session.share()
        return self

    async def execute(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> Result:
        """
        Run any statement, and return its rows, counts and last id.

        A sequence of mappings in the place of ``args`` runs it once for each, all or nothing.
        """
        check_row_type(row_type)
        many = several(args)

        if many is not None and len(many) > 1:
            many = as_mappings(many, "execute")
            kind = row_type or self._context.row_type
            bound = bind_many(self._session, self._compiler, statement, many[0], read_only=self.read_only)
            return await run_each(self._session, self._compiler, bound, many, kind)

        if many is not None:
            args = (many[0],)  # once: so it has its id

        plan, sql, values = await self._bind(statement, args, params)
        reply = await self._send(plan, sql, values, prepared=isinstance(statement, Prepared))
        more = tuple(Result(self._rows(plan, other, row_type), other.rowcount, 0) for other in reply.more)
        return Result(self._rows(plan, reply, row_type), reply.rowcount, last_id(plan, reply, values), more)

    @overload
    async def select(
        self, statement: Typed[*Ts], *args: Any, row_type: None = None, **params: Any
    ) -> list[Row[tuple[*Ts]]]: ...

    @overload
    async def select(
        self, statement: Prepared[T], *args: Any, row_type: None = None, **params: Any
    ) -> list[Row[T]]: ...

    @overload
    async def select(
        self, statement: Statement, *args: Any, row_type: type[dict[Any, Any]], **params: Any
    ) -> list[dict[str, Any]]: ...

    @overload
    async def select(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> list[Any]: ...

    async def select(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> list[Any]:
        """Run a query, and return all its rows."""
        session = self._session

        if row_type is not None:
            check_row_type(row_type)

        # The usual case of a service, a handle and nothing to refuse, goes straight to the connection.
        if session.plain and type(statement) is Prepared and not args:
            plan = plan_for(statement, self._compiler, params)

            if (
                type(plan) is CompiledPlan
                and plan.direct is not None
                and plan.quick
                and not (statement.own or plan.large)
            ):
                connection = session.connection

                try:
                    reply = await connection.run_prepared(plan.sql, plan.values(statement.binds, params))
                except QueryError as error:
                    session.note_error(connection, error)
                    raise

                return self._rows(plan, reply, row_type)

        plan, sql, values = await self._bind(statement, args, params)
        prepared = isinstance(statement, Prepared)

        if plan.large and plan.quick:
            with gc_paused():
                kind = row_type or self._context.row_type
                return await select_large(self._session, plan, sql, values, kind, prepared=prepared)

        reply = await self._send(plan, sql, values, prepared=prepared)
        return self._rows(plan, reply, row_type)

    @overload
    async def find(
        self, statement: Typed[*Ts], *args: Any, row_type: None = None, **params: Any
    ) -> Row[tuple[*Ts]] | None: ...

    @overload
    async def find(
        self, statement: Prepared[T], *args: Any, row_type: None = None, **params: Any
    ) -> Row[T] | None: ...

    @overload
    async def find(
        self, statement: Statement, *args: Any, row_type: type[dict[Any, Any]], **params: Any
    ) -> dict[str, Any] | None: ...

    @overload
    async def find(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> Any: ...

    async def find(
        self, statement: Statement, *args: Any, row_type: type | None = None, **params: Any
    ) -> Any:
        """
        Run a query, and return its first row, or None when there is none.

        The query is run as it is: add a LIMIT to one that finds many.
        """
        if type(statement) is Prepared and not args:  # of few rows, as a rule, and select() is short for it
            rows = await self.select(statement, row_type=row_type, **params)
            return rows[0] if rows else None

        check_row_type(row_type)
        plan, sql, values = await self._bind(statement, args, params)
        reply = await self._send(plan, sql, values, prepared=isinstance(statement, Prepared))
        first = Reply(reply.rows[:1] if reply.rows else None, reply.description, 1, 0)
        return next(iter(self._rows(plan, first, row_type)), None)

    async def count(self, statement: Statement | Table, *args: Any, **params: Any) -> int:
        """Count the rows of a query, as for `select`, or of a table."""
        query = countable(statement)
        plan, sql, values = await self._bind(query, args, params)
        text = sql if isinstance(statement, Table) else counted(sql)

        try:
            reply = await self._send(plan, text, values, prepared=False)
        except QueryError as error:
            if isinstance(statement, Table) or not self._context.dialect.is_duplicate_column(error):
                raise

            # The server refuses a query with two columns of one name inside another: count as they come.
            return sum([1 async for _ in self.iterate(query, *args, row_type=tuple, **params)])

        return int(reply.rows[0][0]) if reply.rows else 0

    async def insert(self, statement: Statement | Table, *args: Any, **params: Any) -> int:
        """
        Insert a row, and return its AUTO_INCREMENT or INTEGER PRIMARY KEY value; 0 when there is none.

        The statement is an INSERT, or a table to insert the parameters into.
        """
        if isinstance(statement, Table):
            statement = statement.insert()

        plan, sql, values = await self._bind(statement, args, params)

        dialect = self._context.dialect
        in_text = not (isinstance(plan, CompiledPlan) and plan.from_table)

        if plan.hides_id and not (dialect.ids_beside_rows or (in_text and dialect.text_returns_ids)):
            message = "insert() finds no id in what RETURNING returns: add its column, or use execute()"
            raise UnsupportedStatement(message, sql=plan.sql)

        return last_id(plan, await self._send(plan, sql, values, prepared=False), values)

    async def update(self, statement: Statement, *args: Any, **params: Any) -> int:
        """Update rows as `execute` does, and return how many matched, whether they changed or not."""
        return (await self.execute(statement, *args, **params)).rowcount

    async def delete(self, statement: Statement, *args: Any, **params: Any) -> int:
        """Delete rows as `execute` does, and return how many."""
        return (await self.execute(statement, *args, **params)).rowcount

    async def insert_many(
        self, statement: Statement | Table, rows: Iterable[Mapping[str, Any]], *, batch: int = 10_000
    ) -> int:
        """
        Insert many rows with few statements, and return how many.

        Outside a transaction the rows are inserted in one of their own: all or none. The statement
        is an INSERT without values, or a table; the rows all have the same keys. ``batch`` is the
        most rows per statement, which stays below the server's packet size too.
        """
        insert: Statement = statement.insert() if isinstance(statement, Table) else statement
        rows = as_mappings(rows, "insert_many")
        check_positive("batch", batch)

        if not rows:
            return 0

        session, compiler = self._session, self._compiler
        bound = bind_many(session, compiler, insert, rows[0], read_only=self.read_only)
        return await run_whole(session, lambda: insert_in_batches(session, compiler, bound, rows, batch))

    def iterate(
        self, statement: Statement, *args: Any, size: int = 500, row_type: type | None = None, **params: Any
    ) -> RowIterator:
        """
        Run a query, and yield its rows as they come, without holding them all in memory.

        The connection can do nothing else until the iteration ends. After a ``break`` the next
        statement first reads what the server still sends of it; without one, the end of the block
        costs the connection. A ``query_timeout`` is for each wait for the server, not for all of the
        rows.

        ``size`` rows are fetched together.
        """
        check_row_type(row_type)
        check_positive("size", size)
        return RowIterator(self._iterate(statement, args, params, size, row_type))

    async def create_all(self, metadata: MetaData) -> None:
        """Create the tables of a metadata that do not exist yet, with their indexes."""
        for statement in self._context.dialect.create_statements(metadata, self._compiler.dialect):
            await self.execute(statement)

    async def drop_all(self, metadata: MetaData) -> None:
        """Drop the tables of a metadata that exist."""
        for statement in self._context.dialect.drop_statements(metadata, self._compiler.dialect):
            await self.execute(statement)

    async def _join(self, task: asyncio.Task[Any] | None, outer: Self) -> Self | None:
        """Go into the block of the same task's other client; return None when that is not possible."""
        if self._context.tenants is not None:
            await self._context.tenants.check_same(outer._session.tenant)

        # There are three cases. Inside another block of the same task, the block is that block's:
        # all calls of a task share one connection, and so one transaction.
        same = self._schemas is None or self._schemas == outer._schemas

        if outer.read_only == self.read_only and same:
            return outer

        if self._session is not GONE:
            raise begun_before()

        if outer.read_only and not self.read_only:
            return None

        # A reader inside a writer's block looks through: it reads over the writer's connection,
        # since a replica would not know what the transaction has changed so far. So does a client with
        # other schemas, which is the task's own until its block ends.
        compiler = outer._compiler
        self._compiler = compiler if self._schemas is None else compiler.translated(self._schemas)
        self._session = outer._session

        if self.read_only == outer.read_only:
            self._bind_to(task, outer)

        return self

    def _bind_to(self, task: asyncio.Task[Any] | None, outer: SqlClient | None) -> None:
        """Be the task's client until the block ends."""
        self._task, self._outer, self._bound = task, outer, True
        self._context.bound[task] = self

    async def _bind(
        self, statement: Statement, args: Sequence[Any], params: Mapping[str, Any]
    ) -> tuple[Plan, str, Sequence[Any] | None]:
        """Turn a statement and its parameters into text and values; all but bulk ones come here."""
        plan, sql, values = bind_parameters(self._compiler, statement, args, params)

        if self.read_only and not plan.reading:
            raise refused(plan, "client", "take one")

        if plan.ends:
            self._session.check_control(plan)

        if sql is None:
            compiled = cast("CompiledPlan", plan)
            await fill_in(compiled, self._compiler, [values], self._session.scalar)
            sql, values = compiled.arrange(values)

        return plan, sql, values

    async def _send(self, plan: Plan, sql: str, values: Sequence[Any] | None, *, prepared: bool) -> Reply:
        session = self._session
        prepared = prepared and plan.quick

        if not session.plain:
            return await session.run(
                plan, sql, lambda to: to.run_prepared(sql, values) if prepared else to.run(sql, values)
            )

        connection = session.connection

        if not plan.clean:
            connection.dirty = True

        try:
            reply = await (connection.run_prepared(sql, values) if prepared else connection.run(sql, values))
        except QueryError as error:
            session.note_error(connection, error)
            raise

        session.check_transaction(plan, connection)
        return reply

    async def _iterate(
        self,
        statement: Statement,
        args: Sequence[Any],
        params: Mapping[str, Any],
        size: int,
        row_type: type | None,
    ) -> AsyncGenerator[list[Any], None]:
        """Run a query, and yield its rows in blocks."""
        plan, sql, values = await self._bind(statement, args, params)
        context, session = self._context, self._session
        make = row_type or context.row_type
        spent = 0.0

        async with session.stream(plan) as connection:
            stream = cast("Any", connection.stream(sql, values, size))  # Any: a generator, which has aclose()

            try:
                async with aclosing(stream):
                    while True:
                        session.check_open()
                        start = time.monotonic()

                        try:
                            reply = await context.limited(anext(stream, None), sql)
                        finally:
                            spent += time.monotonic() - start

                        if reply is None:
                            break

                        yield plan.row_maker(reply.description).many(reply.rows, make)
            except BaseException as error:
                context.report(sql, spent, None if isinstance(error, GeneratorExit) else error)
                raise

            context.report(sql, spent, None)

    def _rows(self, plan: Plan, reply: Reply, row_type: type | None) -> list[Any]:
        return make_rows(plan, reply, row_type or self._context.row_type)
