"""The watchdog of one held lock, in threads; the twin of `ws_redislock._lock.renewal`.

Here it lives beside the body, so that a body that hangs keeps its lease while the process lives.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence

from ws_redislock._lease.lease import Action, Clock, Lease
from ws_redislock._lock.renewal import Losing
from ws_redislock._redis.scripts import load
from ws_redislock.sync._coordination.coordinator import Coordinator
from ws_redislock.sync._lease.timers import Timer, call_at

__all__ = ("RenewalWatchdog",)


_log = logging.getLogger("ws_redislock")


class RenewalWatchdog:
    """Keeps one lease; see the twin for its arguments."""

    __slots__ = (
        "_args",
        "_clock",
        "_coordinator",
        "_end",
        "_keys",
        "_lease",
        "_renewing",
        "_target",
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
        self._timer: Timer | None = None
        self._end: Timer | None = None
        self._renewing = threading.Lock()

    def start(self) -> None:
        """Begin to watch."""
        self._coordinator.held[self._token] = self
        self._schedule()

    def stop(self) -> None:
        """End: the lock is given back, or lost."""
        self._coordinator.held.pop(self._token, None)

        for timer in (self._timer, self._end):
            if timer is not None:
                timer.cancel()

    def look(self) -> None:
        """Check now whether the lock is still ours: somebody may have taken it away."""
        if not self._lease.over:
            self._coordinator.spawn(self._check)

    def renew(self) -> bool:
        """Renew the lease now, at most once, within its own bounds; return whether it goes on."""
        with self._renewing:
            now = self._clock()

            if not self._lease.valid(now):
                self._lose("its deadline passed before it could be renewed")
                return False

            within = max(0.001, min(self._lease.duration / 6, self._lease.remaining(now)))
            reply = self._coordinator.scripts.once(load("renew"), self._keys, self._args, within)

            if self._token not in self._coordinator.held:
                return False

            if int(reply[0]) != 1:
                self._lose("the server does not know it any more")
                return False

            if not self._lease.renewed(sent_at=now, now=self._clock()):
                self._lose("its deadline passed before the renewal was answered")
                return False

            return True

    def _schedule(self) -> None:
        if self._token in self._coordinator.held:
            step = self._lease.next_step(self._clock())
            self._timer = call_at(time.monotonic() + step.seconds, self._due)

    def _due(self) -> None:
        # The driver may hold a renewal up for longer than the lease: the deadline has its own timer.
        left = self._lease.remaining(self._clock())
        self._end = call_at(time.monotonic() + left, self._expire)

        try:
            self._keep()
        finally:
            self._end.cancel()

    def _expire(self) -> None:
        if not self._lease.valid(self._clock()):
            self._lose("its deadline passed")

    def _keep(self) -> None:
        while (step := self._lease.next_step(self._clock())).action is Action.RENEW:
            try:
                if not self.renew():
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, the deadline decides
                _log.debug("a renewal failed, and is tried again: %r", error)
                time.sleep(self._lease.retry_pause(self._clock(), random.random()))

        if step.action is Action.LOST:
            self._lose("its deadline passed")
        else:
            self._schedule()

    def _check(self) -> None:
        try:
            self.renew()
        except Exception as error:  # noqa: BLE001 - the next regular renewal will tell
            _log.debug("a look at a lease failed: %r", error)

    def _lose(self, reason: str) -> None:
        if self._coordinator.held.pop(self._token, None) is not None:
            self._lease.end()
            self.stop()
            self._target._lose(reason)
