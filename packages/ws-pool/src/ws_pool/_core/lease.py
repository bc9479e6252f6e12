"""A connection on loan, by hand or for a block."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from ws_pool._core.pool_state import PoolEntry
from ws_pool.errors import UsageError

if TYPE_CHECKING:
    from ws_pool.pool import Pool

__all__ = ("Lease", "LeaseContext")

T = TypeVar("T")


class Lease(Generic[T]):
    """
    A connection on loan. After the release the handle is dead and says so.

    Made by `Pool.acquire`.
    """

    __slots__ = ("__weakref__", "_pool", "_slot")

    def __init__(self, pool: Pool[T], slot: PoolEntry[T]) -> None:
        self._pool = pool
        self._slot: PoolEntry[T] | None = slot

    def __repr__(self) -> str:
        state = "released" if self._slot is None else repr(self._slot.conn)
        return f"<Lease of pool {self._pool.name!r}: {state}>"

    @property
    def connection(self) -> T:
        """
        The connection.

        Raises:
            UsageError: The lease was released.
        """
        slot = self._slot

        if slot is None:
            message = f"pool {self._pool.name!r}: this connection was released; acquire another one"
            raise UsageError(message, pool=self._pool.name)

        return slot.conn

    def __del__(self) -> None:
        slot = self._slot

        if slot is not None:
            self._pool._abandoned(slot)  # noqa: SLF001 - a lease is the pool's own half


class LeaseContext(Generic[T]):
    """
    Holds a lease for the length of an ``async with`` block.

    Args:
        pool: Where the connection comes from.
        timeout: Seconds to wait for it; None for the pool's own limit.
    """

    __slots__ = ("_lease", "_pool", "_timeout")

    def __init__(self, pool: Pool[T], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lease: Lease[T] | None = None

    async def __aenter__(self) -> T:
        self._lease = await self._pool.acquire(timeout=self._timeout)
        return self._lease.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, self._lease = self._lease, None

        if lease is not None:
            self._pool.release(lease)
