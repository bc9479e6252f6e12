"""A crontab expression as arithmetic on local time.

Local time here is an integer: the seconds since 1970-01-01 00:00 on a clock that knows no
zones. A day's named seconds are numbered 0 … ``per_day`` - 1, so that "the next one", "the last
one" and "how many in between" are look-ups and subtractions, however long the gap is.

cronsim parses the fields and decides on days (Debian's day rules, ``L``, ``LW``, ``MON#2``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import date, datetime
from functools import lru_cache

from cronsim import CronSim, CronSimError

from ws_tasks.errors import ScheduleError

DAY = 86_400
EPOCH = date(1970, 1, 1).toordinal()
_HORIZON_MONTHS = 12 * 50  # the 29th of February on a given weekday comes each 28 years, or each 40

_FIELDS = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
_LIMITS = {"second": (0, 59), "minute": (0, 59), "hour": (0, 23), "day-of-month": (1, 31), "month": (1, 12)}
_LIMITS["day-of-week"] = (0, 7)
_NAMES = {
    "day-of-week": ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
    "month": ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
}
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class CronExpression:
    """The local times that a crontab expression names."""

    __slots__ = ("_cron", "_memo", "_minutes", "_months", "_seconds", "expression", "fixed", "per_day")

    def __init__(self, expression: str, fields: list[str], cron: CronSim) -> None:
        self.expression = expression
        self.fixed = not (fields[1].startswith("*") or fields[2].startswith("*"))
        self._cron = cron
        self._months = frozenset(cron.months)
        self._seconds = tuple(sorted(cron.seconds))
        self._minutes = tuple(60 * hour + m for hour in sorted(cron.hours) for m in sorted(cron.minutes))
        self.per_day = len(self._minutes) * len(self._seconds)
        self._memo: tuple[int, int, tuple[int, ...]] = (0, 0, ())

    def at_or_after(self, moment: int) -> int | None:
        """Find the first named time at or after a local time, or None within fifty years."""
        day, second = divmod(moment, DAY)
        rank = self._rank(second)

        for ordinal in self._days_from(day + EPOCH):
            # Only on the first day the time of day matters; later days begin with their first second.
            if ordinal > day + EPOCH:
                rank = 0

            if rank < self.per_day:
                return (ordinal - EPOCH) * DAY + self._nth(rank)

        return None

    def at_or_before(self, moment: int) -> int | None:
        """Find the last named time at or before a local time, or None within fifty years."""
        day, second = divmod(moment, DAY)
        rank = self._rank(second + 1) - 1

        for ordinal in self._days_from(day + EPOCH, -1):
            if ordinal < day + EPOCH:
                rank = self.per_day - 1

            if rank >= 0:
                return (ordinal - EPOCH) * DAY + self._nth(rank)

        return None

    def count(self, start: int, end: int) -> int:
        """Count the named times after ``start``, up to and including ``end``."""
        if end <= start:
            return 0

        first_day, first_second = divmod(start + 1, DAY)
        last_day, last_second = divmod(end, DAY)
        total = 0

        for ordinal in self._days_from(first_day + EPOCH):
            day = ordinal - EPOCH

            if day > last_day:
                break

            low = self._rank(first_second) if day == first_day else 0
            high = self._rank(last_second + 1) if day == last_day else self.per_day
            total += high - low

        return total

    def _rank(self, second: int) -> int:
        """Count the named seconds of a day before this one."""
        minute, rest = divmod(second, 60)
        index = bisect_left(self._minutes, minute)
        rank = index * len(self._seconds)

        if index < len(self._minutes) and self._minutes[index] == minute:
            rank += bisect_left(self._seconds, rest)

        return rank

    def _nth(self, rank: int) -> int:
        minute, second = divmod(rank, len(self._seconds))
        return self._minutes[minute] * 60 + self._seconds[second]

    def _days_from(self, ordinal: int, step: int = 1) -> Iterator[int]:
        """Yield the ordinals of named days from a day on, for fifty years; with a step of -1 backwards."""
        start = date.fromordinal(ordinal)
        first = start.year * 12 + start.month - 1

        for number in range(first, first + step * _HORIZON_MONTHS, step):
            year, month = divmod(number, 12)

            for found in self._days(year, month + 1)[::step]:
                if (found - ordinal) * step >= 0:
                    yield found

    def _days(self, year: int, month: int) -> tuple[int, ...]:
        """Return the ordinals of the named days of a month; the last month is remembered."""
        if month not in self._months:
            return ()

        known_year, known_month, days = self._memo

        if (known_year, known_month) != (year, month):
            first = date(year, month, 1).toordinal()
            after = date(year + month // 12, month % 12 + 1, 1).toordinal()
            days = tuple(o for o in range(first, after) if self._cron.match_day(date.fromordinal(o)))
            self._memo = (year, month, days)

        return days


@lru_cache(maxsize=1024)
def parse_cron(expression: str) -> CronExpression:
    """Parse five fields, six with the seconds first, or an @name; equal texts share one object."""
    text = expression.strip()

    if text.startswith("@"):
        if text.lower() not in _ALIASES:
            message = f"crontab {expression!r} is not a known name: use one of {', '.join(_ALIASES)}"
            raise ScheduleError(message, expression=expression)

        text = _ALIASES[text.lower()]

    fields = text.upper().split()

    if len(fields) not in {5, 6}:
        message = f"crontab {expression!r} has {len(fields)} fields: write 5, or 6 with the seconds first"
        raise ScheduleError(message, expression=expression)

    if len(fields) == 5:
        fields.insert(0, "0")

    fields = [
        ",".join(_plain_term(expression, name, term) for term in field.split(","))
        for name, field in zip(_FIELDS, fields, strict=True)
    ]
    cron = CronExpression(expression, fields, _parse(expression, fields))

    if cron.at_or_after(0) is None:
        message = f"crontab {expression!r} names no date within fifty years: check day, month and weekday"
        raise ScheduleError(message, expression=expression)

    return cron


def _plain_term(expression: str, name: str, term: str) -> str:
    """Return one term of a field as cronsim understands it in Debian's sense, or refuse it."""
    range_, slash, step = term.partition("/")
    first, dash, last = range_.partition("-")

    if slash and range_ in {"L", "LW"}:
        message = f"crontab {expression!r}: the {name} field {term!r} is wrong: the last day has no step"
        raise ScheduleError(f"{message}, write {range_}", expression=expression, field=term)

    if not dash:
        return term

    low, high = _number(name, first), _number(name, last)

    least, most = _LIMITS[name]

    if low is None or high is None or not (least <= low <= most and least <= high <= most):
        return term  # cronsim says what is wrong

    if low == high and slash and step.isdecimal() and int(step):
        # Debian's cron: a range of one value is that value, whatever the step. For cronsim it is one
        # value with a step, which is an extension: N/S means "from N to the end, each S".
        return first

    if high < low:
        message = f"crontab {expression!r}: the {name} field {term!r} is wrong: a range goes upwards"
        remedy = f"{first}-{most}" if last in {"0", "SUN"} else f"{first}-{most},{least}-{last}"
        raise ScheduleError(f'{message}, write "{remedy}"', expression=expression, field=term)

    return term


def _number(name: str, text: str) -> int | None:
    """Return the value of a number or name in a field, or None when it is neither."""
    if text.isdecimal():
        return int(text)

    names = _NAMES.get(name, ())
    return names.index(text) + (name == "month") if text in names else None


def _parse(expression: str, fields: list[str]) -> CronSim:
    try:
        return CronSim(" ".join(fields), datetime(2000, 1, 1))  # noqa: DTZ001 - local time without a zone
    except CronSimError as error:
        name = str(error).removeprefix("Bad ")
        field = fields[_FIELDS.index(name)]
        message = f"crontab {expression!r}: the {name} field {field!r} is wrong"
        raise ScheduleError(message, expression=expression, field=name) from None
