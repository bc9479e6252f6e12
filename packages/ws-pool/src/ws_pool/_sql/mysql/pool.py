"""`MysqlPool`: one primary server and the replicas that it may read from."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, cast

from ws_core.component import Health
from ws_core.metrics import register
from ws_pool._core.statistics import PoolStatistics
from ws_pool._sql.context import SessionContext, Source
from ws_pool._sql.engine import PooledDriverConnection
from ws_pool._sql.mysql.clients import MysqlClient
from ws_pool._sql.mysql.connector import MysqlConnection, MysqlConnector
from ws_pool._sql.mysql.dialect import MysqlDialect
from ws_pool._sql.mysql.options import EXTRAS, MysqlOptions, Server, mysql_options
from ws_pool._sql.pool import SqlPool, make_pool, make_tenants
from ws_pool._sql.replicas import Replicas, replica_options
from ws_pool.errors import MissingExtraError
from ws_pool.pool import Lease, Pool

__all__ = ("MysqlPool", "pool_of_section")

# What a replica has as its primary, unless it says otherwise.
_INHERITED = ("user", "password", "charset", "sql_mode", "init_command", "ssl", "db", "driver")


class MysqlPool(SqlPool[MysqlClient]):
    """
    A pool of connections to MySQL or MariaDB.

    ``url`` is as ``mysql://user:password@host:3306/db``; ``mysql+asyncmy://`` takes the faster
    driver. ``name`` is the name in errors, logs and statistics. The options, beside or instead of
    the URL:

    - where: ``host port user password db unix_socket driver ssl connect_timeout``; user and
      password may be callables, called for each new connection; ``local_infile`` allows `load_data`;
    - the session: ``charset sql_mode init_command autocommit``;
    - the pool: ``min_size max_size`` (also ``minsize maxsize``) ``acquire_timeout max_connecting
      max_lifetime`` (also ``pool_recycle``) ``max_idle ping_after ping_timeout leak_threshold`` and
      the hooks ``on_open on_acquire on_release on_close``, called with the `SqlConnection`;
    - the client: ``row_type`` (also ``cursorclass``) ``cache_size echo slow_query query_timeout reset``;
    - copies to read from: ``replicas``, a list of URLs or mappings.

    A wrong option is a `ConfigError` that names it, a driver that is not installed a
    `MissingExtraError`.

    Example:
        ```python
        from ws_pool import MysqlPool

        async with MysqlPool(url="mysql://root@localhost:3306/test", max_size=5) as pool:
            async with pool.get_client() as client:
                print(await client.find("SELECT :a + 1 AS b", a=1))
        ```
    """

    _client_type = MysqlClient

    def __init__(self, url: str | None = None, *, name: str = "default", **options: Any) -> None:
        section = options if url is None else {"url": url, **options}
        self._set_up(name, section, "MysqlPool")

    def _set_up(self, name: str, section: Mapping[str, object], where: str) -> None:
        options = mysql_options(section, where)
        server = self._server = options.server()
        self._dialect = MysqlDialect()
        self._pool = self._make(server, name, options)
        replicas = []

        for n, entry in enumerate(options.replicas):
            place = f"{where}.replicas[{n}]"
            own = replica_options(entry, section, place, _INHERITED)
            least = replace(options, min_size=0)  # a replica may be down at the start
            replicas.append(self._make(mysql_options(own, place).server(), f"{name}/replica{n}", least))

        self._replicas = Replicas(self._pool, replicas)
        self._engine_url = f"mysql+{server.driver}://"
        choose = self._replicas.choose if self._replicas else None
        tenants = make_tenants(name, self._dialect, options, per_transaction=False)
        context = SessionContext(name, self._dialect, self._pool, options, choose=choose, tenants=tenants)
        super().__init__(context, options)

        for pool in self._replicas.pools:
            pool.bindings.append(self.bound)

        register(self, db_system_name="mysql")

        for replica in self._replicas:
            register(replica, db_system_name="mysql")

        if importlib.util.find_spec(server.driver) is None:
            raise MissingExtraError.for_extra(where, f"ws-pool[{EXTRAS[server.driver]}]")

    def __repr__(self) -> str:
        return f"<MysqlPool {self.name!r} of {self._server}>"

    async def start(self) -> None:
        """
        Connect ``min_size`` connections; the server must answer, or nothing is left behind.

        A replica that is down keeps nothing from starting.
        """
        await self._pool.start()

        try:
            await self._replicas.start()

            if self._pool.statistics().min_size:
                await self._compilers.learn()
        except BaseException:
            await self.close(timeout=0)
            raise

    async def close(self, *, timeout: float = 10.0) -> None:
        """Close all connections; clients in use have ``timeout`` seconds to end. May be called again."""
        pools = self._replicas.pools

        try:
            # Together, so that a cancellation reaches each.
            await asyncio.gather(*(pool.close(timeout=timeout) for pool in pools))
        finally:
            for pool in pools:
                await cast("MysqlConnector", pool.connector).stopper.aclose()

    async def health(self) -> Health:
        """Check that the server answers, over a connection of the pool; replicas are parts of the answer."""
        return await self._replicas.health()

    def statistics(self) -> PoolStatistics:
        """Return a frozen snapshot of the pool; those of replicas are in `replica_statistics`."""
        return self._pool.statistics()

    def replica_statistics(self) -> tuple[PoolStatistics, ...]:
        """Return a frozen snapshot of each replica's pool."""
        return self._replicas.statistics()

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change the bounds of the pool at run time, those of the primary's connections."""
        self._pool.resize(min_size=min_size, max_size=max_size)

    def expire(self) -> None:
        """Replace all connections: idle ones now, those in use when they come back."""
        for pool in self._replicas.pools:
            pool.expire()

    async def _packet_limit(self) -> int:
        async with self._pool.lease() as connection:
            reply = await connection.run("SELECT @@max_allowed_packet", None)

        return int(reply.rows[0][0]) if reply.rows else await super()._packet_limit()

    async def _for_engine(self, source: Source, lease: Lease[Any]) -> PooledDriverConnection:
        connection = lease.connection
        connection.dirty = True
        await connection.raw.autocommit(False)
        return PooledDriverConnection(connection.raw, lambda discard: source.release(lease, discard=discard))

    def _make(self, server: Server, name: str, options: MysqlOptions) -> Pool[MysqlConnection]:
        connector = MysqlConnector(server, reset_always=options.reset == "always")
        options = replace(options, connect_timeout=server.connect_timeout)
        return make_pool(connector, name, options, self._dialect, is_lost=attrgetter("lost"))


def pool_of_section(name: str, section: Mapping[str, object], where: str) -> MysqlPool:
    """Make the pool of a settings section, whose full name is for errors."""
    pool = MysqlPool.__new__(MysqlPool)
    pool._set_up(name, section, where)
    return pool
