"""`PostgresPool`: one primary server and the replicas that it may read from."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from ws_pool._sql.context import Source
from ws_pool._sql.engine import EngineSpec, Joined, PooledAsyncConnection, PooledDriverConnection
from ws_pool._sql.pool import ServerPool
from ws_pool._sql.postgres.clients import PostgresClient
from ws_pool._sql.postgres.connector import PostgresConnector
from ws_pool._sql.postgres.dialect import PostgresDialect
from ws_pool._sql.postgres.notifications import Notifications
from ws_pool._sql.postgres.options import postgres_options
from ws_pool.errors import UsageError
from ws_pool.pool import Lease


class PostgresPool(ServerPool[PostgresClient]):
    """
    A pool of connections to PostgreSQL.

    ``url`` is as ``postgresql://user:password@host:5432/db``; ``postgresql+psycopg://`` takes psycopg 3
    in the place of asyncpg. ``name`` is the name in errors, logs and statistics. The options, beside or
    instead of the URL:

    - where: ``host hosts port user password db driver passfile ssl`` (also ``sslmode``)
      ``target_session_attrs connect_timeout``;
    - the session: ``application_name server_settings prepared statement_cache_size``;
    - the pool's and client's options of `MysqlPool`;
    - copies to read from: ``replicas``, a list of URLs or mappings.

    Statements in text have their values by name (``:name``) or by position (``$1``). The id of
    ``insert()`` comes by RETURNING: of a table by itself, in text when the statement says so. After an
    error inside a transaction only a rollback is possible, to the end of the inner ``atomic`` block at
    least; the COMMIT of such a transaction is an error.

    A wrong option is a `ConfigError` that names it, a driver that is not installed a
    `MissingExtraError`.

    Example:
        ```python
        from ws_pool import PostgresPool

        async with PostgresPool(url="postgresql://postgres@localhost:5432/test", max_size=5) as pool:
            async with pool.get_client() as client:
                print(await client.find("SELECT CAST(:a AS int) + 1 AS b", a=1))
        ```
    """

    _client_type = PostgresClient
    _system = "postgresql"
    _parse = staticmethod(postgres_options)
    _connector = PostgresConnector
    _dialect = PostgresDialect()
    _inherited = (
        "user", "password", "db", "passfile", "ssl", "sslmode", "application_name", "server_settings",
        "prepared", "driver",
    )  # fmt: skip

    def listen(self, *channels: str) -> Notifications:
        """
        Listen to channels of NOTIFY over a connection of its own, beside those of the pool.

        Args:
            *channels: Their names.

        Returns:
            An async context manager; iterate over what it returns. Each item is a `Notification`, or
            a `NotificationGap` in the place of what an outage may have hidden.

        Raises:
            UsageError: No channel was named.

        Example:
            ```python no-run
            async with pool.listen("orders") as notes:
                async for note in notes:
                    print(note)
            ```
        """
        if not channels:
            message = f"pool {self.name!r}: listen() needs the name of a channel"
            raise UsageError(message, pool=self.name)

        return Notifications(self.name, self._server, channels)

    def _make_engine(self, acquire: Callable[[], Awaitable[Any]], **options: Any) -> Any:
        async def acquire_adapted() -> Any:
            """Return a connection that reads and writes values as this engine wants it."""
            connection = await acquire()
            connection.adapt(engine.dialect)
            return connection

        own = self._server.driver == "psycopg"
        engine: Any = super()._make_engine(acquire_adapted if own else acquire, **options)

        # The dialect of asyncpg sets JSON's codecs, and asks the server twice for that, in each session. Ours
        # read JSON the same way, but for an engine with a deserializer: its connections are replaced.
        if not own and "json_deserializer" not in options:
            engine.dialect.setup_asyncpg_json_codec = engine.dialect.setup_asyncpg_jsonb_codec = _leave

        return engine

    def _engine_spec(self) -> EngineSpec:
        # The driver's own bookkeeping of transactions must not meet a transaction that it has not begun.
        spec = replace(super()._engine_spec(), joined={"isolation_level": "AUTOCOMMIT"})

        if self._server.driver != "psycopg":
            return spec

        # Its own types of hstore would have to be registered on each connection; values go by number.
        options = {"use_native_hstore": False}
        return replace(spec, options=options, learn={**options, "paramstyle": "numeric_dollar"})

    async def _for_engine(self, source: Source, lease: Lease[Any]) -> PooledDriverConnection:
        connection = lease.connection
        connection.dirty = True
        kind = PooledAsyncConnection

        if self._server.driver == "psycopg":
            await connection.raw.set_autocommit(False)
            kind = _PooledPsycopgConnection

        return kind(connection.raw, lambda discard: source.release(lease, discard=discard))

    def _for_join(self, connection: Any, give_up: Callable[[bool], None]) -> PooledDriverConnection:
        kind = _JoinedConnection if self._server.driver == "asyncpg" else _JoinedPsycopgConnection
        return kind(connection.raw, give_up)


async def _leave(_: object) -> None:
    """Leave a connection as it is."""


class _JoinedConnection(Joined, PooledAsyncConnection):
    """A connection inside a client's transaction."""


class _PooledPsycopgConnection(PooledAsyncConnection):
    """The same for psycopg; the engine writes values by name, as its users do in text."""

    def adapt(self, dialect: Any) -> None:
        """Read and write values as an engine's dialect does on connections that it opens itself."""
        adapt: Any = importlib.import_module("psycopg.adapt")
        self._raw.own_adapters = adapt.AdaptersMap(dialect._psycopg_adapters_map)

    def cursor(self, name: str = "") -> Any:
        """Open a cursor, with a name one on the server."""
        driver: Any = importlib.import_module("psycopg")
        return driver.AsyncServerCursor(self._raw, name) if name else driver.AsyncCursor(self._raw)


class _JoinedPsycopgConnection(Joined, _PooledPsycopgConnection):
    """A connection inside a client's transaction, whose modes are not the engine's to change."""

    def adapt(self, dialect: Any) -> None:
        """Do nothing."""

    async def set_autocommit(self, value: object) -> None:
        """Do nothing."""

    set_isolation_level = set_autocommit
