# ruff: noqa: DTZ001, DTZ005 - naive times are what is promised
"""Points in time, with zones that change their clocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wintersweet.utils.base import (
    datetime2time,
    delta_datetime,
    format_time,
    stamp2time,
    time2datetime,
    time2stamp,
    timestamp,
)
from ws_core.errors import InvalidValueError

RIGA = "Europe/Riga"  # on 27 October 2024 at 04:00 clocks went back to 03:00, on 31 March at 03:00 to 04:00


@pytest.fixture
def machine_in_shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the machine in another zone than its own."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class TestText:
    """Text to time and back."""

    @given(
        st.integers(0, 4_000_000_000),
        st.sampled_from(["UTC", "Asia/Shanghai", "America/Sao_Paulo", "Pacific/Apia"]),
    )
    def test_seconds_return(self, seconds: int, zone: str) -> None:
        """Text of a time leads back to its seconds, save where a clock shows it twice."""
        text = stamp2time(seconds, timezone=zone)

        assert seconds in {time2stamp(text, timezone=zone, fold=fold) for fold in (0, 1)}

    @pytest.mark.usefixtures("machine_in_shanghai")
    def test_zone_of_the_machine(self) -> None:
        """Without a zone it is the machine's."""
        assert time2stamp("1970-01-01 08:00:00") == 0
        assert stamp2time(0) == "1970-01-01 08:00:00"
        assert time2datetime("1970-01-01 08:00:00") == datetime(1970, 1, 1, 8)

    def test_zones_are_not_minutes_off(self) -> None:
        """A zone means its offset of that day, not its first one in history."""
        moment = time2datetime("2024-02-29 08:00:00", timezone="Asia/Shanghai")

        assert moment.utcoffset() == timedelta(hours=8)
        assert time2stamp("2024-02-29 08:00:00", timezone="Asia/Shanghai") == 1709164800

    def test_clocks_put_back(self) -> None:
        """A time that comes twice is the first one, or the second when asked for."""
        text = "2024-10-27 03:30:00"
        first, second = time2stamp(text, timezone=RIGA), time2stamp(text, timezone=RIGA, fold=1)

        assert second - first == 3600
        assert stamp2time(first, "%H:%M %z", RIGA) == "03:30 +0300"
        assert stamp2time(second, "%H:%M %z", RIGA) == "03:30 +0200"
        assert time2datetime(text, timezone=RIGA, fold=1).utcoffset() == timedelta(hours=2)

    def test_an_offset_in_the_text_has_precedence(self) -> None:
        """An offset in the text wins over the zone."""
        text, form = "2024-01-01 00:00:00 +0100", "%Y-%m-%d %H:%M:%S %z"

        assert time2stamp(text, form, RIGA) == time2stamp("2023-12-31 23:00:00", timezone=UTC)

    def test_fractions_are_cut_off(self) -> None:
        """Seconds are whole, before the epoch too."""
        form = "%Y-%m-%d %H:%M:%S.%f"

        assert time2stamp("1970-01-01 00:00:01.900000", form, UTC) == 1
        assert time2stamp("1969-12-31 23:59:58.100000", form, UTC) == -2
        assert time2datetime("1970-01-01 00:00:01.900000", form).microsecond == 900_000

    def test_datetime2time(self) -> None:
        """A datetime's own time is written, with fraction and zone if asked for."""
        moment = datetime(2024, 1, 2, 3, 4, 5, 600_000, ZoneInfo(RIGA))

        assert datetime2time(moment) == "2024-01-02 03:04:05"
        assert datetime2time(moment, "%H.%f%z") == "03.600000+0200"

    @pytest.mark.parametrize("text", ["", "2024-02-30 00:00:00", "2024-01-01", "2024-01-01 00:00:00 x"])
    def test_bad_text(self, text: str) -> None:
        """The error shows text and format."""
        with pytest.raises(InvalidValueError, match=r"is not a time of the form '%Y-%m-%d %H:%M:%S'"):
            time2stamp(text)

    @pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime", "a\0b"])
    def test_bad_zone(self, zone: str) -> None:
        """The error names the zone and the remedy, and no file outside the zone data is read."""
        with pytest.raises(InvalidValueError, match="is not a known time zone: use an IANA name"):
            stamp2time(0, timezone=zone)

    @pytest.mark.parametrize("seconds", [1e20, float("nan"), float("inf")])
    def test_bad_seconds(self, seconds: float) -> None:
        """Seconds beyond all calendars are an error."""
        with pytest.raises(InvalidValueError, match="is not a time"):
            stamp2time(seconds)


class TestNow:
    """What depends on the present time."""

    def test_present(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The present is the system's time of day."""
        monkeypatch.setattr(time, "time", lambda: 1709164800.7)

        assert timestamp() == 1709164800
        assert stamp2time(timezone="Asia/Shanghai") == "2024-02-29 08:00:00"
        assert format_time("%H:%M", timezone=timezone(timedelta(hours=1))) == "01:00"

    def test_delta_datetime_near_now(self) -> None:
        """Without a given moment it counts from now, naive or in the zone."""
        before = datetime.now()

        assert before <= delta_datetime() <= datetime.now()
        assert abs(
            delta_datetime(timezone=RIGA, hours=1) - datetime.now(UTC) - timedelta(hours=1)
        ) < timedelta(minutes=1)


class TestDelta:
    """`delta_datetime`."""

    NOW = datetime(2024, 3, 30, 12, 30, 15, 5)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, datetime(2024, 3, 30, 12, 30, 15, 5)),
            ({"days": 1, "hours": 12}, datetime(2024, 4, 1, 0, 30, 15, 5)),
            ({"add": False, "weeks": 1}, datetime(2024, 3, 23, 12, 30, 15, 5)),
            ({"origin": True}, datetime(2024, 3, 30)),
            ({"origin": True, "add": False, "days": 1}, datetime(2024, 3, 29)),
        ],
    )
    def test_naive(self, options: dict[str, float], expected: datetime) -> None:
        """Time is added or taken away, and cut to the day if asked for."""
        assert delta_datetime(now=self.NOW, **options) == expected  # type: ignore[arg-type]  # of the table above

    def test_days_are_of_the_calendar_and_hours_elapse(self) -> None:
        """Over the night when clocks are put forward, a day is 23 hours, and 24 hours are 24 hours."""
        now = datetime(2024, 3, 30, 12, tzinfo=ZoneInfo(RIGA))

        day, hours = (
            delta_datetime(timezone=RIGA, now=now, days=1),
            delta_datetime(timezone=RIGA, now=now, hours=24),
        )

        assert (day.hour, hours.hour) == (12, 13)
        assert hours.timestamp() - now.timestamp() == 24 * 3600
        assert day.timestamp() - now.timestamp() == 23 * 3600
        assert delta_datetime(add=False, timezone=RIGA, now=hours, hours=24).timestamp() == now.timestamp()

    def test_moments_of_another_zone(self) -> None:
        """The given moment is seen in the zone that is asked for."""
        now = datetime(2024, 3, 30, 23, tzinfo=UTC)

        assert delta_datetime(True, timezone=RIGA, now=now) == datetime(2024, 3, 31, tzinfo=ZoneInfo(RIGA))
        assert delta_datetime(now=now) is not None
        assert delta_datetime(now=now).tzinfo is UTC

    @pytest.mark.parametrize("options", [{"days": 4_000_000}, {"timezone": "UTC", "hours": 1e8}])
    def test_beyond_the_calendar(self, options: dict[str, object]) -> None:
        """A result that no datetime can hold is an error."""
        with pytest.raises(InvalidValueError, match="is not a time"):
            delta_datetime(now=datetime(2024, 1, 1, tzinfo=UTC), **options)  # type: ignore[arg-type]  # of the table above

    def test_unknown_units(self) -> None:
        """A unit that does not exist is an error of the caller."""
        with pytest.raises(TypeError):
            delta_datetime(fortnights=1)
