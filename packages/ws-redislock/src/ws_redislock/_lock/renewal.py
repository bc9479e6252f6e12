"""The watchdog of one held lock: renews its lease, and says at once when it is lost.

It lives in the holder's event loop on purpose: a body that hangs the loop loses its lease.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Protocol

from ws_redislock._coordination.coordinator import Coordinator
from ws_redislock._lease.lease import Action, Clock, Lease
from ws_redislock._lease.timers import Timer
from ws_redislock._redis.scripts import load

__all__ = ("RenewalWatchdog",)


_log = logging.getLogger("ws_redislock")


class Losing(Protocol):
    """What is told of the loss."""

    def _lose(self, reason: str) -> None:
        """Take note, once, that the lease is lost."""


class RenewalWatchdog:
    """
    Keeps one lease.

    Args:
        coordinator: The coordinator of the lock.
        lease: The lease.
        token: The acquisition's token.
        keys: The keys of RENEW.
        args: The arguments of RENEW.
        target: Told when the lease is lost.
        clock: The clock of the lease.
    """

    __slots__ = (
        "_again",
        "_args",
        "_clock",
        "_coordinator",
        "_keys",
        "_lease",
        "_target",
        "_task",
        "_timer",
        "_token",
    )

    def __init__(  # noqa: PLR0913 - options, keyword-only
        self,
        coordinator: Coordinator,
        lease: Lease,
        token: str,
        *,
        keys: Sequence[bytes],
        args: Sequence[str | int],
        target: Losing,
        clock: Clock,
    ) -> None:
        self._coordinator = coordinator
        self._lease = lease
        self._token = token
        self._keys = keys
        self._args = args
        self._target = target
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._again = False

    def start(self) -> None:
        """Begin to watch."""
        self._coordinator.held[self._token] = self
        lease = self._lease
        first = lease.renew_at if lease.renewing else lease.deadline
        self._timer = self._coordinator.scripts.timers.call_later(first - self._clock(), self._due)

    def stop(self) -> None:
        """End: the lock is given back, or lost."""
        self._coordinator.held.pop(self._token, None)

        if self._timer is not None:
            self._coordinator.scripts.timers.cancel(self._timer)
            self._timer = None

        if self._task is not None:
            if self._task is not asyncio.current_task():
                self._task.cancel()

            self._task = None

    def look(self) -> None:
        """Check now whether the lock is still ours: somebody may have taken it away."""
        if self._task is not None:
            self._again = True  # a renewal under way may have been answered before it was taken
        elif not self._lease.over:
            self._task = self._coordinator.spawn(self._check)

    async def renew(self) -> bool:
        """
        Renew the lease now, at most once, within its own bounds.

        Returns:
            Whether the lease goes on; False means lost.

        Raises:
            TimeoutError: The server gave no answer; the lease still runs.
            ConnectionError: The same.
        """
        now = self._clock()

        if not self._lease.valid(now):
            self._lose("its deadline passed before it could be renewed")
            return False

        timeout = max(0.001, min(self._lease.duration / 6, self._lease.remaining(now)))
        reply = await self._coordinator.scripts.once(load("renew"), self._keys, self._args, timeout)

        if self._lease.over:
            return False

        if int(reply[0]) != 1:
            self._lose("the server does not know it any more")
            return False

        if not self._lease.renewed(sent_at=now, now=self._clock()):
            self._lose("its deadline passed before the renewal was answered")
            return False

        return True

    def _schedule(self) -> None:
        step = self._lease.next_step(self._clock())
        self._timer = self._coordinator.scripts.timers.call_later(step.seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        step = self._lease.next_step(self._clock())

        if step.action is Action.LOST:
            self._lose("its deadline passed")
        elif step.action is Action.WAIT:
            self._schedule()
        elif self._task is None:
            self._task = self._coordinator.spawn(self._keep)

    async def _keep(self) -> None:
        """Renew, with as many attempts as the lease allows."""
        while self._lease.next_step(self._clock()).action is Action.RENEW:
            try:
                if not await self.renew():
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, the deadline decides
                _log.debug("a renewal failed, and is tried again: %r", error)
                await asyncio.sleep(self._lease.retry_pause(self._clock(), random.random()))

        self._finish()

    async def _check(self) -> None:
        try:
            if not await self.renew():
                return
        except Exception as error:  # noqa: BLE001 - the next regular renewal will tell
            _log.debug("a look at a lease failed: %r", error)

        self._finish()

    def _finish(self) -> None:
        self._task = None

        if self._again:
            self._again = False
            self.look()
        elif self._timer is None and self._token in self._coordinator.held:
            self._due()

    def _lose(self, reason: str) -> None:
        if self._token in self._coordinator.held:
            self._lease.end()
            self.stop()
            self._target._lose(reason)
