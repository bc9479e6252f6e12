"""The handle of a leased connection, taken by hand or for a block."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, Protocol, TypeVar

from ws_pool._core.pool_state import PoolEntry
from ws_pool.errors import UsageError

T = TypeVar("T")


class LeaseOwner(Protocol[T]):
    """What a lease needs of the `ws_pool.pool.Pool` that it belongs to."""

    name: str

    async def acquire(self, *, timeout: float | None = None) -> Lease[T]: ...
    def release(self, lease: Lease[T], *, discard: bool = False) -> None: ...
    def _abandoned(self, entry: PoolEntry[T]) -> None: ...


class Lease(Generic[T]):
    """
    A leased connection. After its release the handle is dead, and every use of it is an error.

    Made by `Pool.acquire`.
    """

    __slots__ = ("__weakref__", "_entry", "_pool")

    def __init__(self, pool: LeaseOwner[T], entry: PoolEntry[T]) -> None:
        self._pool = pool
        self._entry: PoolEntry[T] | None = entry

    def __repr__(self) -> str:
        state = "released" if self._entry is None else repr(self._entry.conn)
        return f"<Lease of pool {self._pool.name!r}: {state}>"

    @property
    def connection(self) -> T:
        """The connection; a `UsageError` when the lease was released."""
        entry = self._entry

        if entry is None:
            message = f"pool {self._pool.name!r}: this connection was released; acquire another one"
            raise UsageError(message, pool=self._pool.name)

        return entry.conn

    def __del__(self) -> None:
        entry = self._entry

        if entry is not None:
            self._pool._abandoned(entry)


class LeaseContext(Generic[T]):
    """Holds a lease for the length of an ``async with`` block."""

    __slots__ = ("_lease", "_pool", "_timeout")

    def __init__(self, pool: LeaseOwner[T], timeout: float | None) -> None:
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
