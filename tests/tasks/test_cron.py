"""Crontab expressions as arithmetic on local time."""

from __future__ import annotations

import pytest

from ws_tasks import ScheduleError
from ws_tasks._cron import parse_cron


def minutes(expression: str) -> list[int]:
    """Return the minutes of the first hour that an expression names."""
    cron, moment = parse_cron(expression), 0
    found: list[int] = []

    while (moment := cron.at_or_after(moment) or 0) < 3600 and (not found or moment):
        found.append(moment // 60)
        moment += 60

    return found


class TestCronExpression:
    def test_gives_up_after_fifty_years(self) -> None:
        """An expression without dates answers None in both directions."""
        cron = parse_cron("0 0 1 1 *")
        cron = type(cron)("none", ["0"] * 6, cron._cron)
        cron._months = frozenset()
        assert cron.at_or_after(0) is None
        assert cron.at_or_before(0) is None
        assert cron.count(0, 10**9) == 0

    @pytest.mark.parametrize(
        ("field", "expected"),
        [
            ("5-5/20", [5]),  # Debian: a range of one value
            ("5-05/20", [5]),
            ("5/20", [5, 25, 45]),  # an extension of ours
            ("5-25/20", [5, 25]),
            ("1-1/7,10-12/2", [1, 10, 12]),
        ],
    )
    def test_steps(self, field: str, expected: list[int]) -> None:
        """A step in a range of one value changes nothing; after a single value it goes on to the end."""
        assert minutes(f"{field} 0 1 1 *") == expected

    def test_steps_of_names(self) -> None:
        """Names in a range of one value are values too."""
        assert parse_cron("0 0 * JAN-JAN/2 MON-1/3").at_or_after(0) == 4 * 86_400

    @pytest.mark.parametrize(
        ("expression", "remedy"),
        [
            ("0 0 L/2 * *", "the day-of-month field 'L/2' is wrong: the last day has no step, write L"),
            ("0 0 LW/2 * *", "write LW"),
            (
                "0 0 * * FRI-SUN",
                "the day-of-week field 'FRI-SUN' is wrong: a range goes upwards, write \"FRI-7\"",
            ),
            ("0 22-2 * * *", 'write "22-23,0-2"'),
            ("0 0 * NOV-FEB *", 'write "NOV-12,1-FEB"'),
            ("60-0 * * * *", "the minute field '60-0' is wrong"),
            ("5-5/0 * * * *", "the minute field '5-5/0' is wrong"),
            ("A-B * * * *", "the minute field 'A-B' is wrong"),
        ],
    )
    def test_refused(self, expression: str, remedy: str) -> None:
        """What Debian's cron does not know is refused, with what to write."""
        with pytest.raises(ScheduleError) as caught:
            parse_cron(expression)

        assert remedy in str(caught.value)
