"""What the clients of one pool share: where connections come from, which client is whose, and the limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from ws_pool._sql.compile.plan import Plan
from ws_pool._sql.connection import SqlConnection
from ws_pool._sql.dialect import SqlDialect
from ws_pool._sql.options import SqlOptions
from ws_pool._sql.orm import Join
from ws_pool._sql.tenants import Tenants
from ws_pool.context import TaskBinding
from ws_pool.errors import QueryTimeout
from ws_pool.pool import Lease, Pool

logger = logging.getLogger("ws_pool.sql")

T = TypeVar("T")
Source = Pool[Any]  # Any: connections of one of the drivers
Choose = Callable[[], Awaitable[tuple[Source, Lease[Any]]]]


class Routing(Protocol):
    """A client's way between the connection that it reads over and the one that writes, as SQLite's is."""

    def check(self, sql: str) -> None: ...
    def needs_writer(self, plan: Plan | None) -> bool: ...
    async def pin(self, reader: SqlConnection) -> SqlConnection: ...
    def unpin(self, connection: SqlConnection, *, always: bool = False) -> SqlConnection: ...


class SessionContext:
    """
    The part of a SQL pool that its sessions know.

    ``writers`` is where the connection for a change comes from, when those of ``source`` only read, and
    ``route`` makes a client's way between both; ``choose`` takes a connection for a client that only
    reads, when there are replicas; ``join`` lets SQLAlchemy work on a client's connection.
    """

    __slots__ = (
        "_choose",
        "_echo",
        "_hook",
        "_slow",
        "_timeout",
        "bound",
        "dialect",
        "join",
        "name",
        "route",
        "row_type",
        "source",
        "tenants",
        "watched",
        "writers",
    )

    def __init__(
        self,
        name: str,
        dialect: SqlDialect,
        source: Source,
        options: SqlOptions,
        *,
        writers: Source | None = None,
        route: Callable[[], Routing] | None = None,
        tenants: Tenants | None = None,
        choose: Choose | None = None,
    ) -> None:
        self.name: str = name
        self.dialect: SqlDialect = dialect
        self.source: Source = source
        self.writers: Source | None = writers
        self.route: Callable[[], Routing] | None = route
        self.tenants: Tenants | None = tenants
        self.join: Join  # set by the pool
        self.row_type: type | None = options.row_type
        self.bound: TaskBinding[Any] = TaskBinding()  # Any: clients, which are made above
        self._choose = choose
        self._echo = options.echo
        self._slow: float | None = options.slow_query
        self._timeout: float | None = options.query_timeout
        self._hook = options.on_statement
        self.watched: bool = self._echo or any(
            option is not None for option in (self._slow, self._timeout, self._hook)
        )

    async def acquire(self, *, read_only: bool) -> tuple[Source, Lease[Any]]:
        """Take a connection, and return it with the pool that it goes back to."""
        if read_only and self._choose is not None:
            return await self._choose()

        return self.source, await self.source.acquire()

    async def acquire_whole(self, *, read_only: bool) -> tuple[Source, Lease[Any]]:
        """Take a connection on which all statements of a session can run, and return it with its pool."""
        if read_only or self.writers is None:
            return await self.acquire(read_only=read_only)

        return self.writers, await self.writers.acquire()

    async def limited(self, work: Awaitable[T], sql: str) -> T:
        """Wait for a statement for ``query_timeout`` at most; cut short, its connection is of no more use."""
        if self._timeout is None:
            return await work

        limit = asyncio.timeout(self._timeout)

        try:
            async with limit:
                return await work
        except TimeoutError:
            if not limit.expired():  # a TimeoutError of the driver's own
                raise

            message = f"pool {self.name!r}: a statement took longer than query_timeout, {self._timeout:g} s"
            raise QueryTimeout(message, pool=self.name, sql=sql) from None

    def report(self, sql: str, seconds: float, error: BaseException | None) -> None:
        """Report a statement that has ended to whoever the options name. Values never get here."""
        if self._echo:
            logger.info("pool %r: %.1f ms: %s", self.name, seconds * 1e3, sql)

        if self._slow is not None and seconds >= self._slow:
            logger.warning("pool %r: slow query, %.3f s: %s", self.name, seconds, sql)

        if self._hook is not None:
            try:
                self._hook(sql, seconds, error)
            except Exception:  # a hook that fails is not the statement's failure
                logger.exception("pool %r: on_statement has failed over %s", self.name, sql)
