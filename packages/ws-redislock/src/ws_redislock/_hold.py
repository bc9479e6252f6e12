"""Holding a lock for a block of code."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING

from ws_redislock._held import Held
from ws_redislock._scope import BodyScope
from ws_redislock.errors import LockNotAcquired, UnavailableError

if TYPE_CHECKING:
    from ws_redislock._lock import BaseLock

__all__ = ("Hold",)

_log = logging.getLogger("ws_redislock")


class Hold:
    """The context manager of `BaseLock.hold`."""

    __slots__ = ("_held", "_lock", "_scope", "_timeout")

    def __init__(self, lock: BaseLock, timeout: float | None) -> None:
        self._lock = lock
        self._timeout = timeout
        self._held: Held | None = None
        self._scope: BodyScope | None = None

    async def __aenter__(self) -> Held:
        if not await self._lock.acquire(self._timeout):
            raise LockNotAcquired(
                f"lock {self._lock.name!r} was not free within {self._timeout:g} s",
                lock=self._lock.name,
                timeout=self._timeout,
            )

        held = self._held = self._lock.current()
        self._scope = BodyScope()
        held.enter(self._scope)

        if held.lost:
            self._scope.cancel("lost at once")

        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held, scope = self._held, self._scope
        assert held is not None  # noqa: S101 - tells the type checker
        assert scope is not None  # noqa: S101 - the same
        held.leave(scope)
        kept = True

        try:
            ours = await scope.leave(error)
        finally:
            try:
                kept = await self._lock.release()
            except UnavailableError as failure:
                # The body's work was done under a valid lease, and that is what counts here.
                _log.warning("%s", failure)

        if not kept and (ours or error is None):
            raise held.loss() from error
