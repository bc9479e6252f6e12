"""`MysqlPool`: one primary server and the replicas that it may read from."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

from ws_core.component import Health
from ws_pool._core.statistics import PoolStatistics
from ws_pool._sql.engine import PooledDriverConnection, make_engine
from ws_pool._sql.mysql.connector import MysqlConnection, MysqlConnector
from ws_pool._sql.mysql.options import MysqlOptions, Server, mysql_options
from ws_pool._sql.pool import SqlPool, make_pool
from ws_pool._sql.session import Session
from ws_pool.errors import ConfigError, MissingExtraError, UnavailableError
from ws_pool.pool import Lease, Pool

if TYPE_CHECKING:
    from sqlalchemy.schema import ExecutableDDLElement, Table

__all__ = ("MysqlPool",)


class MysqlPool(SqlPool):
    """
    A pool of connections to MySQL or MariaDB.

    Args:
        url: As ``mysql://user:password@host:3306/db``; ``mysql+asyncmy://`` takes the faster driver.
        name: The name in errors, logs and statistics.
        **options: Beside or instead of the URL. Where: ``host port user password db unix_socket
            driver ssl connect_timeout``; user and password may be callables, asked for each new
            connection. The session: ``charset sql_mode init_command autocommit``. The pool:
            ``min_size max_size`` (also ``minsize maxsize``) ``acquire_timeout max_connecting
            max_lifetime`` (also ``pool_recycle``) ``max_idle ping_after ping_timeout
            leak_threshold`` and the hooks ``on_open on_acquire on_release on_close``, called with the
            `SqlConnection`. The client: ``row_type`` (also ``cursorclass``) ``cache_size echo
            slow_query query_timeout reset``. Copies to read from: ``replicas``, a list of URLs or mappings.

    Raises:
        ConfigError: A wrong option; the message names it.
        MissingExtraError: The driver is not installed.

    Example:
        ```python
        from ws_pool import MysqlPool

        async with MysqlPool(url="mysql://root@localhost:3306/test", max_size=5) as pool:
            async with pool.get_client() as client:
                print(await client.find("SELECT :a + 1 AS b", a=1))
        ```
    """

    def __init__(self, url: str | None = None, *, name: str = "default", **options: Any) -> None:
        section = options if url is None else {"url": url, **options}
        self._set_up(name, section, "MysqlPool")

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
        options = mysql_options(section, where)
        super().__init__(name, options)
        server = self._server = options.server()
        self._pool: Pool[MysqlConnection] = _pool_of(server, name, options)
        self.source: Pool[Any] = self._pool
        self._replicas = [
            _pool_of(_replica(entry, section, f"{where}.replicas[{n}]"), f"{name}/replica{n}", options)
            for n, entry in enumerate(options.replicas)
        ]
        self._turn = itertools.count()

        if importlib.util.find_spec(server.driver) is None:
            extra = "mysql" if server.driver == "aiomysql" else "asyncmy"
            raise MissingExtraError.for_extra(where, f"ws-pool[{extra}]")

    def __repr__(self) -> str:
        return f"<MysqlPool {self.name!r} of {self._server}>"

    async def start(self) -> None:
        """
        Connect ``min_size`` connections.

        Replicas are connected too, but a replica that is down keeps nothing from starting.

        Raises:
            UnavailableError: The server cannot be reached; nothing is left behind.
        """
        await self._pool.start()

        try:
            for replica in self._replicas:
                replica._state.min_size = 0  # a replica may be down at the start
                await replica.start()

            if self._pool.statistics().min_size:
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
        pools = (self._pool, *self._replicas)
        await asyncio.gather(*(pool.close(timeout=timeout) for pool in pools))  # a cancellation reaches each

    def engine(self, **options: Any) -> Any:
        """
        Give a SQLAlchemy `AsyncEngine` whose sessions hold connections of this pool.

        Args:
            **options: For `create_async_engine`; those that choose a pool are ours.

        Returns:
            The engine; it needs no disposing.
        """
        return make_engine(f"mysql+{self._server.driver}://", self._borrow, **options)

    async def health(self) -> Health:
        """Ask the server over a connection of the pool; replicas are parts of the answer."""
        health = await self._pool.health()

        if not self._replicas:
            return health

        parts = {pool.name: await pool.health() for pool in self._replicas}
        return Health(ok=health.ok, detail=health.detail, latency=health.latency, parts=parts)

    def statistics(self) -> PoolStatistics:
        """Give a frozen snapshot of the pool; those of replicas are in `replica_statistics`."""
        return self._pool.statistics()

    def replica_statistics(self) -> tuple[PoolStatistics, ...]:
        """Give a frozen snapshot of each replica's pool."""
        return tuple(pool.statistics() for pool in self._replicas)

    def expire(self) -> None:
        """Replace all connections: idle ones now, those in use when they come back."""
        for pool in (self._pool, *self._replicas):
            pool.expire()

    async def _choose(self, session: Session) -> Lease[Any]:
        """
        Take a connection for a client that only reads: a replica's, or the primary's.

        Replicas that are up take turns. One that has no connection free is passed over, and the
        primary takes its place; when that has none either, one of those that are up is waited for.

        Args:
            session: The client; it is told where its connection comes from.

        Returns:
            The connection's lease.
        """
        healthy = self._healthy()
        free = [pool for pool in healthy if not pool.full]

        for pool in free or (healthy if self._pool.full else ()):
            try:
                lease = await pool.acquire()
            except UnavailableError:
                continue

            session._draw_from(pool)
            return lease

        return await super()._choose(session)

    def _index_statements(self, table: Table) -> Sequence[ExecutableDDLElement]:
        """
        Give what creates a table's indexes.

        Args:
            table: The table.
        """
        statements = super()._index_statements(table)
        mariadb = bool(getattr(self.compiler.dialect, "is_mariadb", False))
        return statements if mariadb else []  # MySQL has no CREATE INDEX IF NOT EXISTS

    def _healthy(self) -> list[Pool[MysqlConnection]]:
        """Give the replicas that are up, beginning with another one each time."""
        up = [pool for pool in self._replicas if not pool.down]
        turn = next(self._turn) % len(up) if up else 0
        return [*up[turn:], *up[:turn]]

    async def _learn_limit(self) -> int:
        """Ask for the greatest statement in bytes that the server takes: its max_allowed_packet."""
        async with self._pool.lease() as connection:
            reply = await connection.run("SELECT @@max_allowed_packet", None)

        return int(reply.rows[0][0]) if reply.rows else self._packet_limit

    async def _borrow(self) -> PooledDriverConnection:
        lease = await self._pool.acquire()
        conn = lease.connection

        try:
            conn.dirty = True
            await conn.raw.autocommit(False)
        except BaseException:
            self._pool.release(lease, discard=True)
            raise

        return PooledDriverConnection(conn.raw, lambda discard: self._pool.release(lease, discard=discard))


def _pool_of(server: Server, name: str, options: MysqlOptions) -> Pool[MysqlConnection]:
    connector = MysqlConnector(server, reset_always=options.reset == "always")
    options = replace(options, connect_timeout=server.connect_timeout)
    return make_pool(connector, name, options, is_lost=attrgetter("lost"))


def _replica(entry: object, primary: Mapping[str, object], where: str) -> Server:
    """Read a replica: what it does not say itself is as the primary's."""
    if isinstance(entry, str):
        entry = {"url": entry}

    if not isinstance(entry, Mapping):
        message = f"{where} must be a URL or a mapping of options, not a value of type {type(entry).__name__}"
        raise ConfigError(message, setting=where)

    own = ("user", "password", "charset", "sql_mode", "init_command", "ssl", "db", "driver")
    inherited = {key: primary[key] for key in own if key in primary and "url" not in entry}
    return mysql_options({**inherited, **entry}, where).server()
