"""Crontab expressions as arithmetic on local time."""

from __future__ import annotations

from ws_tasks._cron import parse_cron


class TestCronExpression:
    def test_gives_up_after_fifty_years(self) -> None:
        """An expression without dates answers None in both directions."""
        cron = parse_cron("0 0 1 1 *")
        cron = type(cron)("none", ["0"] * 6, cron._cron)
        cron._months = frozenset()
        assert cron.at_or_after(0) is None
        assert cron.at_or_before(0) is None
        assert cron.count(0, 10**9) == 0
