"""What is seldom used: redaction of nothing and of depths, rotation by size alone, the line of the lost."""

from __future__ import annotations

import json

import pytest

from ws_logging import LogFileRotator
from ws_logging._formatters import json_line, text_line
from ws_logging._outputs import notice
from ws_logging.errors import LoggingConfigError
from ws_logging.redact import Redactor


class TestRedactor:
    def test_no_names(self) -> None:
        """Without secret names only the passwords in URLs are masked."""
        hide = Redactor(())

        assert hide.text("password=x mysql://root:x@db/shop") == "password=x mysql://root:***@db/shop"
        assert hide.fields({"password": "x"}) == {"password": "x"}

    def test_very_deep_values(self) -> None:
        """What lies deeper than anybody nests is left as it is, so that a circle ends."""
        circle: dict[str, object] = {}
        circle["inner"] = circle

        shown = Redactor().fields(circle)

        for _ in range(7):
            inner = shown["inner"]
            assert isinstance(inner, dict)
            shown = inner

        assert shown is circle

    def test_sequences(self) -> None:
        """Secrets in lists and tuples are masked too; both are shown as lists."""
        assert Redactor().fields({"a": [{"token": "x"}], "b": ({"token": "y"},)}) == {
            "a": [{"token": "***"}],
            "b": [{"token": "***"}],
        }


class TestRotator:
    def test_no_time_of_day(self) -> None:
        """A rotator by size alone has no daily boundary, and says so."""
        with pytest.raises(LoggingConfigError, match="no time of day"):
            LogFileRotator.make(5, None).last_boundary(0.0)


class TestNotice:
    def test_as_json(self) -> None:
        """The line about dropped messages is of the same form as all others."""
        line = json.loads(notice(json_line(None))(7))

        assert line["SeverityText"] == "WARNING"
        assert line["Body"].startswith("7 log messages were dropped")

    def test_as_text(self) -> None:
        """The line about dropped messages is one line."""
        text = notice(text_line(None))(1)

        assert "1 log messages were dropped" in text
        assert text.count("\n") == 1

    def test_a_resource(self) -> None:
        """What describes the service is in every line."""
        line = json.loads(notice(json_line(None, resource={"service.name": "shop"}))(1))

        assert line["Resource"] == {"service.name": "shop"}
