"""What the two halves of a pool agree on: its state, its durations, its hooks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from ws_pool.errors import UsageError

__all__ = ("Lifecycle", "PoolHooks", "PoolOptions", "check_numbers")

logger = logging.getLogger("ws_pool")

T = TypeVar("T")


class Lifecycle(Enum):
    """Where a pool is in its life."""

    NEW = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """A pool's durations in seconds; see `ws_pool.pool.Pool`."""

    connect_timeout: float
    ping_after: float
    ping_timeout: float
    max_lifetime: float | None
    max_idle: float
    leak_threshold: float | None
    is_refusal: Callable[[BaseException], bool] | None = None


@dataclass(frozen=True, slots=True)
class PoolHooks(Generic[T]):
    """What to call at a connection's turns; a hook that raises is logged, nothing more."""

    pool: str
    on_open: Callable[[T], object] | None = None
    on_acquire: Callable[[T], object] | None = None
    on_release: Callable[[T], object] | None = None
    on_close: Callable[[T], object] | None = None

    def call(self, hook: Callable[[T], object] | None, conn: T) -> object:
        """
        Call a hook, if there is one.

        Args:
            hook: One of these.
            conn: The connection.

        Returns:
            What the hook returned.
        """
        if hook is None:
            return None

        try:
            return hook(conn)
        except Exception:
            logger.exception("pool %r: the hook %r failed", self.pool, hook)
            return None

    async def opened(self, conn: T) -> None:
        """
        Call ``on_open``, which may be a coroutine function.

        Args:
            conn: The connection.
        """
        answer = self.call(self.on_open, conn)

        if inspect.isawaitable(answer):
            try:
                await answer
            except Exception:
                logger.exception("pool %r: the hook on_open failed", self.pool)


def check_numbers(*, min_size: int, max_size: int, max_connecting: int) -> None:
    """
    Check that a pool's bounds fit together.

    Args:
        min_size: Connections kept open.
        max_size: Most connections.
        max_connecting: Most connections to open at once.

    Raises:
        UsageError: They don't.
    """
    if not 0 <= min_size <= max_size or max_size < 1 or max_connecting < 1:
        message = (
            "a pool needs 0 <= min_size <= max_size, max_size >= 1 and max_connecting >= 1, "
            f"not min_size={min_size}, max_size={max_size}, max_connecting={max_connecting}"
        )
        raise UsageError(message)
