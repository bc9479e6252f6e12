"""What the SQL pools have in common, and what those of servers have: a primary, and replicas."""

from __future__ import annotations

import asyncio
import importlib.util
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, Generic, Self, TypeVarTuple, cast, overload

from sqlalchemy import text as text_clause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.selectable import TypedReturnsRows as Typed
from typing_extensions import TypeVar  # SQLAlchemy needs it too; with Python 3.13 it is in typing

from ws_core.component import Health
from ws_core.metrics import register
from ws_pool._core.startable import Startable
from ws_pool._core.statistics import PoolStatistics
from ws_pool._sql.atomic import Atomic
from ws_pool._sql.client import SqlClient
from ws_pool._sql.compile.compiler import Compiler, CompilerSource, Prepared
from ws_pool._sql.compile.parameters import Statement
from ws_pool._sql.connection import SqlConnection
from ws_pool._sql.context import SessionContext
from ws_pool._sql.dialect import SqlDialect
from ws_pool._sql.engine import EngineSpec, JoinedDriverConnection, PooledDriverConnection, make_engine
from ws_pool._sql.options import EXTRAS, SqlOptions
from ws_pool._sql.replicas import Replicas, replica_options
from ws_pool._sql.tenants import Tenants
from ws_pool._sql.verbs import SqlVerbs
from ws_pool.context import TaskBinding
from ws_pool.errors import MissingExtraError, NotReadyError, UnavailableError, UsageError
from ws_pool.pool import Lease, Pool

Ts = TypeVarTuple("Ts")
ClientT_co = TypeVar("ClientT_co", bound=SqlClient, default=SqlClient, covariant=True)

_joining: ContextVar[PooledDriverConnection] = ContextVar("ws_pool_joining")
_PACKET = 1 << 20  # bytes that any server takes as one statement
_POOL_OPTIONS = (  # what the options of SQL pools are called as `Pool` calls them
    "min_size", "max_size", "acquire_timeout", "max_waiting", "max_connecting", "max_lifetime", "max_idle",
    "keepalive", "ping_after", "ping_timeout", "leak_threshold", "on_open", "on_acquire", "on_release",
    "on_close", "setup",
)  # fmt: skip


class SqlPool(SqlVerbs, Startable, Generic[ClientT_co]):
    """A pool of SQL connections: the part that does not depend on the database."""

    _client_type: type[SqlClient] = SqlClient

    def __init__(self, url: str | None = None, *, name: str = "default", **options: Any) -> None:
        section = options if url is None else {"url": url, **options}
        self._set_up(name, section, type(self).__name__)

    @classmethod
    def of_section(cls, name: str, section: Mapping[str, object], where: str) -> Self:
        """Make the pool of a settings section, whose full name is for errors."""
        pool = cls.__new__(cls)
        cls._set_up(pool, name, section, where)
        return pool

    @abstractmethod
    def _set_up(self, name: str, section: Mapping[str, object], where: str) -> None:
        """Check the options, and make what the pool consists of; nothing is connected yet."""

    def _set_up_clients(self, context: SessionContext, options: SqlOptions) -> None:
        self.name: str = context.name
        self._context = context
        self._cache_size = options.cache_size
        self._compilers = CompilerSource(self._learn)
        self._engines: dict[object, Any] = {}  # Any: they need greenlet to be imported
        context.join = self._join

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
    def bound(self) -> TaskBinding[Any]:  # Any: clients; a dict of them is of one type only
        """Which client is which task's."""
        return self._context.bound

    @abstractmethod
    async def close(self, *, timeout: float = 10.0) -> None:
        """Close all connections; clients in use have ``timeout`` seconds to end. May be called again."""

    def get_client(
        self,
        *,
        alone: bool = False,
        read_only: bool = False,
        schema_translate_map: Mapping[str | None, str | None] | None = None,
    ) -> ClientT_co:
        """
        Return a client for the length of an ``async with`` block.

        Inside another block of the same task it is that block's client, so that all of a task's
        calls share one connection and one transaction. Child tasks get connections of their own.
        With ``alone`` it takes a connection of its own even inside another block. With ``read_only``
        it refuses changes, and may come from a replica. ``schema_translate_map`` puts other schemas
        (for MySQL: databases) in the place of those of a statement's tables, as SQLAlchemy's option.
        """
        client = self._client_type(
            self._context,
            self._compilers,
            alone=alone,
            read_only=read_only,
            schemas=schema_translate_map,
        )
        return cast("ClientT_co", client)

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
    ) -> Atomic[ClientT_co]:
        """Run a block or a function in a transaction: the options are those of `ws_pool.atomic`."""
        return Atomic(
            lambda: self,
            savepoint=savepoint,
            isolation=isolation,
            retry_deadlocks=retry_deadlocks,
            read_only=read_only,
        )

    def engine(self, *, read_only: bool = False, **options: Any) -> Any:
        """
        Return the SQLAlchemy `AsyncEngine` whose sessions hold connections of this pool.

        It is the same one each time, and needs no disposing. With options, those of
        `create_async_engine` without those that choose a pool, it is a new one. With ``read_only`` its
        sessions can change nothing; they may be at a replica, or on the readers of a SQLite file.
        """
        if options:
            return self._new_engine(read_only=read_only, **options)

        if read_only not in self._engines:
            self._engines[read_only] = self._new_engine(read_only=read_only)

        return self._engines[read_only]

    @abstractmethod
    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change the bounds of the pool at run time; see `ws_pool.pool.Pool.resize`."""

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
        """Query the server for what decides how statements are compiled, before the first one is."""
        try:
            engine = self._make_engine(self._engine_connection, **self._engine_spec().learn)

            async with engine.connect():  # SQLAlchemy asks for the version and the modes now
                dialect = engine.dialect
        except DBAPIError as error:
            message = f"pool {self.name!r} lost its server while it was starting: {error.orig}"
            raise UnavailableError(message, pool=self.name) from error

        limit = await self._packet_limit()
        return Compiler(dialect, self._context.dialect.grammar, self._cache_size, packet_limit=limit)

    @abstractmethod
    async def _for_engine(self, source: Pool[Any], lease: Lease[Any]) -> PooledDriverConnection:
        """Wrap a connection for an engine."""

    def _for_join(self, connection: Any, give_up: Callable[[bool], None]) -> PooledDriverConnection:
        """Wrap a client's connection for an engine that works inside the client's transaction."""
        return JoinedDriverConnection(connection.raw, give_up)

    def _new_engine(self, *, read_only: bool, **options: Any) -> Any:
        tenants = self._context.tenants
        acquire = partial(self._engine_connection, read_only=read_only, tenants=tenants)
        return self._make_engine(acquire, **{**self._engine_spec().options, **options})

    def _make_engine(self, acquire: Callable[[], Awaitable[Any]], **options: Any) -> Any:
        return make_engine(self._engine_spec().url, acquire, **options)

    async def _engine_connection(
        self, *, read_only: bool = False, tenants: Tenants | None = None
    ) -> PooledDriverConnection:
        """Return a connection for an engine, in the tenant of the running task."""
        context = self._context
        tenant = None if tenants is None else await tenants.find()

        if tenant is not None and tenants is not None and tenants.per_transaction:
            message = f"pool {self.name!r}: with prepared=False engine() knows no tenants: use atomic()"
            raise UsageError(message, pool=self.name)

        source, lease = await context.acquire_whole(read_only=read_only)
        connection = lease.connection

        try:
            if tenant is not None and tenants is not None:
                await tenants.enter(connection, tenant)

            if read_only and (statement := context.dialect.read_only_session) is not None:
                connection.dirty = True
                await connection.run(statement, None)

            return await self._for_engine(source, lease)
        except BaseException:
            source.release(lease, discard=True)
            raise

    async def _join(self, connection: SqlConnection) -> Any:
        """Return a connection of SQLAlchemy over that of a client, which keeps it and its transaction."""

        def released(discard: bool) -> None:  # noqa: FBT001 - a callback
            if discard:
                connection.give_up()

        if "joined" not in self._engines:
            spec = self._engine_spec()
            options = {**spec.options, **spec.joined}
            self._engines["joined"] = self._make_engine(_joined_connection, **options)

        token = _joining.set(self._for_join(connection, released))

        try:
            return await self._engines["joined"].connect()
        finally:
            _joining.reset(token)

    @abstractmethod
    def _engine_spec(self) -> EngineSpec:
        """Return what SQLAlchemy's engines over the pool are made of."""

    async def _packet_limit(self) -> int:
        """Return the longest statement in bytes that the server takes."""
        return _PACKET


class ServerPool(SqlPool[ClientT_co]):
    """The pool of a primary server's connections, and those of its replicas."""

    # Any below: options, servers and connectors of either database.

    _system: ClassVar[str]
    """The database in OpenTelemetry's words, which is also the scheme of its URLs."""

    _parse: Callable[[Mapping[str, object], str], Any]
    """Checks a section of settings, whose full name is for errors, and returns its options."""

    _connector: ClassVar[type[Any]]
    """What opens connections to a server."""

    _dialect: ClassVar[SqlDialect]

    _inherited: ClassVar[Sequence[str]]
    """The options that a replica has as its primary, unless it says otherwise."""

    def _set_up(self, name: str, section: Mapping[str, object], where: str) -> None:
        options = self._parse(section, where)
        server = self._server = options.server()
        check_driver(server.driver, where)
        self._pool = self._make(server, name, options)
        least = replace(options, min_size=0)  # a replica may be down at the start
        replicas = []

        for number, entry in enumerate(options.replicas):
            place = f"{where}.replicas[{number}]"
            own = self._parse(replica_options(entry, section, place, self._inherited), place)
            replicas.append(self._make(own.server(), f"{name}/replica{number}", least))

        self._replicas = Replicas(self._pool, replicas)
        choose = self._replicas.choose if replicas else None
        tenants = None

        if options.tenant is not None:
            # MySQL's options have no `prepared`: no pooler gives each of its transactions another session.
            shared = not getattr(server, "prepared", True)
            tenants = Tenants(name, self._dialect, options.tenant, per_transaction=shared)

        context = SessionContext(name, self._dialect, self._pool, options, choose=choose, tenants=tenants)
        self._set_up_clients(context, options)

        for pool in self._replicas.pools:
            pool.bindings.append(self.bound)

        for source in (self, *self._replicas):
            register(source, db_system_name=self._system)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self._server}>"

    async def start(self) -> None:
        """
        Connect ``min_size`` connections; the server must answer, or nothing is left behind.

        A replica that is down keeps nothing from starting.
        """
        await self._pool.start()

        try:
            for replica in self._replicas:
                await replica.start()

            if self._pool.statistics().min_size:
                await self._compilers.learn()
        except BaseException:
            await self.close(timeout=0)
            raise

    async def close(self, *, timeout: float = 10.0) -> None:
        """Close all connections; clients in use have ``timeout`` seconds to end. May be called again."""
        # Together, so that a cancellation reaches each.
        await asyncio.gather(*(pool.close(timeout=timeout) for pool in self._replicas.pools))

    async def health(self) -> Health:
        """Check that the server answers, over a connection of the pool; replicas are parts of the answer."""
        return await self._replicas.health()

    def statistics(self) -> PoolStatistics:
        """Return a frozen snapshot of the pool; those of replicas are in `replica_statistics`."""
        return self._pool.statistics()

    def replica_statistics(self) -> tuple[PoolStatistics, ...]:
        """Return a frozen snapshot of each replica's pool."""
        return tuple(pool.statistics() for pool in self._replicas)

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change the bounds of the pool at run time, those of the primary's connections."""
        self._pool.resize(min_size=min_size, max_size=max_size)

    def expire(self) -> None:
        """Replace all connections: idle ones now, those in use when they come back."""
        for pool in self._replicas.pools:
            pool.expire()

    def _engine_spec(self) -> EngineSpec:
        return EngineSpec(f"{self._system}+{self._server.driver}://")

    def _make(self, server: Any, name: str, options: Any) -> Pool[Any]:
        connector = self._connector(server)

        if options.reset == "always":
            connector.is_clean = lambda _: False

        options = replace(options, connect_timeout=server.connect_timeout)
        return make_pool(connector, name, options, self._dialect, is_lost=attrgetter("lost"))


async def _joined_connection() -> PooledDriverConnection:
    return _joining.get()


def check_driver(driver: str, where: str) -> None:
    """Refuse to make a pool whose driver is not installed."""
    if importlib.util.find_spec(driver) is None:
        raise MissingExtraError.for_extra(where, f"ws-pool[{EXTRAS[driver]}]")


def make_pool(
    connector: Any,  # Any: of the connections of one of the drivers
    name: str,
    options: SqlOptions,
    dialect: SqlDialect,
    *,
    is_lost: Callable[[Any], bool] | None = None,
    kind: type[Pool[Any]] = Pool,
) -> Pool[Any]:
    """Return the pool of connections under a SQL pool."""
    return kind(
        connector,
        name=name,
        **{option: getattr(options, option) for option in _POOL_OPTIONS},
        connect_timeout=getattr(options, "connect_timeout", 5.0),
        is_refusal=dialect.is_refusal,
        is_lost=is_lost,
    )
