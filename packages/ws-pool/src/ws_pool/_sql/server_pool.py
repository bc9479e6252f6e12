"""What `MysqlPool` and `PostgresPool` share: a primary server, and the replicas that it may read from."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, ClassVar

from ws_core.component import Health
from ws_core.metrics import register
from ws_pool._core.statistics import PoolStatistics
from ws_pool._sql.context import SessionContext
from ws_pool._sql.dialect import SqlDialect
from ws_pool._sql.pool import ClientT_co, SqlPool, make_pool, make_tenants
from ws_pool._sql.replicas import Replicas, replica_options
from ws_pool.pool import Pool

__all__ = ("ServerPool",)

# Any below: options, servers and connectors of either database.


class ServerPool(SqlPool[ClientT_co]):
    """The pool of a primary server's connections, and those of its replicas."""

    _system: ClassVar[str]
    """The database in OpenTelemetry's words."""

    def _set_up_servers(
        self,
        name: str,
        section: Mapping[str, object],
        where: str,
        *,
        parse: Callable[[Mapping[str, object], str], Any],
        inherited: Sequence[str],
        dialect: SqlDialect,
        options: Any,
        per_transaction: bool,
    ) -> None:
        """Make the pools; what is ``inherited`` is as the primary's where a replica does not have it."""
        self._dialect = dialect
        self._pool = self._make(options.server(), name, options)
        least = replace(options, min_size=0)  # a replica may be down at the start
        replicas = []

        for number, entry in enumerate(options.replicas):
            place = f"{where}.replicas[{number}]"
            own = parse(replica_options(entry, section, place, inherited), place)
            replicas.append(self._make(own.server(), f"{name}/replica{number}", least))

        self._replicas = Replicas(self._pool, replicas)
        choose = self._replicas.choose if replicas else None
        tenants = make_tenants(name, dialect, options, per_transaction=per_transaction)
        super().__init__(
            SessionContext(name, dialect, self._pool, options, choose=choose, tenants=tenants), options
        )

        for pool in self._replicas.pools:
            pool.bindings.append(self.bound)

        for source in (self, *self._replicas):
            register(source, db_system_name=self._system)

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
        return self._replicas.statistics()

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change the bounds of the pool at run time, those of the primary's connections."""
        self._pool.resize(min_size=min_size, max_size=max_size)

    def expire(self) -> None:
        """Replace all connections: idle ones now, those in use when they come back."""
        for pool in self._replicas.pools:
            pool.expire()

    @abstractmethod
    def _connector(self, server: Any, *, reset_always: bool) -> Any:
        """Return what opens connections to a server."""

    def _make(self, server: Any, name: str, options: Any) -> Pool[Any]:
        connector = self._connector(server, reset_always=options.reset == "always")
        options = replace(options, connect_timeout=server.connect_timeout)
        return make_pool(connector, name, options, self._dialect, is_lost=attrgetter("lost"))
