"""The watchdog of one held lock: renews its lease, and reports at once when it is lost.

For tasks it lives in the holder's event loop on purpose: a body that blocks the loop loses its lease.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from ws_redislock._concurrency import Job, current_task, sleep
from ws_redislock._coordination.coordinator import Coordinator
from ws_redislock._lease.lease import Action, Clock, Lease
from ws_redislock._lease.timers import Timer
from ws_redislock._redis.scripts import load

_logger = logging.getLogger("ws_redislock")


class Losing(Protocol):
    """What is notified of the loss."""

    def _lose(self, reason: str) -> None:
        """Take note, once, that the lease is lost."""


class RenewalWatchdog:
    """Keeps one lease by RENEW, and notifies `target` when it is lost."""

    __slots__ = (
        "_again",
        "_args",
        "_clock",
        "_coordinator",
        "_job",
        "_keys",
        "_lease",
        "_target",
        "_timer",
        "_token",
    )

    def __init__(
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
        self._job: Job | None = None
        self._timer: Timer | None = None
        self._again = False

    def start(self) -> None:
        """Begin to watch."""
        self._coordinator.held[self._token] = self
        lease = self._lease
        first = (lease.renew_at if lease.renewing else lease.deadline) - self._clock()
        self._timer = self._coordinator.timers.call_later(first, self._decide)

    def stop(self) -> None:
        """End: the lock is released, or lost."""
        self._coordinator.held.pop(self._token, None)

        with self._coordinator.mutex:
            self._cancel_timer()
            job, self._job = self._job, None

        if job is not None and job is not current_task():
            job.cancel()

    def look(self) -> None:
        """Check now whether the lock is still ours: it may have been taken away."""
        with self._coordinator.mutex:
            if self._job is not None:
                self._again = True  # the renewal in flight may have been answered before it was taken
            elif not self._lease.over:
                self._job = self._coordinator.spawn(self._check)

    async def renew(self) -> bool:
        """Renew the lease now, at most once, within its own bounds; return whether it goes on."""
        now = self._clock()

        if not self._lease.valid(now):
            self._lose("its deadline passed before it could be renewed")
            return False

        within = max(0.001, min(self._lease.duration / 6, self._lease.remaining(now)))
        reply = await self._coordinator.scripts.once(load("renew"), self._keys, self._args, within)

        if self._lease.over:
            return False

        if int(reply[0]) != 1:
            self._lose("the server does not know it any more")
            return False

        if not self._lease.renewed(sent_at=now, now=self._clock()):
            self._lose("its deadline passed before the renewal was answered")
            return False

        return True

    def _set_timer(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self._coordinator.timers.call_later(seconds, self._decide)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._coordinator.timers.cancel(self._timer)
            self._timer = None

    def _decide(self) -> None:
        """Do what the lease wants done now."""
        with self._coordinator.mutex:
            self._timer = None
            now = self._clock()
            step = self._lease.next_step(now)

            if self._lease.over:
                return

            if step.action is Action.WAIT:
                self._set_timer(step.seconds)
                return

            if step.action is Action.RENEW:
                # The deadline has its own timer: a driver may hold a renewal up for longer than the lease.
                self._set_timer(self._lease.remaining(now))

                if self._job is None:
                    self._job = self._coordinator.spawn(self._keep)

                return

        self._lose("its deadline passed")

    async def _keep(self) -> None:
        """Renew, with as many attempts as the lease allows."""
        while self._lease.next_step(self._clock()).action is Action.RENEW:
            try:
                if not await self.renew():
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, the deadline decides
                _logger.debug("a renewal failed, and is tried again: %r", error)
                await sleep(self._lease.retry_pause(self._clock()))

        self._finish()

    async def _check(self) -> None:
        try:
            if not await self.renew():
                return
        except Exception as error:  # noqa: BLE001 - the next regular renewal decides
            _logger.debug("a look at a lease failed: %r", error)

        self._finish()

    def _finish(self) -> None:
        with self._coordinator.mutex:
            self._job = None

            if self._token not in self._coordinator.held:
                return

            self._cancel_timer()
            again, self._again = self._again, False

        self._decide()

        if again:
            self.look()

    def _lose(self, reason: str) -> None:
        if self._coordinator.held.pop(self._token, None) is not None:
            self._lease.end()
            self.stop()
            self._target._lose(reason)
