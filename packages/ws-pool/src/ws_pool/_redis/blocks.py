"""The blocks in which a pool's clients live: ``async with pool.get_client() as client``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool

from ws_pool._redis.client.session import DedicatedRedis
from ws_pool._redis.client.shared import SharedRedis
from ws_pool.errors import UsageError
from ws_pool.pool import Lease

if TYPE_CHECKING:
    from ws_pool._redis.backend import Backend
    from ws_pool.redis import RedisPool

__all__ = ("DedicatedContext", "SharedContext")


class SharedContext(AbstractAsyncContextManager[Redis]):
    """Gives the shared client."""

    __slots__ = ("_pool",)

    def __init__(self, pool: RedisPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> SharedRedis:
        return self._pool.redis

    async def __aexit__(self, *exc: object) -> None:
        pass


class DedicatedContext(AbstractAsyncContextManager[Redis]):
    """
    Gives a client with a connection of its own.

    Args:
        lender: Gives what lends connections; raises when there is nothing to be had.
    """

    __slots__ = ("_assembly", "_client", "_lease", "_lender")

    def __init__(self, lender: Callable[[], Backend]) -> None:
        self._lender = lender
        self._assembly: Backend | None = None
        self._lease: Lease[AbstractConnection] | None = None
        self._client: DedicatedRedis | None = None

    async def __aenter__(self) -> DedicatedRedis:
        self._assembly = self._lender()
        self._lease, self._client = await self._assembly.lend()
        return self._client

    async def __aexit__(self, *exc: object) -> None:
        assembly, lease, client = self._assembly, self._lease, self._client
        self._assembly = self._lease = self._client = None

        if assembly is None or lease is None or client is None:
            return

        client.connection = None  # a stale handle must not reach the next holder's connection
        client.connection_pool = _Returned(assembly.name)
        assembly.take_back(lease)


class _Returned(ConnectionPool):
    """Takes the place of a connection that was given back."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._pool_name = name

    async def get_connection(self, *args: object, **options: object) -> AbstractConnection:  # noqa: ARG002 - redis-py's signature
        message = (
            f"redis pool {self._pool_name!r}: this client's connection was given back; take another client"
        )
        raise UsageError(message, pool=self._pool_name)
