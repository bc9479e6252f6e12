"""What to do about a task that is due: one pure decision."""

from __future__ import annotations

from typing import NamedTuple

from ws_tasks.triggers import Trigger

__all__ = ("Decision", "decide")


class Decision(NamedTuple):
    """
    The decision.

    Args:
        nominal: The nominal time to run for, or None to make no run because all are too late.
        following: The next nominal time to wait for, or None when there is none.
        coalesced: How many nominal times are passed over in favour of a later one.
        late: Seconds between the nominal time decided on and now.
    """

    nominal: float | None
    following: float | None
    coalesced: int
    late: float


def decide(trigger: Trigger, nominal: float, now: float, *, latest: bool, grace: float | None) -> Decision:
    """
    Decide which run to make now and when to look again.

    There are three cases: the next nominal time is still ahead, so this one is run; more have
    passed and only the latest counts; or more have passed and each counts, so this one is run and
    the next is due at once.

    Args:
        trigger: The task's trigger.
        nominal: The nominal time that is due.
        now: The current moment on the trigger's clock, less the jitter that was added.
        latest: Whether to pass over all but the latest nominal time.
        grace: How many seconds late a run may be, or None for any.

    Returns:
        The decision.
    """
    following = trigger.after(nominal)
    coalesced = 0

    if latest and following is not None and following <= now:
        newest = trigger.last(now)

        if newest is not None and newest > nominal:
            coalesced = trigger.count(nominal, newest)
            nominal = newest
            following = trigger.after(newest)

    late = max(0.0, now - nominal)
    too_late = grace is not None and late > grace
    return Decision(None if too_late else nominal, following, coalesced, late)
