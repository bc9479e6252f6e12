"""Which time zone a task means."""

from __future__ import annotations

from datetime import UTC, datetime, timezone
from zoneinfo import ZoneInfo

import pytest

from ws_tasks import ScheduleError
from ws_tasks._timezones import resolve_zone
from ws_tasks.triggers import CronTrigger


class TestResolveZone:
    def test_order(self) -> None:
        """The argument wins, then WS_TIMEZONE, then _TIMEZONE, then UTC."""
        environ = {"WS_TIMEZONE": "Europe/Riga", "_TIMEZONE": "Asia/Shanghai"}
        assert resolve_zone("Europe/Paris", environ) == ZoneInfo("Europe/Paris")
        assert resolve_zone(None, environ) == ZoneInfo("Europe/Riga")
        assert resolve_zone(None, {"WS_TIMEZONE": " ", "_TIMEZONE": "Asia/Shanghai"}) == ZoneInfo(
            "Asia/Shanghai"
        )
        assert resolve_zone(None, {}) is UTC

    def test_names_of_utc(self) -> None:
        """All names of UTC are the one zone without arithmetic."""
        assert resolve_zone("utc") is UTC
        assert resolve_zone(ZoneInfo("Etc/UTC")) is UTC
        assert resolve_zone(timezone.utc) is UTC  # noqa: UP017 - the other spelling

    def test_reads_the_process_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an argument the environment of the process decides."""
        monkeypatch.setenv("WS_TIMEZONE", "Europe/Riga")
        assert CronTrigger("@daily").zone == ZoneInfo("Europe/Riga")

    @pytest.mark.parametrize("name", ["Mars/Phobos", "", "../etc/passwd", 5])
    def test_refuses_unknown_zones(self, name: str) -> None:
        """The message says which setting is wrong."""
        with pytest.raises(ScheduleError, match="tz"):
            resolve_zone(name)

        text = str(name)

        if text not in {"", "5"}:
            with pytest.raises(ScheduleError, match="_TIMEZONE="):
                resolve_zone(None, {"_TIMEZONE": text})


class TestGaps:
    """Fixed times that a change to summer time skips are one run, at the first instant that exists."""

    def test_the_last_second_before_the_gap(self) -> None:
        """A run in that second, or a start in it, does not lose the one behind the gap."""
        trigger = CronTrigger("59 59 2,3 * * *", tz="Europe/Riga")
        last = datetime.fromisoformat("2021-03-28T02:59:59+02:00").timestamp()
        assert trigger.after(last - 1) == last
        assert trigger.after(last) == last + 1
        assert trigger.at(last + 1).isoformat() == "2021-03-28T04:00:00+03:00"
        assert trigger.after(last + 0.5) == last + 1

    def test_several_skipped_times_count_once(self) -> None:
        """Nine skipped minutes, and the first one behind the gap, are one run: so many were missed."""
        trigger = CronTrigger("51-59 3 * * *", tz="Europe/Riga")
        before = datetime.fromisoformat("2021-03-28T00:00:00+02:00").timestamp()
        assert trigger.count(before, before + 20 * 3600) == 1
        assert CronTrigger("0,30 3,4 * * *", tz="Europe/Riga").count(before, before + 20 * 3600) == 2

    @pytest.mark.parametrize(
        ("zone", "change"),
        [
            ("Europe/Riga", "2021-03-28T01:00+00:00"),
            ("Europe/Riga", "2021-10-31T01:00+00:00"),
            ("Antarctica/Troll", "2014-03-30T01:00+00:00"),
            ("Australia/Lord_Howe", "2020-10-03T15:30+00:00"),
            ("America/Sao_Paulo", "2018-11-04T03:00+00:00"),
            ("Pacific/Apia", "2011-12-30T10:00+00:00"),
        ],
    )
    @pytest.mark.parametrize(
        "expression",
        ["59 59 0-3 * * *", "50-58 0-3 * * *", "0,30 23,0,1,2,3 * * *", "0,59 30 2 * * *", "15 */2 * * *"],
    )
    def test_the_answers_agree(self, zone: str, change: str, expression: str) -> None:
        """The next time, the last one and the number in between fit together on all sides of a change."""
        trigger = CronTrigger(expression, tz=zone)
        moment = datetime.fromisoformat(change).timestamp()

        for begin in (
            moment - 7200,
            moment - 3600,
            moment - 2,
            moment - 1,
            moment,
            moment + 1,
            moment + 1800,
        ):
            found: list[float] = []

            while len(found) < 40 and (following := trigger.after(found[-1] if found else begin)) is not None:
                found.append(following)

            for number, time in enumerate(found, 1):
                assert trigger.after(time - 1) == time
                assert trigger.last(time) == time
                assert trigger.last(time + 0.9) == time
                assert trigger.count(begin, time) == number
