"""When a task is due: pure functions of time, without clocks, timers or state.

A trigger answers three questions about its *nominal* times, the times at which runs should
happen: which is the first after a moment, which is the last up to a moment, and how many lie in
between. Being late, jitter and overlap are decided by the scheduler, not by the trigger.

Moments are float seconds: of the monotonic clock, or since the epoch when ``wall`` is true.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from ws_tasks._cron import DAY, parse_cron
from ws_tasks._timezones import is_fixed, resolve_zone
from ws_tasks._validation import check_seconds
from ws_tasks.errors import ScheduleError

__all__ = ("CronTrigger", "IntervalTrigger", "OnceTrigger", "Trigger")


class Trigger(Protocol):
    """The nominal times of a task."""

    wall: bool
    """Whether moments are seconds since the epoch rather than of the monotonic clock."""

    elapsed: bool
    """Whether the times follow elapsed time, so that a clock set back repeats them."""

    def after(self, moment: float) -> float | None:
        """Find the first nominal time after a moment, or None when there is none."""
        ...

    def last(self, moment: float) -> float | None:
        """Find the last nominal time up to and including a moment, or None when there is none."""
        ...

    def count(self, start: float, end: float) -> int:
        """Count the nominal times after ``start``, up to and including ``end``."""
        ...


class IntervalTrigger:
    """
    Every ``interval`` seconds from an origin: origin + n·interval, so errors never add up.

    Args:
        interval: Seconds between nominal times; more than 0.
        origin: The moment that n counts from. The origin itself is not a nominal time.
        wall: Whether the origin is in seconds since the epoch.

    Raises:
        ScheduleError: The interval is not a positive finite number.

    Example:
        >>> trigger = IntervalTrigger(10, origin=100)
        >>> trigger.after(100), trigger.after(119.9), trigger.last(119.9), trigger.count(100, 131)
        (110.0, 120.0, 110.0, 3)
    """

    __slots__ = ("elapsed", "interval", "origin", "wall")

    def __init__(self, interval: float, *, origin: float = 0.0, wall: bool = False) -> None:
        self.interval: float = check_seconds("interval", interval)
        self.origin: float = float(origin)
        self.wall: bool = wall
        self.elapsed: bool = True

    def __repr__(self) -> str:
        return f"IntervalTrigger({self.interval!r}, origin={self.origin!r}, wall={self.wall!r})"

    def after(self, moment: float) -> float:
        """Find the first nominal time after a moment."""
        return self._nth(max(self._index(moment) + 1, 1))

    def last(self, moment: float) -> float | None:
        """Find the last nominal time up to and including a moment."""
        index = self._index(moment)
        return self._nth(index) if index >= 1 else None

    def count(self, start: float, end: float) -> int:
        """Count the nominal times after ``start``, up to and including ``end``."""
        return max(0, self._index(end) - max(0, self._index(start)))

    def _nth(self, index: int) -> float:
        return self.origin + index * self.interval

    def _index(self, moment: float) -> int:
        """Number the last nominal time up to a moment; the division may err by one."""
        index = math.floor((moment - self.origin) / self.interval)

        if self._nth(index + 1) <= moment:
            return index + 1

        return index - 1 if self._nth(index) > moment else index


class OnceTrigger:
    """
    A single moment.

    Args:
        moment: The moment.
        wall: Whether it is in seconds since the epoch.

    Example:
        >>> trigger = OnceTrigger(50)
        >>> trigger.after(0), trigger.after(50), trigger.last(60), trigger.count(0, 60)
        (50.0, None, 50.0, 1)
    """

    __slots__ = ("elapsed", "moment", "wall")

    def __init__(self, moment: float, *, wall: bool = False) -> None:
        self.moment: float = float(moment)
        self.wall: bool = wall
        self.elapsed: bool = False

    def __repr__(self) -> str:
        return f"OnceTrigger({self.moment!r}, wall={self.wall!r})"

    def after(self, moment: float) -> float | None:
        """Find the moment when it still lies ahead."""
        return self.moment if moment < self.moment else None

    def last(self, moment: float) -> float | None:
        """Find the moment when it has come."""
        return self.moment if moment >= self.moment else None

    def count(self, start: float, end: float) -> int:
        """Return whether the moment lies after ``start``, up to and including ``end``."""
        return int(start < self.moment <= end)


class CronTrigger:
    """
    The times of a crontab expression in a time zone, as Debian's cron understands them.

    - Weekday 0 and 7 are Sunday. With ``*`` at the start of the day-of-month or weekday field
      both must match, otherwise one of them is enough.
    - When neither the minute nor the hour field starts with ``*``, the expression names *fixed*
      times of day: one that a change to summer time skips runs at the first instant that exists,
      and one that the change back repeats runs once, the first time.
    - All other expressions follow elapsed time: they neither run in a skipped hour nor pause in a
      repeated one.

    Args:
        expression: Five fields, or six with the seconds first, or a name such as ``@daily``.
        tz: See `ws_tasks.triggers.resolve_zone`; by default the environment decides, then UTC.

    Raises:
        ScheduleError: The expression or the zone is wrong.

    Example:
        >>> trigger = CronTrigger("30 3 * * *", tz="Europe/Riga")
        >>> before = datetime.fromisoformat("2021-03-28T00:00:00+02:00").timestamp()
        >>> trigger.at(trigger.after(before)).isoformat()  # 03:30 does not exist on this day
        '2021-03-28T04:00:00+03:00'
    """

    __slots__ = ("_cron", "_fixed_zone", "elapsed", "expression", "wall", "zone")

    def __init__(self, expression: str, *, tz: str | tzinfo | None = None) -> None:
        if not isinstance(expression, str):
            raise ScheduleError(f"a crontab expression must be text, not {expression!r}")

        self._cron = parse_cron(expression)
        self.expression: str = expression
        self.zone: tzinfo = resolve_zone(tz)
        self._fixed_zone = is_fixed(self.zone)
        self.elapsed: bool = not self._cron.fixed
        self.wall: bool = True

    def __repr__(self) -> str:
        return f"CronTrigger({self.expression!r}, tz={str(self.zone)!r})"

    def at(self, moment: float) -> datetime:
        """Show a moment as date and time in the trigger's zone."""
        return datetime.fromtimestamp(moment, self.zone)

    def after(self, moment: float) -> float | None:
        """Find the first nominal time after a moment, or None within fifty years."""
        second = math.floor(moment) + 1
        return self._next_elapsed(second) if self.elapsed else self._next_fixed(second)

    def last(self, moment: float) -> float | None:
        """Find the last nominal time up to and including a moment, or None within fifty years."""
        second = math.floor(moment)
        return self._last_elapsed(second) if self.elapsed else self._last_fixed(second)

    def count(self, start: float, end: float) -> int:
        """Count the nominal times after ``start``, up to and including ``end``."""
        low, high = math.floor(start), math.floor(end)

        if high <= low:
            return 0

        if not self.elapsed:
            named = self._cron.count(self._settled(low), self._settled(high))
            return named if self._fixed_zone else named - self._merged(low, high)

        total = 0

        while low < high:
            offset = self._offset(low + 1)
            until = min(self._constant_until(low + 1) - 1, high)
            total += self._cron.count(low + offset, until + offset)
            low = until

        return total

    # Elapsed time: walk through stretches in which the zone's offset is constant.

    def _next_elapsed(self, second: int) -> float | None:
        while True:
            offset = self._offset(second)
            local = self._cron.at_or_after(second + offset)

            if local is None:
                return None

            found = local - offset
            until = self._constant_until(second)

            if found < until:
                return float(found)

            # Nothing in this stretch. Look into the next one, for its local times may go back; but
            # days without a change can be skipped, since offsets differ by a day at most.
            second = max(until, found - 2 * DAY) if until == second + DAY else until

    def _last_elapsed(self, second: int) -> float | None:
        while True:
            offset = self._offset(second)
            local = self._cron.at_or_before(second + offset)

            if local is None:
                return None

            found = local - offset
            since = self._constant_since(second)

            if found >= since:
                return float(found)

            second = min(since - 1, found + 2 * DAY) if since == second - DAY + 1 else since - 1

    # Fixed times: each local time has one instant, and later local times never have earlier ones.

    def _next_fixed(self, second: int) -> float | None:
        # Not from this second's own local time: at the end of a gap those within it are due.
        local = self._cron.at_or_after(self._settled(second - 1) + 1)

        while local is not None:
            found = self._instant(local)

            if found >= second:
                return float(found)

            local = self._cron.at_or_after(local + 1)

        return None

    def _last_fixed(self, second: int) -> float | None:
        local = self._cron.at_or_before(self._settled(second))
        return None if local is None else float(self._instant(local))

    def _merged(self, low: int, high: int) -> int:
        """Count the local times that gaps after ``low``, up to ``high``, make one instant of with another."""
        merged = 0

        while (until := self._constant_until(low)) <= high:
            before, after = self._offset(until - 1), self._offset(until)

            if after > before:
                merged += max(0, self._cron.count(until + before - 1, until + after) - 1)

            low = until

        return merged

    def _settled(self, second: int) -> int:
        """Find the last local time whose instant is not after this one."""
        local = second + self._offset(second)

        if self._fixed_zone or not datetime.fromtimestamp(second, self.zone).fold:
            return local

        # The second pass of a repeated hour: the first pass has settled all of it.
        since = self._constant_since(second)
        return since - 1 + self._offset(since - 1)

    def _instant(self, local: int) -> int:
        """Find the instant of a local time: the first of two, or the end of the gap it falls in."""
        if self._fixed_zone:
            return local - self._offset(local)

        clock = datetime.fromtimestamp(local, UTC).replace(tzinfo=self.zone)
        offset = clock.utcoffset()
        second = local - (0 if offset is None else math.floor(offset.total_seconds()))

        if second + self._offset(second) == local:
            return second

        return self._constant_since(second)

    def _offset(self, second: int) -> int:
        offset = datetime.fromtimestamp(second, self.zone).utcoffset()
        return 0 if offset is None else math.floor(offset.total_seconds())

    def _constant_until(self, second: int) -> int:
        """Find where the offset next changes, looking one day ahead."""
        if self._fixed_zone or self._offset(second) == self._offset(second + DAY):
            return second + DAY

        return self._change(second, second + DAY)

    def _constant_since(self, second: int) -> int:
        """Find the start of the stretch with this offset, looking one day back."""
        if self._fixed_zone or self._offset(second) == self._offset(second - DAY):
            return second - DAY + 1

        return self._change(second - DAY, second)

    def _change(self, low: int, high: int) -> int:
        """Find the first second with another offset than at ``low``."""
        before = self._offset(low)

        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(middle) == before else (low, middle)

        return high
