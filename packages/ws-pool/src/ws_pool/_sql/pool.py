"""What `MysqlPool` and `SqlitePool` have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVarTuple, overload

from sqlalchemy import text as text_clause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.selectable import TypedReturnsRows as Typed

from ws_core.component import Health
from ws_pool._core.statistics import PoolStatistics
from ws_pool._sql.atomic import Atomic
from ws_pool._sql.client import SqlClient, Statement
from ws_pool._sql.compile.compiler import Compiler, CompilerSource, Prepared
from ws_pool._sql.context import SessionContext
from ws_pool._sql.dialect import SqlDialect
from ws_pool._sql.engine import learn_dialect
from ws_pool._sql.options import SqlOptions
from ws_pool._sql.verbs import SqlVerbs
from ws_pool.context import TaskBinding
from ws_pool.errors import NotReadyError, UnavailableError
from ws_pool.pool import Pool

__all__ = ("SqlPool", "make_pool")

Ts = TypeVarTuple("Ts")

_PACKET = 1 << 20  # bytes that any server takes as one statement


class SqlPool(SqlVerbs, ABC):
    """A pool of SQL connections: the part that does not depend on the database."""

    def __init__(self, context: SessionContext, options: SqlOptions) -> None:
        self.name: str = context.name
        self._context = context
        self._cache_size = options.cache_size
        self._compilers = CompilerSource(self._learn)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def compiler(self) -> Compiler:
        """What compiles the statements; none before the first connection, which shows the version."""
        if self._compilers.compiler is None:
            message = f"pool {self.name!r} is not started: use `async with` or await its start()"
            raise NotReadyError(message, pool=self.name)

        return self._compilers.compiler

    @property
    def row_type(self) -> type | None:
        """What rows are by default: `dict`, `tuple`, or None for `Row`."""
        return self._context.row_type

    @property
    def bound(self) -> TaskBinding[SqlClient]:
        """Which client is which task's."""
        return self._context.bound

    @abstractmethod
    async def start(self) -> None:
        """Start; on an error nothing is left behind."""

    @abstractmethod
    async def close(self, *, timeout: float = 10.0) -> None:
        """Close all connections; clients in use have ``timeout`` seconds to end. May be called again."""

    def get_client(self, *, alone: bool = False, read_only: bool = False) -> SqlClient:
        """
        Return a client for the length of an ``async with`` block.

        Inside another block of the same task it is that block's client, so that all of a task's
        calls share one connection and one transaction. Child tasks get connections of their own.
        With ``alone`` it takes a connection of its own even inside another block. With ``read_only``
        it refuses changes, and may come from a replica.
        """
        return SqlClient(self._context, self._compilers, alone=alone, read_only=read_only)

    @overload
    def prepare(self, statement: Typed[*Ts]) -> Prepared[tuple[*Ts]]: ...

    @overload
    def prepare(self, statement: Statement) -> Prepared[Any]: ...

    def prepare(self, statement: Statement) -> Prepared[Any]:
        """
        Return a handle of a statement that is compiled once and for all; all methods take it.

        The statement is a Core statement with `bindparam`, or a string with ``:name`` parameters.
        The pool need not be started yet.
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
        """Run a block or a function in a transaction: the options are those of `ws_pool.atomic`."""
        return Atomic(
            lambda: self,
            savepoint=savepoint,
            isolation=isolation,
            retry_deadlocks=retry_deadlocks,
            read_only=read_only,
        )

    @abstractmethod
    def engine(self, **options: Any) -> Any:
        """
        Return a SQLAlchemy `AsyncEngine` whose sessions hold connections of this pool.

        The options are those of `create_async_engine`, without those that choose a pool.
        """

    @abstractmethod
    async def health(self) -> Health:
        """Check over a connection of the pool that the server answers."""

    @abstractmethod
    def statistics(self) -> PoolStatistics:
        """Return a frozen snapshot of the pool."""

    @abstractmethod
    def expire(self) -> None:
        """Replace all connections: idle ones now, those in use when they come back."""

    def _client_for(self, params: dict[str, Any]) -> AbstractAsyncContextManager[SqlClient]:
        return self.get_client()

    async def _learn(self) -> Compiler:
        """Ask the server for what decides how statements are compiled, before the first one is."""
        try:
            dialect = await learn_dialect(self.engine())
        except DBAPIError as error:
            message = f"pool {self.name!r} lost its server while it was starting: {error.orig}"
            raise UnavailableError(message, pool=self.name) from error

        limit = await self._packet_limit()
        return Compiler(dialect, self._context.dialect.grammar, self._cache_size, packet_limit=limit)

    async def _packet_limit(self) -> int:
        """Return the longest statement in bytes that the server takes."""
        return _PACKET


def make_pool(
    connector: Any,  # Any: of the connections of one of the drivers
    name: str,
    options: SqlOptions,
    dialect: SqlDialect,
    *,
    is_lost: Callable[[Any], bool] | None = None,
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
        keepalive=options.keepalive,
        max_waiting=options.max_waiting,
        leak_threshold=options.leak_threshold,
        on_open=options.on_open,
        on_acquire=options.on_acquire,
        on_release=options.on_release,
        on_close=options.on_close,
        connect_timeout=getattr(options, "connect_timeout", 5.0),
        is_refusal=dialect.is_refusal,
        is_lost=is_lost,
    )
