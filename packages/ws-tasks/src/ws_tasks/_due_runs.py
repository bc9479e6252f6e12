"""Which run is made of those that are due: one pure decision."""

from __future__ import annotations

from typing import NamedTuple

from ws_tasks.triggers import Trigger


class Decision(NamedTuple):
    """What to do about a task that is due."""

    nominal: float | None  # the nominal time to run for; None when all are too late
    following: float | None  # the next nominal time to wait for; None when there is none
    coalesced: int  # how many nominal times are passed over in favour of a later one
    late: float  # seconds between the nominal time decided on and now


def decide(trigger: Trigger, nominal: float, now: float, *, latest: bool, grace: float | None) -> Decision:
    """Decide which run to make now and when to look again; ``now`` is without the jitter."""
    # There are three cases: the next nominal time is still ahead, so this one is run; more have
    # passed and only the latest counts; or more have passed and each counts, so this one is run and
    # the next is due at once.
    following = trigger.after(nominal)
    coalesced = 0

    if latest and following is not None and following <= now:
        newest = trigger.last(now)

        # A trigger of the user's own may disagree with itself: then this one is run.
        if newest is not None and newest > nominal:
            coalesced = trigger.count(nominal, newest)
            nominal = newest
            following = trigger.after(newest)

    late = max(0.0, now - nominal)
    too_late = grace is not None and late > grace
    return Decision(None if too_late else nominal, following, coalesced, late)
