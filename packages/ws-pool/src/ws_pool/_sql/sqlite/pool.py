"""`SqlitePool`: one connection that writes and several that read."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, cast

from ws_core.component import Health
from ws_pool._core.statistics import PoolStatistics
from ws_pool._sql.client import SqlClient
from ws_pool._sql.compile.plan import Plan
from ws_pool._sql.connection import Reply, SqlConnection
from ws_pool._sql.engine import PooledSqliteConnection, make_engine
from ws_pool._sql.pool import SqlPool, make_pool
from ws_pool._sql.sqlite.connector import SqliteConnection, SqliteConnector
from ws_pool._sql.sqlite.options import sqlite_options
from ws_pool.errors import MissingExtraError, UsageError
from ws_pool.pool import Lease, Pool

__all__ = ("SqlitePool",)

_PATIENCE = 60.0  # seconds for a ping or reset of a database in memory


class SqlitePool(SqlPool):
    """
    One SQLite database: a connection that writes and several that read, each in a thread of its own.

    Queries outside of a transaction run on a reader; changes run on the writer, one after the
    other, so that they never fail as busy inside one process. With WAL, the default, readers never
    wait for the writer.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite:///:memory:``.
        name: The name in errors, logs and statistics.
        **options: ``path`` instead of the URL. The database: ``busy_timeout journal_mode synchronous
            foreign_keys cache_kb init_command``. The readers: ``min_size max_size`` (1 and 4), and
            the pool's and client's options of `ws_pool.mysql.MysqlPool`.

    Raises:
        ConfigError: A wrong option; the message names it.
        MissingExtraError: aiosqlite is not installed.

    Example:
        ```python
        from ws_pool import SqlitePool

        async with SqlitePool(url="sqlite:///:memory:") as pool:
            await pool.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
            print(await pool.insert("INSERT INTO item (name) VALUES (:name)", name="tea"))
            print(await pool.select("SELECT * FROM item"))
        ```
    """

    def __init__(self, url: str | None = None, *, name: str = "default", **options: Any) -> None:
        section = options if url is None else {"url": url, **options}
        self._set_up(name, section, "SqlitePool")

    @classmethod
    def _of_section(cls, name: str, section: Mapping[str, object], where: str) -> Self:
        """
        Make a pool of a settings section.

        Args:
            name: The pool's name.
            section: Its options.
            where: The section's full name, for errors.

        Returns:
            The pool, not started.
        """
        pool = cls.__new__(cls)
        pool._set_up(name, section, where)
        return pool

    def _set_up(self, name: str, section: Mapping[str, object], where: str) -> None:
        options = sqlite_options(section, where)
        super().__init__(name, options)
        file = self._file = options.file()
        one = replace(options, min_size=1, max_size=1, max_lifetime=None)

        if file.in_memory:  # to give a connection up would be to lose the database
            one = replace(one, ping_timeout=max(_PATIENCE, one.ping_timeout))

        self._writers: Pool[SqliteConnection] = make_pool(SqliteConnector(file, writable=True), name, one)
        self._readers: Pool[SqliteConnection] = self._writers

        if not file.in_memory:
            self._readers = make_pool(SqliteConnector(file, writable=False), name, options)

        self.client_class: type[SqlClient] = MemoryClient if file.in_memory else RoutingClient
        self.source: Pool[Any] = self._readers

        if importlib.util.find_spec("aiosqlite") is None:
            raise MissingExtraError.for_extra(where, "ws-pool[sqlite]")

    def __repr__(self) -> str:
        return f"<SqlitePool {self.name!r} of {self._file}>"

    @property
    def path(self) -> str:
        """The database's file, or ``:memory:``."""
        return self._file.path

    async def start(self) -> None:
        """
        Open the database; it is created when it does not exist.

        Raises:
            UnavailableError: It cannot be opened; nothing is left behind.
        """
        await self._writers.start()

        try:
            if self._readers is not self._writers:
                await self._readers.start()

            await self._learn()
        except BaseException:
            await self.close(timeout=0)
            raise

    async def close(self, *, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - leases get time to drain
        """
        Close all connections; may be called again.

        Args:
            timeout: Seconds for clients in use to come back.
        """
        pools = {self._readers, self._writers}

        try:
            await asyncio.gather(
                *(pool.close(timeout=timeout) for pool in pools)
            )  # a cancellation reaches each
        finally:
            await asyncio.gather(*(cast("SqliteConnector", pool.connector).ended() for pool in pools))

    def engine(self, **options: Any) -> Any:
        """
        Give a SQLAlchemy `AsyncEngine` whose sessions hold this pool's writing connection.

        Args:
            **options: For `create_async_engine`; those that choose a pool are ours.

        Returns:
            The engine; one session at a time.
        """
        return make_engine("sqlite+aiosqlite://", self._borrow, **options)

    async def health(self) -> Health:
        """Make sure that the database can be read."""
        return await self._readers.health()

    def statistics(self) -> PoolStatistics:
        """Give a frozen snapshot of the readers; that of the writer is in `writer_statistics`."""
        return self._readers.statistics()

    def writer_statistics(self) -> PoolStatistics:
        """Give a frozen snapshot of the writer."""
        return self._writers.statistics()

    def expire(self) -> None:
        """Replace all connections: idle ones now, those in use when they come back."""
        if self._readers is not self._writers:
            self._readers.expire()

        if not self._file.in_memory:
            self._writers.expire()

    async def _acquire_writer(self) -> Lease[SqliteConnection]:
        """Take the writing connection."""
        return await self._writers.acquire()

    def _release_writer(self, lease: Lease[SqliteConnection]) -> None:
        """
        Give the writing connection back.

        Args:
            lease: What `acquire_writer` gave.
        """
        self._writers.release(lease)

    async def _borrow(self) -> PooledSqliteConnection:
        lease = await self._writers.acquire()
        conn = lease.connection
        conn.dirty = True
        conn.raw.isolation_level = ""  # the engine's; the reset takes it back, after a rollback

        def release(discard: bool) -> None:  # noqa: FBT001 - a callback
            if self._file.in_memory:  # to give the connection up would be to lose the database: it is reset
                conn.cut = discard

            self._writers.release(lease, discard=discard and not self._file.in_memory)

        return PooledSqliteConnection(conn.raw, release)


class MemoryClient(SqlClient):
    """A client of a database in memory, which has one connection for all."""

    __slots__ = ()

    async def _begin_outermost(self, isolation: str | None, *, read_only: bool) -> None:
        """
        Open a transaction.

        Args:
            isolation: SQLite's transactions are serializable; nothing else can be asked for.
            read_only: Whether changes are refused; the client does that itself.
        """
        _check_isolation(isolation)
        await super()._begin_outermost(None, read_only=False)

        if read_only:
            self._restrict(True)


class RoutingClient(SqlClient):
    """A client that reads on its own connection, and takes the writing one for each change or transaction."""

    __slots__ = ("_reader", "_writing")

    connection: SqlConnection

    def __init__(self, pool: SqlPool, alone: bool, read_only: bool) -> None:  # noqa: FBT001 - made by the pool only
        super().__init__(pool, alone, read_only)
        self._reader: SqlConnection | None = None
        self._writing: Lease[SqliteConnection] | None = None

    async def _begin_outermost(self, isolation: str | None, *, read_only: bool) -> None:
        """
        Open a transaction: on the writer, unless it only reads.

        Args:
            isolation: SQLite's transactions are serializable; nothing else can be asked for.
            read_only: Whether changes are refused.
        """
        _check_isolation(isolation)

        if read_only or self.read_only:
            await self._control("BEGIN")
            return

        pool = cast("SqlitePool", self._pool)
        self._writing = await pool._acquire_writer()
        self._reader, self.connection = self.connection, self._writing.connection

        try:
            await self._control("BEGIN IMMEDIATE")
        except BaseException:
            self._ended()
            raise

    def _ended(self) -> None:
        """Give the writing connection back, when the outermost transaction has ended."""
        super()._ended()
        lease, self._writing = self._writing, None

        if lease is not None and self._reader is not None:
            self.connection, self._reader = self._reader, None
            cast("SqlitePool", self._pool)._release_writer(lease)

    def _is_plain(self) -> bool:
        """Tell whether statements need nothing but to be run; here each needs its connection chosen."""
        return False

    async def _perform(self, plan: Plan, sql: str, values: Sequence[Any] | None) -> Reply:
        if plan.reading or self.depth or self.read_only or not self._begun:
            return await super()._perform(plan, sql, values)

        pool = cast("SqlitePool", self._pool)
        lease = await pool._acquire_writer()

        try:
            connection = lease.connection
            connection.dirty = connection.dirty or not plan.clean
            return await self._exchange(connection, sql, values)
        finally:
            pool._release_writer(lease)


def _check_isolation(isolation: str | None) -> None:
    if isolation not in {None, "SERIALIZABLE"}:
        message = f"SQLite has no isolation level {isolation!r}: its transactions are serializable"
        raise UsageError(message)
