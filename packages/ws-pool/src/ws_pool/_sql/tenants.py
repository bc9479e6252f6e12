"""Tenants: the database or schema that a client works in, as the option ``tenant`` says."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from ws_pool._sql.connection import SqlConnection
from ws_pool._sql.dialect import SqlDialect
from ws_pool.errors import UsageError


class Tenants:
    """Finds the tenant of a block, and puts its connection there; the session's reset undoes it."""

    __slots__ = ("_dialect", "_find", "_name", "per_transaction")

    def __init__(
        self, name: str, dialect: SqlDialect, find: Callable[[], object], *, per_transaction: bool
    ) -> None:
        self._name = name
        self._dialect = dialect
        self._find = find
        self.per_transaction: bool = per_transaction  # behind a pooler a session is not ours to change

    async def find(self) -> str | None:
        """Return the tenant's name, or None for the pool's own database."""
        found = self._find()

        if inspect.isawaitable(found):
            found = await found

        if found is None or (isinstance(found, str) and found):
            return found

        message = f"pool {self._name!r}: tenant must return a name or None, not {found!r:.100}"
        raise UsageError(message, pool=self._name)

    async def enter(self, connection: SqlConnection, tenant: str) -> None:
        """Put a session into a tenant."""
        if not self.per_transaction:
            connection.dirty = True
            await connection.run(self._dialect.use_tenant(tenant, local=False), None)

    def local_statement(self, tenant: str | None) -> str | None:
        """Return what a transaction begins with, where only transactions can be put into a tenant."""
        return self._dialect.use_tenant(tenant, local=True) if tenant and self.per_transaction else None

    async def check_same(self, tenant: str | None) -> None:
        """Refuse a client inside another one's block whose tenant is not that of the block."""
        found = await self.find()

        if found != tenant:
            message = (
                f"pool {self._name!r}: inside a block of tenant {tenant!r} the tenant has become {found!r}: "
                "end the block before, or take a client with alone=True"
            )
            raise UsageError(message, pool=self._name)

    def outside_transaction(self, tenant: str) -> UsageError:
        """Return the error of a statement that would run outside of its tenant."""
        message = (
            f"pool {self._name!r}: with prepared=False the tenant {tenant!r} holds for a transaction only: "
            "run the statement inside begin() or atomic()"
        )
        return UsageError(message, pool=self._name)
