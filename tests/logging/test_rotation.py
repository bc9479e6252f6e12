"""When a file is full: sizes, times of day, changes of the clock."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from ws_logging import LogFileRotator, LoggingConfigError

BERLIN = ZoneInfo("Europe/Berlin")
DAY = 86400.0


def at(*when: int) -> float:
    """Return the Unix time of a moment in Berlin."""
    year, month, day, hour = (*when, 0, 0)[:4]
    return datetime(year, month, day, hour, tzinfo=BERLIN).timestamp()


class TestSize:
    """Rotation by size."""

    def test_before_it_would_grow_beyond(self) -> None:
        """Exactly full is fine."""
        rotator = LogFileRotator(100)
        assert not rotator.is_due(size=90, adding=10, since=0, now=1)
        assert rotator.is_due(size=90, adding=11, since=0, now=1)

    def test_an_empty_file_is_never_rotated(self) -> None:
        """A line longer than a file has one of its own."""
        assert not LogFileRotator(100, "00:00").is_due(size=0, adding=1000, since=0, now=10 * DAY)

    def test_make_takes_mebibytes(self) -> None:
        """As in the original; fractions are fine."""
        assert LogFileRotator.make(1, None).room(0) == 1024 * 1024
        assert LogFileRotator.make(0.5, None).room(24) == 512 * 1024 - 24
        assert LogFileRotator(None, "00:00").room(5) is None
        assert repr(LogFileRotator.make()) == "LogFileRotator(size=524288000, at='00:00:00')"


class TestDay:
    """Rotation at a time of day."""

    def test_once_after_the_time(self) -> None:
        """The first write after the time rotates, the next one does not."""
        rotator = LogFileRotator(None, "03:30", tz=UTC)
        boundary = DAY + 3.5 * 3600
        assert not rotator.is_due(size=1, adding=1, since=boundary - DAY, now=boundary - 0.001)
        assert rotator.is_due(size=1, adding=1, since=boundary - 1, now=boundary)
        assert not rotator.is_due(size=1, adding=1, since=boundary, now=boundary + 1)

    def test_days_without_a_message(self) -> None:
        """A file of last week is rotated once."""
        assert LogFileRotator(None, "00:00", tz=UTC).is_due(size=1, adding=1, since=0, now=7 * DAY + 5)

    def test_a_clock_that_goes_back(self) -> None:
        """A file from the future is left alone."""
        assert not LogFileRotator(None, "00:00", tz=UTC).is_due(size=1, adding=1, since=5 * DAY, now=4 * DAY)

    def test_the_day_of_25_hours(self) -> None:
        """In autumn the night is longer, and there is still one rotation."""
        rotator = LogFileRotator(None, "00:00", tz=BERLIN)
        assert rotator.last_boundary(at(2025, 10, 26, 23)) == at(2025, 10, 26, 0)
        assert rotator.last_boundary(at(2025, 10, 27, 0)) - at(2025, 10, 26, 0) == 25 * 3600

    def test_the_hour_that_does_not_exist(self) -> None:
        """In spring 02:30 is skipped; the rotation is there all the same, once."""
        rotator = LogFileRotator(None, "02:30", tz=BERLIN)
        assert at(2025, 3, 30, 1) < rotator.last_boundary(at(2025, 3, 30, 4)) < at(2025, 3, 30, 4)

    @given(st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)), st.times())  # noqa: DTZ001 - made aware below
    def test_the_last_boundary_is_within_a_day(self, moment: datetime, time: Any) -> None:
        """It is never in the future, and the next one is not far."""
        rotator = LogFileRotator(None, f"{time:%H:%M:%S}", tz=BERLIN)
        now = moment.replace(tzinfo=BERLIN).timestamp()
        assert now - 26 * 3600 < rotator.last_boundary(now) <= now

    def test_the_time_zone_of_the_machine(self) -> None:
        """Without a zone it is local time."""
        boundary = LogFileRotator(None, "00:00").last_boundary(at(2025, 6, 1, 12))
        local = datetime.fromtimestamp(boundary)  # noqa: DTZ006 - local time is meant
        assert (local.hour, local.minute) == (0, 0)

    def test_only_with_a_time(self) -> None:
        """A rotator by size has no boundary."""
        with pytest.raises(LoggingConfigError, match="no time of day"):
            LogFileRotator(1).last_boundary(0)


class TestMistakes:
    """Wrong rotations are refused when they are made."""

    @pytest.mark.parametrize("size", [0, -1, 1.5, True, "1"])
    def test_sizes(self, size: int) -> None:
        """A file has at least one byte."""
        with pytest.raises(LoggingConfigError, match="at least 1 byte"):
            LogFileRotator(size)

    @pytest.mark.parametrize("size", [0, -1, "500", None, float("nan"), float("inf"), True])
    def test_mebibytes(self, size: int) -> None:
        """A positive number."""
        with pytest.raises(LoggingConfigError, match="positive number of MiB"):
            LogFileRotator.make(size)

    @pytest.mark.parametrize("time", ["24:00", "12", "1:2", "12:60", "noon", "", 7, "00:00 "])
    def test_times(self, time: Any) -> None:
        """Hours and minutes."""
        with pytest.raises(LoggingConfigError, match='looks like "00:00"'):
            LogFileRotator(1, time)


class TestLoguru:
    """The rotator as loguru's own file sink takes it."""

    def test_in_a_sink_of_loguru(self, tmp_path: Path) -> None:
        """It rotates by size."""
        number = logger.add(tmp_path / "app.log", rotation=LogFileRotator(100), format="{message}")

        for _ in range(10):
            logger.info("x" * 30)

        logger.remove(number)
        assert len(list(tmp_path.iterdir())) > 2

    def test_a_file_without_a_descriptor(self) -> None:
        """It counts as begun now."""
        message = type("Message", (str,), {})("x")
        message.record = {"time": datetime.now(UTC) + timedelta(days=2)}
        file = io.StringIO("text")
        assert not LogFileRotator(None, "00:00")(message, file)


class TestWithoutTime:
    """A rotator by size alone."""

    def test_no_time_of_day(self) -> None:
        """A rotator by size alone has no daily boundary, and says so."""
        with pytest.raises(LoggingConfigError, match="no time of day"):
            LogFileRotator.make(5, None).last_boundary(0.0)
