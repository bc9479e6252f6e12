"""Connections beside the user's pool, for when it has none to spare."""

from __future__ import annotations

from typing import Any

from redis.exceptions import MaxConnectionsError

from ws_redislock._redis.spare_connection import is_small

__all__ = ("SpareConnections", "has_room", "is_small", "lend")


class SpareConnections:
    """
    Makes connections as a pool does, but does not count or keep them; stands in for the pool.

    Args:
        pool: The pool of a plain ``redis.Redis``.
    """

    __slots__ = ("_pool",)

    def __init__(self, pool: Any) -> None:  # Any: the driver types its pool for its own use only
        self._pool = pool

    def get_connection(self) -> Any:  # Any: as above
        """Return a new connection."""
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        connection.connect()
        return connection

    def release(self, connection: Any) -> None:  # Any: as above
        """Close a connection."""
        connection.disconnect()

    def get_encoder(self) -> Any:  # Any: as above
        """Return how the pool's connections encode."""
        return self._pool.get_encoder()


def has_room(pool: Any) -> bool:  # Any: as above
    """Tell whether a pool could give a connection now; one that would not wait for it says so itself."""
    waiting: Any = getattr(pool, "pool", None)  # Any: the queue of a BlockingConnectionPool
    return waiting is None or not waiting.empty()


def lend(pool: Any) -> tuple[Any, Any]:  # Any: as above
    """
    Take a connection.

    Args:
        pool: The pool.

    Returns:
        A connection, and the pool that it is to be given back to.
    """
    if has_room(pool):
        try:
            return pool.get_connection(), pool
        except MaxConnectionsError:
            pass

    beside = SpareConnections(pool)
    return beside.get_connection(), beside
