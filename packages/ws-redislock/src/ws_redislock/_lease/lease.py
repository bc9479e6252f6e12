"""The arithmetic of a lease, apart from clocks, timers and Redis.

A lease is valid until *the time before its command was sent* + duration − drift. The server
began to count later than that, so it cannot have given the lock to another before our own
deadline, as long as the two clocks run at the same speed to within one per cent.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass

from ws_core.backoff import spread

Clock = Callable[[], float]

if hasattr(time, "CLOCK_BOOTTIME"):

    def boot_time() -> float:
        """Return seconds on a clock that never steps and goes on while the machine is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:  # pragma: no cover - a platform without that clock
    boot_time = time.monotonic


def drift(duration: float) -> float:
    """
    Return how much of a lease is given up for the clocks' disagreement, by Redlock's formula.

    One per cent is for the speed of the clocks, two milliseconds for the precision of Redis's.

    Example:
        >>> round(drift(10.0), 6)
        0.102
    """
    return duration * 0.01 + 0.002


class Action(enum.Enum):
    """What a watchdog has to do."""

    WAIT = "wait"
    RENEW = "renew"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: do `action` within (RENEW) or after (WAIT) `seconds`."""

    action: Action
    seconds: float = 0.0


class Lease:
    """
    One granted lease: when it ends and when it must be renewed.

    Example:
        >>> lease = Lease(30.0, sent_at=100.0)
        >>> lease.next_step(now=100.0)
        Step(action=<Action.WAIT: 'wait'>, seconds=10.0)
        >>> lease.next_step(now=110.0)
        Step(action=<Action.RENEW: 'renew'>, seconds=5.0)
        >>> lease.renewed(sent_at=110.0, now=110.2), round(lease.remaining(now=110.2), 3)
        (True, 29.498)
        >>> lease.next_step(now=139.7)
        Step(action=<Action.LOST: 'lost'>, seconds=0.0)
        >>> lease.renewed(sent_at=139.0, now=139.7)
        False
    """

    __slots__ = ("deadline", "duration", "over", "renew_at", "renewing")

    def __init__(self, duration: float, *, sent_at: float, renewing: bool = True) -> None:
        self.duration: float = duration
        self.renewing: bool = renewing
        self.over: bool = False
        self.deadline: float = sent_at + duration - drift(duration)
        self.renew_at: float = sent_at + duration / 3

    def valid(self, now: float) -> bool:
        """Return whether no other can hold the lock now."""
        return not self.over and now < self.deadline

    def remaining(self, now: float) -> float:
        """Return the seconds for which the lease is still valid; 0 when it is over."""
        return 0.0 if self.over else max(0.0, self.deadline - now)

    def end(self) -> None:
        """End the lease for good: released, or found to be lost."""
        self.over = True

    def renewed(self, *, sent_at: float, now: float) -> bool:
        """Take note of a renewal that the server granted."""
        if not self.valid(now):
            self.over = True
            return False

        self.deadline = sent_at + self.duration - drift(self.duration)
        self.renew_at = sent_at + self.duration / 3
        return True

    def next_step(self, now: float) -> Step:
        """Decide what the watchdog does now."""
        if not self.valid(now):
            return Step(Action.LOST)

        if not self.renewing:
            return Step(Action.WAIT, self.deadline - now)

        if now < self.renew_at:
            return Step(Action.WAIT, self.renew_at - now)

        # A sixth of the lease: the two thirds that are left are time enough for several attempts.
        return Step(Action.RENEW, min(self.duration / 6, self.deadline - now))

    def retry_pause(self, now: float) -> float:
        """Return how long to pause after a renewal that failed."""
        return min(spread(self.duration, 0.02, 0.1), max(0.0, self.deadline - now))
