"""`MysqlPool`: one primary server and the replicas that it may read from."""

from __future__ import annotations

from typing import Any, cast

from ws_pool._sql.context import Source
from ws_pool._sql.engine import PooledDriverConnection
from ws_pool._sql.mysql.clients import MysqlClient
from ws_pool._sql.mysql.connector import MysqlConnector
from ws_pool._sql.mysql.dialect import MysqlDialect
from ws_pool._sql.mysql.options import mysql_options
from ws_pool._sql.pool import ServerPool
from ws_pool.pool import Lease


class MysqlPool(ServerPool[MysqlClient]):
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
    _system = "mysql"
    _parse = staticmethod(mysql_options)
    _connector = MysqlConnector
    _dialect = MysqlDialect()
    _inherited = ("user", "password", "charset", "sql_mode", "init_command", "ssl", "db", "driver")

    async def close(self, *, timeout: float = 10.0) -> None:
        """Close all connections; clients in use have ``timeout`` seconds to end. May be called again."""
        try:
            await super().close(timeout=timeout)
        finally:
            for pool in self._replicas.pools:
                await cast("MysqlConnector", pool.connector).stopper.aclose()

    async def _packet_limit(self) -> int:
        async with self._pool.lease() as connection:
            reply = await connection.run("SELECT @@max_allowed_packet", None)

        return int(reply.rows[0][0]) if reply.rows else await super()._packet_limit()

    async def _for_engine(self, source: Source, lease: Lease[Any]) -> PooledDriverConnection:
        connection = lease.connection
        connection.dirty = True
        await connection.raw.autocommit(False)
        return PooledDriverConnection(connection.raw, lambda discard: source.release(lease, discard=discard))
