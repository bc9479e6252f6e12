"""`SqlitePool`: one connection that writes and several that read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from ws_core.component import Health
from ws_core.metrics import register
from ws_pool._core.statistics import PoolStatistics
from ws_pool._sql.context import SessionContext, Source
from ws_pool._sql.engine import (
    EngineSpec,
    JoinedSqliteConnection,
    PooledDriverConnection,
    PooledSqliteConnection,
)
from ws_pool._sql.pool import SqlPool, check_driver, make_pool
from ws_pool._sql.sqlite.clients import WriterPool, WriterRouting
from ws_pool._sql.sqlite.connection import SqliteConnection
from ws_pool._sql.sqlite.connector import SqliteConnector
from ws_pool._sql.sqlite.dialect import SqliteDialect
from ws_pool._sql.sqlite.options import sqlite_options
from ws_pool.errors import ConfigError, UsageError
from ws_pool.pool import Lease, Pool

_PING_TIMEOUT = 60.0  # seconds for a ping or reset of a database in memory


class SqlitePool(SqlPool):
    """
    One SQLite database: a connection that writes and several that read, each in a thread of its own.

    Queries outside of a transaction run on a reader; changes run on the writer, one after the
    other, so that they never fail as busy inside one process. With WAL, the default, readers never
    wait for the writer.

    ``url`` is ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite:///:memory:``.
    ``name`` is the name in errors, logs and statistics. The options, beside or instead of the URL:

    - the database: ``path busy_timeout journal_mode synchronous foreign_keys cache_kb init_command``;
    - the readers: ``min_size max_size`` (1 and 4);
    - the pool's and client's options of `MysqlPool`.

    A wrong option is a `ConfigError` that names it; `MissingExtraError` means that aiosqlite is not
    installed.

    Example:
        ```python
        from ws_pool import SqlitePool

        async with SqlitePool(url="sqlite:///:memory:") as pool:
            await pool.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
            print(await pool.insert("INSERT INTO item (name) VALUES (:name)", name="tea"))
            print(await pool.select("SELECT * FROM item"))
        ```
    """

    def _set_up(self, name: str, section: Mapping[str, object], where: str) -> None:
        options = sqlite_options(section, where)

        if options.tenant is not None:
            message = f"{where}.tenant: a SQLite pool has one database: add a pool for each tenant"
            raise ConfigError(message, setting=f"{where}.tenant")

        check_driver("aiosqlite", where)
        file = self._file = options.file()
        dialect = SqliteDialect(in_memory=file.in_memory)
        one = replace(options, min_size=1, max_size=1, max_lifetime=None)

        if file.in_memory:  # a connection that is given up takes the database with it
            one = replace(one, ping_timeout=max(_PING_TIMEOUT, one.ping_timeout))

        self._writers: Pool[SqliteConnection] = make_pool(
            SqliteConnector(file, writable=True), name, one, dialect, kind=WriterPool
        )
        self._readers: Pool[SqliteConnection] = self._writers

        if not file.in_memory:
            self._readers = make_pool(SqliteConnector(file, writable=False), name, options, dialect)

        writers = None if file.in_memory else self._writers
        route = None if file.in_memory else partial(WriterRouting, self._writers)
        context = SessionContext(name, dialect, self._readers, options, writers=writers, route=route)
        self._set_up_clients(context, options)

        for pool in {self._readers, self._writers}:
            pool.bindings.append(self.bound)

        for source in (self,) if file.in_memory else (self, self._writers):
            register(source, db_system_name="sqlite")

    def __repr__(self) -> str:
        return f"<SqlitePool {self.name!r} of {self._file}>"

    @property
    def path(self) -> str:
        """The database's file, or ``:memory:``."""
        return self._file.path

    async def start(self) -> None:
        """Open the database, which is created when it does not exist; on an error nothing is left behind."""
        await self._writers.start()

        try:
            if self._readers is not self._writers:
                await self._readers.start()

            await self._compilers.learn()
        except BaseException:
            await self.close(timeout=0)
            raise

    async def close(self, *, timeout: float = 10.0) -> None:
        """Close all connections; clients in use have ``timeout`` seconds to end. May be called again."""
        pools = {self._readers, self._writers}

        try:
            # Together, so that a cancellation reaches each.
            await asyncio.gather(*(pool.close(timeout=timeout) for pool in pools))
        finally:
            await asyncio.gather(*(cast("SqliteConnector", pool.connector).ended() for pool in pools))

    async def health(self) -> Health:
        """Make sure that the database can be read."""
        return await self._readers.health()

    def statistics(self) -> PoolStatistics:
        """Return a frozen snapshot of the readers; that of the writer is in `writer_statistics`."""
        return self._readers.statistics()

    def writer_statistics(self) -> PoolStatistics:
        """Return a frozen snapshot of the writer."""
        return self._writers.statistics()

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change the bounds of the readers at run time; a database in memory has one connection."""
        if self._readers is self._writers:
            message = (
                f"pool {self.name!r}: a database in memory has one connection, which cannot be more or less"
            )
            raise UsageError(message, pool=self.name)

        self._readers.resize(min_size=min_size, max_size=max_size)

    def expire(self) -> None:
        """Replace all connections: idle ones now, those in use when they come back."""
        if self._readers is not self._writers:
            self._readers.expire()

        if not self._file.in_memory:
            self._writers.expire()

    def _engine_spec(self) -> EngineSpec:
        return EngineSpec("sqlite+aiosqlite://")

    async def _for_engine(self, source: Source, lease: Lease[Any]) -> PooledDriverConnection:
        conn = lease.connection
        conn.dirty = True
        conn.raw.isolation_level = ""  # the engine's; the reset takes it back, after a rollback
        cursors: list[Any] = []  # Any: of aiosqlite

        def release(discard: bool) -> None:  # noqa: FBT001 - a callback
            if self._file.in_memory:  # giving the connection up would lose the database: it is reset
                conn.cut = discard

            conn.foreign = cursors
            source.release(lease, discard=discard and not self._file.in_memory)

        return PooledSqliteConnection(conn.raw, release, cursors)

    def _for_join(self, connection: Any, give_up: Callable[[bool], None]) -> PooledDriverConnection:
        cursors: list[Any] = []  # Any: of aiosqlite
        connection.foreign = cursors
        return JoinedSqliteConnection(connection.raw, give_up, cursors)
