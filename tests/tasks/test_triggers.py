"""Triggers: nominal times as pure functions, with what daylight saving does to them."""

# ruff: noqa: E501 - the vectors are a table

from __future__ import annotations

import itertools
import math
import random
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from ws_tasks import ScheduleError
from ws_tasks._cron import parse_cron
from ws_tasks._due_runs import decide
from ws_tasks.triggers import CronTrigger, IntervalTrigger, OnceTrigger


def at(text: str) -> float:
    """Read a moment."""
    return datetime.fromisoformat(text).timestamp()


def times(expression: str, zone: str, start: str, count: int) -> list[str]:
    """List the first nominal times after a start."""
    trigger = CronTrigger(expression, tz=zone)
    moment: float | None = at(start)
    found = []

    for _ in range(count):
        assert moment is not None
        moment = trigger.after(moment)

        if moment is None:
            break

        found.append(trigger.at(moment).isoformat(timespec="minutes"))

    return found


class TestIntervalTrigger:
    def test_does_not_drift(self) -> None:
        """The millionth nominal time is exactly the origin plus a million intervals."""
        trigger = IntervalTrigger(0.1, origin=7.3)
        moment = 7.3

        for _ in range(10_000):
            moment = trigger.after(moment)

        assert moment == 7.3 + 10_000 * 0.1
        assert trigger.after(7.3 + 999_999.5 * 0.1) == 7.3 + 1_000_000 * 0.1

    def test_agrees_with_itself(self) -> None:
        """Whatever the rounding, last, after and count describe the same grid."""
        rng = random.Random(1)

        for _ in range(3000):
            trigger = IntervalTrigger(
                rng.choice([0.1, 0.3, 1 / 3, 7, 1e-3, 86400]), origin=rng.uniform(0, 1e6)
            )
            moment = trigger.origin + rng.uniform(0, 1e5)
            following = trigger.after(moment)
            newest = trigger.last(following)
            assert following > moment
            assert newest == following
            assert trigger.count(moment, following) == 1
            assert trigger.after(following) > following
            assert trigger.count(trigger.origin, following) == round(
                (following - trigger.origin) / trigger.interval
            )

    def test_has_nothing_before_the_first(self) -> None:
        """Neither the origin nor anything before it is a nominal time."""
        trigger = IntervalTrigger(10, origin=100)
        assert trigger.last(109) is None
        assert trigger.after(-1e9) == 110
        assert trigger.count(-1e9, 109) == 0
        assert repr(trigger) == "IntervalTrigger(10.0, origin=100.0, wall=False)"

    @pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), "1", None, True])
    def test_refuses_a_bad_interval(self, interval: float) -> None:
        """An interval that is not a positive finite number is refused by name."""
        with pytest.raises(ScheduleError, match="interval="):
            IntervalTrigger(interval)


def test_once_trigger_has_one_moment() -> None:
    """A single moment is ahead, then behind, and counts once."""
    trigger = OnceTrigger(50)
    assert (trigger.after(49), trigger.after(50)) == (50, None)
    assert (trigger.last(49), trigger.last(50)) == (None, 50)
    assert (trigger.count(0, 49), trigger.count(0, 50), trigger.count(50, 60)) == (0, 1, 0)
    assert repr(trigger) == "OnceTrigger(50.0, wall=False)"


VECTORS = [
    # A fixed time that the clock jumps over runs at the first instant that exists.
    ("30 3 * * *", "Europe/Riga", "2021-03-27T12:00+02:00", ["2021-03-28T04:00+03:00", "2021-03-29T03:30+03:00"]),
    ("30 2 * * *", "Europe/Warsaw", "2017-03-25T12:00+01:00", ["2017-03-26T03:00+02:00", "2017-03-27T02:30+02:00"]),
    ("30 1 * * *", "Europe/London", "2025-03-29T12:00+00:00", ["2025-03-30T02:00+01:00", "2025-03-31T01:30+01:00"]),
    ("15 2 * * *", "Australia/Adelaide", "2020-10-03T12:00+09:30", ["2020-10-04T03:00+10:30", "2020-10-05T02:15+10:30"]),
    # Two of them in one gap are one run.
    ("15,45 3 * * *", "Europe/Riga", "2021-03-27T12:00+02:00", ["2021-03-28T04:00+03:00", "2021-03-29T03:15+03:00"]),
    # Also when it is midnight that does not exist.
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00-03:00", ["2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00"]),
    ("0 0 * * *", "Africa/Cairo", "2023-04-27T12:00+02:00", ["2023-04-28T01:00+03:00", "2023-04-29T00:00+03:00"]),
    # Half an hour is skipped.
    ("15 2 * * *", "Australia/Lord_Howe", "2021-10-02T12:00+10:30", ["2021-10-03T02:30+11:00", "2021-10-04T02:15+11:00"]),
    # A whole day is skipped.
    ("0 12 30 12 *", "Pacific/Apia", "2011-12-29T13:00-10:00", ["2011-12-31T00:00+14:00", "2012-12-30T12:00+14:00"]),
    ("0 12 * * *", "Pacific/Apia", "2011-12-28T13:00-10:00", ["2011-12-29T12:00-10:00", "2011-12-31T00:00+14:00", "2011-12-31T12:00+14:00"]),
    # A fixed time that comes twice runs the first time only.
    ("30 3 * * *", "Europe/Riga", "2021-10-30T12:00+03:00", ["2021-10-31T03:30+03:00", "2021-11-01T03:30+02:00"]),
    ("30 2 * * *", "Europe/Warsaw", "2017-10-28T12:00+02:00", ["2017-10-29T02:30+02:00", "2017-10-30T02:30+01:00"]),
    ("30 1 * * *", "Europe/Dublin", "2021-10-30T12:00+01:00", ["2021-10-31T01:30+01:00", "2021-11-01T01:30+00:00"]),
    ("30 2 * * *", "Australia/Adelaide", "2020-04-04T12:00+10:30", ["2020-04-05T02:30+10:30", "2020-04-06T02:30+09:30"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2021-04-03T12:00+11:00", ["2021-04-04T01:45+11:00", "2021-04-05T01:45+10:30"]),
    ("30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00-02:00", ["2018-02-17T23:30-02:00", "2018-02-18T23:30-03:00"]),
    ("30 23 * * *", "Africa/Cairo", "2023-10-26T12:00+03:00", ["2023-10-26T23:30+03:00", "2023-10-27T23:30+02:00"]),
    # Expressions with a star in minute or hour follow elapsed time: no hour is run twice or missed.
    ("0 * * * *", "Europe/Riga", "2021-03-28T01:30+02:00", ["2021-03-28T02:00+02:00", "2021-03-28T04:00+03:00", "2021-03-28T05:00+03:00"]),
    ("0 * * * *", "Europe/Riga", "2021-10-31T02:30+03:00", ["2021-10-31T03:00+03:00", "2021-10-31T03:00+02:00", "2021-10-31T04:00+02:00"]),
    ("*/30 2 * * *", "Europe/London", "2025-03-30T00:30+00:00", ["2025-03-30T02:00+01:00", "2025-03-30T02:30+01:00", "2025-03-31T02:00+01:00"]),
    ("*/30 1 * * *", "Europe/London", "2025-03-30T00:30+00:00", ["2025-03-31T01:00+01:00", "2025-03-31T01:30+01:00"]),
    ("*/30 1 * * *", "Europe/London", "2025-10-26T00:45+01:00", ["2025-10-26T01:00+01:00", "2025-10-26T01:30+01:00", "2025-10-26T01:00+00:00", "2025-10-26T01:30+00:00", "2025-10-27T01:00+00:00"]),
    ("0 */2 * * *", "America/Sao_Paulo", "2018-11-03T21:00-03:00", ["2018-11-03T22:00-03:00", "2018-11-04T02:00-02:00"]),
    ("*/15 * * * *", "Australia/Lord_Howe", "2021-10-03T01:40+10:30", ["2021-10-03T01:45+10:30", "2021-10-03T02:30+11:00", "2021-10-03T02:45+11:00"]),
    ("*/45 2 1 1 *", "Europe/Riga", "2021-10-31T03:50+03:00", ["2022-01-01T02:00+02:00", "2022-01-01T02:45+02:00"]),
    # Only the hour that is repeated matches, and the start lies behind its first pass.
    ("*/20 3 31 10 *", "Europe/Riga", "2021-10-31T03:50+03:00", ["2021-10-31T03:00+02:00", "2021-10-31T03:20+02:00", "2021-10-31T03:40+02:00", "2022-10-31T03:00+02:00"]),
    # Started in the second pass of a repeated hour: nothing of the past comes back.
    ("45 3 * * *", "Europe/Riga", "2021-10-31T03:30+02:00", ["2021-11-01T03:45+02:00"]),
    ("45 * * * *", "Europe/Riga", "2021-10-31T03:30+02:00", ["2021-10-31T03:45+02:00", "2021-10-31T04:45+02:00"]),
    # Seconds in front, under the same rules.
    ("0 30 3 * * *", "Europe/Riga", "2021-03-27T12:00+02:00", ["2021-03-28T04:00+03:00", "2021-03-29T03:30+03:00"]),
    ("0 30 3 * * *", "Europe/Riga", "2021-10-30T12:00+03:00", ["2021-10-31T03:30+03:00", "2021-11-01T03:30+02:00"]),
    # Weekday 0 and 7 are Sunday; the names begin on Sunday too.
    ("0 0 * * 0", "UTC", "2026-01-01T00:00+00:00", ["2026-01-04T00:00+00:00"]),
    ("0 0 * * 7", "UTC", "2026-01-01T00:00+00:00", ["2026-01-04T00:00+00:00"]),
    ("0 0 * * SUN", "UTC", "2026-01-01T00:00+00:00", ["2026-01-04T00:00+00:00"]),
    ("0 0 * * 1", "UTC", "2026-01-01T00:00+00:00", ["2026-01-05T00:00+00:00"]),
    # Day of month or weekday, both with a star in one of them.
    ("0 0 13 * 5", "UTC", "2026-01-01T12:00+00:00", ["2026-01-02T00:00+00:00", "2026-01-09T00:00+00:00", "2026-01-13T00:00+00:00"]),
    ("0 0 */2 * 5", "UTC", "2026-01-01T12:00+00:00", ["2026-01-09T00:00+00:00", "2026-01-23T00:00+00:00"]),
    ("0 0 31 2 0", "UTC", "2026-01-01T00:00+00:00", ["2026-02-01T00:00+00:00", "2026-02-08T00:00+00:00"]),
    ("59/15 * * * *", "UTC", "2026-01-01T00:00+00:00", ["2026-01-01T00:59+00:00", "2026-01-01T01:59+00:00"]),
    ("0 0 L * *", "UTC", "2026-02-01T00:00+00:00", ["2026-02-28T00:00+00:00", "2026-03-31T00:00+00:00"]),
    ("0 0 * * MON#2", "UTC", "2026-01-01T00:00+00:00", ["2026-01-12T00:00+00:00"]),
    ("0 0 29 2 *", "UTC", "2026-01-01T00:00+00:00", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
    ("@yearly", "UTC", "2026-01-01T00:00+00:00", ["2027-01-01T00:00+00:00"]),
    ("@Monthly", "UTC", "2026-01-01T00:00+00:00", ["2026-02-01T00:00+00:00"]),
    ("@weekly", "UTC", "2026-01-01T00:00+00:00", ["2026-01-04T00:00+00:00"]),
    ("@daily", "UTC", "2026-01-01T00:00+00:00", ["2026-01-02T00:00+00:00"]),
    ("@hourly", "UTC", "2026-01-01T00:00+00:00", ["2026-01-01T01:00+00:00"]),
]  # fmt: skip


class TestCronTrigger:
    @pytest.mark.parametrize(("expression", "zone", "start", "expected"), VECTORS)
    def test_vectors(self, expression: str, zone: str, start: str, expected: list[str]) -> None:
        """Each expression names the times that are written beside it."""
        assert times(expression, zone, start, len(expected)) == expected

    @pytest.mark.parametrize(("expression", "zone", "start", "expected"), VECTORS)
    def test_last_and_count_agree_with_after(
        self, expression: str, zone: str, start: str, expected: list[str]
    ) -> None:
        """Looking back and counting find the times that looking ahead has found."""
        trigger = CronTrigger(expression, tz=zone)

        for number, text in enumerate(expected, 1):
            moment = at(text)
            assert trigger.last(moment) == moment
            assert trigger.last(moment + 0.5) == moment
            previous = trigger.last(moment - 1)
            assert previous is not None
            assert previous <= at(start) if number == 1 else previous == at(expected[number - 2])

            if "," not in expression:  # two local times that become one run are counted as two
                assert trigger.count(at(start), moment) == number

    @pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30))])
    def test_zones_without_changes_need_no_search(self, zone: tzinfo) -> None:
        """A fixed offset works in all directions."""
        trigger = CronTrigger("0 6 * * *", tz=zone)
        first = trigger.after(at("2026-01-01T12:00+00:00"))
        assert first is not None
        assert trigger.at(first).hour == 6
        assert trigger.last(first + 10) == first
        assert trigger.count(first, first + 86400 * 10) == 10
        assert CronTrigger("* * * * *", tz=zone).count(first, first + 3600) == 60

    def test_recreated_trigger_continues_like_an_iterated_one(self) -> None:
        """The next time depends on the moment alone, not on what was asked before."""
        moment: float | None = at("2021-10-30T00:00+03:00")
        trigger = CronTrigger("*/17 * * * *", tz="Europe/Riga")

        for _ in range(200):
            assert moment is not None
            fresh = CronTrigger("*/17 * * * *", tz="Europe/Riga").after(moment)
            moment = trigger.after(moment)
            assert fresh == moment

    def test_against_a_plain_model(self) -> None:
        """Near every kind of change, a walk through all minutes finds the same times."""
        rng = random.Random(20260101)
        changes = [
            ("Europe/Riga", "2021-03-28T00:00+00:00"),
            ("Europe/Riga", "2021-10-31T00:00+00:00"),
            ("America/Sao_Paulo", "2018-11-04T03:00+00:00"),
            ("America/Sao_Paulo", "2018-02-18T02:00+00:00"),
            ("Australia/Lord_Howe", "2021-10-02T15:30+00:00"),
            ("Australia/Lord_Howe", "2021-04-03T15:00+00:00"),
            ("Europe/Dublin", "2021-10-31T00:00+00:00"),
            ("Africa/Cairo", "2023-10-26T20:00+00:00"),
            ("Pacific/Apia", "2011-12-30T10:00+00:00"),
        ]

        for _ in range(50):
            zone, around = rng.choice(changes)
            minutes = rng.choice([None, sorted(rng.sample(range(60), rng.choice([1, 2, 6])))])
            hours = rng.choice([None, sorted(rng.sample(range(24), rng.choice([1, 3, 12])))])
            start = at(around) - rng.randrange(36) * 3600 - rng.randrange(60) * 60
            expression = f"{_field(minutes)} {_field(hours)} * * *"
            expected = _walk(minutes, hours, ZoneInfo(zone), int(start), 60 * 60)
            trigger = CronTrigger(expression, tz=zone)
            found = []
            moment: float = start

            while (moment := trigger.after(moment) or math.inf) <= start + 216_000:
                found.append(int(moment))

            assert found == expected, (expression, zone, start)

            for earlier, later in itertools.pairwise(found):
                assert trigger.last(later - 1) == earlier, (expression, zone, start)
                assert trigger.count(earlier, later) >= 1

    def test_catches_up_by_arithmetic(self) -> None:
        """A month of missed minutes is counted, not walked through."""
        trigger = CronTrigger("* * * * *", tz="Europe/Riga")
        end = at("2021-11-15T00:00:30+02:00")
        decision = decide(trigger, end - 30 - 30 * 86400, end, latest=True, grace=None)
        assert decision == (end - 30, end + 30, 30 * 24 * 60, 30)

    @pytest.mark.parametrize(
        ("expression", "field"),
        [
            ("60 * * * *", "minute field '60'"),
            ("* 24 * * *", "hour field '24'"),
            ("* * 0 * *", "day-of-month field '0'"),
            ("* * * 13 *", "month field '13'"),
            ("* * * * 8", "day-of-week field '8'"),
            ("61 * * * * *", "second field '61'"),
            ("* * 31 2 *", "day-of-month field '31'"),
            ("*/0 * * * *", "minute field '*/0'"),
            ("5-1 * * * *", "minute field '5-1'"),
            ("* * * * 5#2/2", "day-of-week field '5#2/2'"),
            ("0 0 */30 2 MON#5", "names no date"),
            ("* * * *", "has 4 fields"),
            ("", "has 0 fields"),
            ("@reboot", "not a known name"),
            (None, "must be text"),
        ],
    )
    def test_refuses_a_bad_expression(self, expression: str, field: str) -> None:
        """The message names the field that is wrong, with its value."""
        with pytest.raises(ScheduleError) as caught:
            CronTrigger(expression)

        assert field in str(caught.value)

    def test_shows_itself(self) -> None:
        """The representation shows expression and zone."""
        assert repr(CronTrigger("@daily", tz="Europe/Riga")) == "CronTrigger('@daily', tz='Europe/Riga')"

    def test_has_an_end(self) -> None:
        """Looking back or ahead further than fifty years returns None instead of looping."""
        trigger = CronTrigger("0 0 29 2 MON", tz="UTC")
        assert trigger.after(at("2026-01-01T00:00+00:00")) is not None
        cron = parse_cron("0 0 29 2 *")
        assert cron.count(10, 5) == 0
        assert trigger.count(10, 5) == 0

        class Nothing:
            fixed = False

            def at_or_after(self, _: int) -> None:
                return None

            at_or_before = at_or_after

        for fixed in (False, True):
            trigger = CronTrigger("0 0 * * *", tz="Europe/Riga")
            trigger._cron = Nothing()  # type: ignore[assignment]
            trigger.elapsed = not fixed
            assert trigger.after(0) is None
            assert trigger.last(0) is None


def _field(values: list[int] | None) -> str:
    return "*" if values is None else ",".join(map(str, values))


def _walk(
    minutes: list[int] | None, hours: list[int] | None, zone: ZoneInfo, start: int, count: int
) -> list[int]:
    """Find the times by looking at each minute, with the rules said in the plainest way."""

    def matches(local: datetime) -> bool:
        return (minutes is None or local.minute in minutes) and (hours is None or local.hour in hours)

    if minutes is None or hours is None:
        moments = range(start - start % 60 + 60, start + count * 60 + 1, 60)
        return [moment for moment in moments if matches(datetime.fromtimestamp(moment, zone))]

    found = set()
    first = datetime.fromtimestamp(start - 3 * 86400, UTC).replace(tzinfo=None, second=0)

    for minute in range(count + 6 * 1440):
        local = first + timedelta(minutes=minute)

        if matches(local):
            moment = int(local.replace(tzinfo=zone).timestamp())

            if datetime.fromtimestamp(moment, zone).replace(tzinfo=None) != local:
                before = datetime.fromtimestamp(moment - 86400, zone).utcoffset()

                while datetime.fromtimestamp(moment - 60, zone).utcoffset() != before:
                    moment -= 60

            found.add(moment)

    return sorted(moment for moment in found if start < moment <= start + count * 60)
