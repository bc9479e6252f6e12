"""Connections beside the user's pool, for when that has none to spare.

What an application does with the connections that it allows itself is its own affair. But no lease
may be lost, and no waiter count as dead, because they are all in use: then one more connection is
made, as the pool would make it, and closed after use.
"""

from __future__ import annotations

from typing import Any

FEW = 8
"""Pools with fewer connections than this keep them all for the application."""


class SpareConnections:
    """Makes connections as a pool does, but does not count or keep them; stands in for the pool."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Any) -> None:  # Any: the driver types its pool for its own use only
        self._pool = pool

    async def get_connection(self) -> Any:  # Any: as above
        """Return a new connection."""
        connection = self._pool.make_connection()

        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

        return connection

    async def release(self, connection: Any) -> None:  # Any: as above
        """Close a connection."""
        await connection.disconnect(nowait=True)

    def get_encoder(self) -> Any:  # Any: as above
        """Return how the pool's connections encode."""
        return self._pool.get_encoder()


def is_small(pool: Any) -> bool:  # Any: as above
    """Return whether a pool has so few connections that none may be kept for long."""
    return bool(pool.max_connections < FEW)


def has_room(pool: Any) -> bool:  # Any: as above
    """Return whether a pool could give a connection now."""
    return bool(pool.can_get_connection())
