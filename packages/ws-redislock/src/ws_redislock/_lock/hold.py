"""Holding a lock for a block of code."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Protocol

from ws_redislock._lease.cancel_scope import CancelScope
from ws_redislock._lock.held import Held
from ws_redislock.errors import LockNotAcquired, UnavailableError

_logger = logging.getLogger("ws_redislock")


class Holdable(Protocol):
    """What a hold works on: a lock."""

    @property
    def name(self) -> str:
        """The lock's name."""
        ...

    async def acquire(self, timeout: float | None = 0) -> bool:
        """Acquire the lock."""
        ...

    async def release(self) -> bool:
        """Release the lock."""
        ...

    def current(self) -> Held:
        """Return the current acquisition."""
        ...

    def _holds(self, held: Held) -> bool:
        """Return whether an acquisition is the current one."""
        ...

    async def _close_after_hold(self) -> None:
        """Close an own client after the block."""


class Hold:
    """The context manager of `BaseLock.hold`."""

    __slots__ = ("_held", "_lock", "_scope", "_timeout")

    def __init__(self, lock: Holdable, timeout: float | None) -> None:
        self._lock = lock
        self._timeout = timeout
        self._held: Held | None = None
        self._scope: CancelScope | None = None

    async def __aenter__(self) -> Held:
        await self.acquire()
        return self._enter()

    async def acquire(self) -> Held:
        """Acquire the lock; the block that a loss cancels has not begun yet."""
        try:
            acquired = await self._lock.acquire(self._timeout)
        except BaseException:
            await self._lock._close_after_hold()
            raise

        if not acquired:
            await self._lock._close_after_hold()
            raise LockNotAcquired(
                f"lock {self._lock.name!r} was not free within {self._timeout:g} s",
                lock=self._lock.name,
                timeout=self._timeout,
            )

        held = self._held = self._lock.current()
        return held

    def _enter(self) -> Held:
        """Begin the block: it is cancelled when the lock is lost, or was lost by now."""
        held = self._held
        assert held is not None
        self._scope = CancelScope()
        held._enter(self._scope)

        if not held.locked:
            self._scope.cancel(f"lock {held.name!r} was lost before the block began")

        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held, scope = self._held, self._scope
        assert held is not None
        assert scope is not None
        held._leave(scope)
        kept = True

        try:
            ours = await scope.leave(error)
        finally:
            try:
                # The body may have released it itself: that is not a loss.
                kept = await self._lock.release() if self._lock._holds(held) else not held.lost
            except UnavailableError as failure:
                # The body's work was done under a valid lease, and that is what counts here.
                _logger.warning("%s", failure)
            finally:
                await self._lock._close_after_hold()

        if not kept and (ours or error is None):
            raise held._loss() from error
