"""What the parts of a pool share: its lifecycle, its options and its hooks."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from ws_pool._core.connector import Connector
from ws_pool.errors import UsageError

logger = logging.getLogger("ws_pool")

T = TypeVar("T")


class Lifecycle(Enum):
    """The state that a pool passes through once."""

    NEW = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class PoolHooks(Generic[T]):
    """
    Functions called with each connection; what they return is awaited if it can be.

    A hook that raises an error is logged, and changes nothing; but what ``setup`` raises, the caller of
    `acquire` gets, since a connection that is not set up would do other things than it should.
    """

    pool: str
    on_open: Callable[[T], object] | None = None
    on_acquire: Callable[[T], object] | None = None
    on_release: Callable[[T], object] | None = None
    on_close: Callable[[T], object] | None = None
    setup: Callable[[T], object] | None = None

    def call(self, hook: Callable[[T], object] | None, conn: T) -> Awaitable[object] | None:
        """Call a hook, if there is one, and return what is left to be awaited."""
        if hook is None:
            return None

        try:
            result = hook(conn)
        except Exception:
            logger.exception("pool %r: the hook %r failed", self.pool, hook)
            return None

        return result if inspect.isawaitable(result) else None

    async def run(self, hook: Callable[[T], object] | None, conn: T) -> None:
        """Call a hook, if there is one, and await it."""
        if (pending := self.call(hook, conn)) is not None:
            await self.finish(pending)

    async def finish(self, pending: Awaitable[object], timeout: float | None = None) -> bool:
        """Await what a hook has returned; return False if it was cut short by the timeout."""
        limit = asyncio.timeout(timeout)
        name = getattr(pending, "__qualname__", pending)

        try:
            async with limit:
                await pending
        except Exception:
            if not limit.expired():
                logger.exception("pool %r: the hook %s failed", self.pool, name)

        if limit.expired():
            logger.error("pool %r: the hook %s took longer than %g s", self.pool, name, timeout)

        return not limit.expired()


@dataclass(frozen=True, slots=True)
class PoolOptions(Generic[T]):
    """The options of `ws_pool.pool.Pool` that its parts need. Times are in seconds."""

    name: str
    connector: Connector[T]
    connect_timeout: float
    ping_after: float
    ping_timeout: float
    max_lifetime: float | None
    max_idle: float
    keepalive: float | None
    max_waiting: int | None
    is_refusal: Callable[[BaseException], bool] | None
    is_lost: Callable[[T], bool] | None
    hooks: PoolHooks[T]


def check_numbers(*, min_size: int, max_size: int, max_connecting: int) -> None:
    """Refuse bounds that don't fit together."""
    if not 0 <= min_size <= max_size or max_size < 1 or max_connecting < 1:
        message = (
            "a pool needs 0 <= min_size <= max_size, max_size >= 1 and max_connecting >= 1, "
            f"not min_size={min_size}, max_size={max_size}, max_connecting={max_connecting}"
        )
        raise UsageError(message)
