"""What `MysqlPool` and `SqlitePool` have in common."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import text as text_clause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, ExecutableDDLElement, Table

from ws_core.component import Health
from ws_pool._core.statistics import PoolStatistics
from ws_pool._sql.atomic import Atomic
from ws_pool._sql.client import Result, SqlClient, Statement
from ws_pool._sql.compile.compiler import Compiler, Prepared
from ws_pool._sql.engine import learn_dialect
from ws_pool._sql.options import SqlOptions
from ws_pool._sql.session import Session
from ws_pool.context import TaskBinding
from ws_pool.errors import NotReadyError, QueryTimeout, UnavailableError
from ws_pool.pool import Lease, Pool

__all__ = ("SqlPool", "make_pool")

logger = logging.getLogger("ws_pool.sql")

T = TypeVar("T")

_REFUSED = frozenset({1044, 1045, 1049, 1698})  # the server's numbers for a wrong user, password or database


class SqlPool(ABC):
    """
    A pool of SQL connections: the part that does not depend on the database.

    Args:
        name: The pool's name.
        options: Checked options; see `ws_pool.mysql.MysqlPool` for what they mean.
    """

    def __init__(self, name: str, options: SqlOptions) -> None:
        self.name = name
        self.row_type: type | None = options.row_type
        self.client_class: type[SqlClient] = SqlClient
        self.bound: TaskBinding[Session] = TaskBinding()
        self.source: Pool[Any]
        self.untaught: bool = True
        self._packet_limit: int = 1 << 20  # bytes; learned from the server
        self._slow: float | None = options.slow_query
        self._echo = options.echo
        self._cache_size = options.cache_size
        self._compiler: Compiler | None = None
        self._learning: asyncio.Lock | None = None
        self._limit: float | None = options.query_timeout
        self.watched: bool = self._echo or self._slow is not None or self._limit is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def compiler(self) -> Compiler:
        """
        What compiles the statements.

        Raises:
            NotReadyError: No connection was made yet, so that the server is unknown.
        """
        if self._compiler is None:
            message = f"pool {self.name!r} is not started: use `async with` or await its start()"
            raise NotReadyError(message, pool=self.name)

        return self._compiler

    @abstractmethod
    async def start(self) -> None:
        """Start; on an error nothing is left behind."""

    @abstractmethod
    async def close(self, *, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - leases get time to drain
        """
        Close all connections; may be called again.

        Args:
            timeout: Seconds for clients in use to come back.
        """

    def get_client(self, *, alone: bool = False, read_only: bool = False) -> SqlClient:
        """
        Give a client for the length of a block.

        Inside another block of the same task it is that block's client, so that all of a task's
        calls share one connection and one transaction. Child tasks get connections of their own.

        Args:
            alone: Take a connection of its own even inside another block.
            read_only: Refuse changes; the client may come from a replica.

        Returns:
            The client; it can be used inside ``async with``.
        """
        return self.client_class(self, alone, read_only)

    def prepare(self, statement: Statement) -> Prepared:
        """
        Compile a statement once and for all. It may be called before the start.

        Args:
            statement: A Core statement with `bindparam`, or a string with ``:name`` parameters.

        Returns:
            A handle for all methods that take a statement.
        """
        if isinstance(statement, Prepared):
            return statement

        return Prepared(text_clause(statement) if isinstance(statement, str) else statement)

    def atomic(
        self,
        *,
        savepoint: bool = True,
        isolation: str | None = None,
        retry_deadlocks: int = 0,
        read_only: bool = False,
    ) -> Atomic:
        """
        Run a block or a function in a transaction; see `ws_pool.atomic`.

        Args:
            savepoint: Whether an inner block is a savepoint, or a part of the outer one.
            isolation: The isolation level of the outermost block.
            retry_deadlocks: How often a decorated function is run again after a conflict.
            read_only: Have the server refuse changes.

        Returns:
            An async context manager that gives the client, and a decorator for coroutine functions.
        """
        return Atomic(
            lambda: self,
            savepoint=savepoint,
            isolation=isolation,
            retry_deadlocks=retry_deadlocks,
            read_only=read_only,
        )

    async def execute(self, statement: Statement, *args: Any, **params: Any) -> Result:
        """Run any statement; see `SqlClient.execute`."""
        async with self.get_client() as client:
            return await client.execute(statement, *args, **params)

    async def select(self, statement: Statement, *args: Any, **params: Any) -> list[Any]:
        """Run a query and give its rows; see `SqlClient.select`."""
        async with self.get_client() as client:
            return await client.select(statement, *args, **params)

    async def find(self, statement: Statement, *args: Any, **params: Any) -> Any:
        """Run a query and give its first row; see `SqlClient.find`."""
        async with self.get_client() as client:
            return await client.find(statement, *args, **params)

    async def count(self, statement: Statement | Table, *args: Any, **params: Any) -> int:
        """Count the rows of a query; see `SqlClient.count`."""
        async with self.get_client() as client:
            return await client.count(statement, *args, **params)

    async def insert(self, statement: Statement | Table, *args: Any, **params: Any) -> int:
        """Insert a row and give its id; see `SqlClient.insert`."""
        async with self.get_client() as client:
            return await client.insert(statement, *args, **params)

    async def update(self, statement: Statement, *args: Any, **params: Any) -> int:
        """Update rows and give how many matched; see `SqlClient.update`."""
        async with self.get_client() as client:
            return await client.update(statement, *args, **params)

    async def delete(self, statement: Statement, *args: Any, **params: Any) -> int:
        """Delete rows and give how many; see `SqlClient.delete`."""
        async with self.get_client() as client:
            return await client.delete(statement, *args, **params)

    async def insert_many(
        self, statement: Statement | Table, rows: Iterable[Mapping[str, Any]], **options: Any
    ) -> int:
        """Insert many rows; see `SqlClient.insert_many`."""
        async with self.get_client() as client:
            return await client.insert_many(statement, rows, **options)

    async def create_all(self, metadata: Any) -> None:
        """Create the tables of a metadata that do not exist; see `SqlClient.create_all`."""
        async with self.get_client() as client:
            await client.create_all(metadata)

    @abstractmethod
    def engine(self, **options: Any) -> Any:
        """
        Give a SQLAlchemy `AsyncEngine` whose sessions hold connections of this pool.

        Args:
            **options: For `create_async_engine`; those that choose a pool are ours.

        Returns:
            The engine.
        """

    @abstractmethod
    async def health(self) -> Health:
        """Ask the server over a connection of the pool."""

    @abstractmethod
    def statistics(self) -> PoolStatistics:
        """Give a frozen snapshot of the pool."""

    @abstractmethod
    def expire(self) -> None:
        """Replace all connections: idle ones now, those in use when they come back."""

    # -- for the client --------------------------------------------------------------------------

    async def _choose(self, session: Session) -> Lease[Any]:
        """
        Take a connection for a client that only reads.

        Args:
            session: The client; it is told where its connection comes from when that is unusual.

        Returns:
            The connection's lease.
        """
        session._draw_from(self.source)
        return await self.source.acquire()

    async def _learn(self) -> None:
        """
        Have the server's version and modes known before the first statement is compiled.

        Raises:
            UnavailableError: The server went away meanwhile.
        """
        if self._learning is None:
            self._learning = asyncio.Lock()

        async with self._learning:
            if self._compiler is None:
                try:
                    dialect = await learn_dialect(self.engine())
                except DBAPIError as error:
                    message = f"pool {self.name!r} lost its server while it was starting: {error.orig}"
                    raise UnavailableError(message, pool=self.name) from error

                self._packet_limit = await self._learn_limit()
                self._compiler = Compiler(dialect, self._cache_size)
                self.untaught = False

    async def _learn_limit(self) -> int:
        """Ask for the greatest statement in bytes that the server takes."""
        return self._packet_limit

    async def _limited(self, work: Awaitable[T], sql: str) -> T:
        """
        Wait for a statement, though not for longer than was asked for.

        Args:
            work: The statement at work; its connection cannot be used after it was cancelled.
            sql: The statement with placeholders.

        Returns:
            The work's result.

        Raises:
            QueryTimeout: It took longer than ``query_timeout``.
        """
        if self._limit is None:
            return await work

        limit = asyncio.timeout(self._limit)

        try:
            async with limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise

            message = f"pool {self.name!r}: a statement took longer than query_timeout, {self._limit:g} s"
            raise QueryTimeout(message, pool=self.name, sql=sql) from None

    def _watch(self, sql: str, seconds: float) -> None:
        """
        Log a statement that was run, when that was asked for. Values never get here.

        Args:
            sql: The statement with placeholders.
            seconds: How long it took.
        """
        if self._echo:
            logger.info("pool %r: %.1f ms: %s", self.name, seconds * 1e3, sql)

        if self._slow is not None and seconds >= self._slow:
            logger.warning("pool %r: slow query, %.3f s: %s", self.name, seconds, sql)

    def _index_statements(self, table: Table) -> Sequence[ExecutableDDLElement]:
        """
        Give what creates a table's indexes that are not part of its CREATE TABLE.

        Args:
            table: The table.
        """
        return [
            CreateIndex(index, if_not_exists=True)
            for index in sorted(table.indexes, key=lambda i: str(i.name))
        ]


def make_pool(
    connector: Any, name: str, options: SqlOptions, *, is_lost: Callable[[Any], bool] | None = None
) -> Pool[Any]:
    """Return the pool of connections under a SQL pool."""
    return Pool(
        connector,
        name=name,
        min_size=options.min_size,
        max_size=options.max_size,
        acquire_timeout=options.acquire_timeout,
        max_connecting=options.max_connecting,
        ping_after=options.ping_after,
        ping_timeout=options.ping_timeout,
        max_lifetime=options.max_lifetime,
        max_idle=options.max_idle,
        leak_threshold=options.leak_threshold,
        on_open=options.on_open,
        on_acquire=options.on_acquire,
        on_release=options.on_release,
        on_close=options.on_close,
        connect_timeout=getattr(options, "connect_timeout", 5.0),
        is_refusal=_is_refusal,
        is_lost=is_lost,
    )


def _is_refusal(error: BaseException) -> bool:
    """Tell whether the server is there and does not want us."""
    return bool(error.args) and error.args[0] in _REFUSED
