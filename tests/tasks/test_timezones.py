"""Which time zone a task means."""

from __future__ import annotations

from datetime import UTC, timezone
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
