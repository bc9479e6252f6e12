"""Rendering: every record becomes one line, which nobody can forge and which holds no secret."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from tests.logging._records import CIRCLE, ERRORS, HUGE, TEXTS, VALUES, Broken, written
from ws_logging import register_logger
from ws_logging._documents import JsonFormatter
from ws_logging._formatters import TextFormatter
from ws_logging._outputs import notice


def fail(error: Exception) -> None:
    """Raise an error, one frame further down."""
    raise error


class TestLines:
    """What a line looks like."""

    def line(self, log: Callable[[], object], **options: Any) -> Any:
        """Log something, and return what was written."""
        stream = io.StringIO()
        register_logger("trace", stream, **options)
        log()
        return stream.getvalue()

    def test_text(self) -> None:
        """Time, level, place, message, fields."""
        got = self.line(lambda: logger.bind(user="ann", note="a b", n=1, quote='"').info("hi"))
        assert got.endswith(
            "test_formatters:<lambda>:"
            + got.split(":")[4].split(" ")[0]
            + ' - hi | user=ann note="a b" n=1 quote="\\""\n'
        )
        assert " | INFO     | " in got

    @pytest.mark.parametrize(
        "evil", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\x00b", "a\x85b", "a\u2028b", "a\x7fb"]
    )
    def test_nobody_can_forge_a_line(self, evil: str) -> None:
        """Control characters in messages, fields and tracebacks are made visible."""

        def log() -> None:
            try:
                fail(ValueError(f"{evil}\n2026-01-01 00:00:00.000 | INFO     | forged"))
            except ValueError:
                logger.bind(field=evil).exception(evil)

        got = self.line(log)
        first, *rest = got.rstrip("\n").split("\n")
        assert got.isprintable() is False  # it has line ends
        assert all(line.isprintable() for line in [first, *rest])
        assert all(line.startswith("    ") for line in rest)

    def test_json(self) -> None:
        """The OpenTelemetry log data model."""
        trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        log = lambda: logger.bind(user="ann", trace_id=trace, span_id=span, tags={1}).warning("a\nb")  # noqa: E731 - a value
        got = self.line(log, json=True)
        assert got.count("\n") == 1
        line = json.loads(got)
        assert (line["SeverityText"], line["SeverityNumber"], line["Body"]) == ("WARNING", 13, "a\nb")
        assert (line["TraceId"], line["SpanId"]) == (trace, span)
        assert line["Attributes"]["user"] == "ann"
        assert line["Attributes"]["process.pid"] == os.getpid()
        assert abs(int(line["Timestamp"]) / 1e9 - time.time()) < 60
        assert line["InstrumentationScope"]["Name"].endswith("test_formatters")

    def test_json_exceptions(self) -> None:
        """Type, message and stack are attributes; secrets are masked there too."""

        def log() -> None:
            try:
                fail(ValueError("password=hunter2"))
            except ValueError:
                logger.exception("failed")

        got = self.line(log, json=True)
        attributes = json.loads(got)["Attributes"]
        assert attributes["exception.type"] == "ValueError"
        assert "Traceback" in attributes["exception.stacktrace"]
        assert "hunter2" not in got

    def test_values_are_shown_with_debug_only(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Diagnose shows variables, which may be secret."""

        def log() -> None:
            hidden = "hunter" + "2"

            try:
                fail(KeyError(len(hidden)))
            except KeyError:
                logger.exception("x")

        assert "hunter2" not in self.line(log)
        assert "hunter2" in self.line(log, debug=True)

    def test_a_broken_repr_costs_nothing(self) -> None:
        """The message is logged all the same."""

        class Broken:
            def __repr__(self) -> Any:
                raise ValueError

        for as_json in (False, True):
            assert "repr failed with ValueError" in self.line(
                lambda: logger.bind(x=Broken()).info("x"), json=as_json
            )

    def test_braces_are_safe(self) -> None:
        """A message without arguments is not formatted."""
        assert "{not} {formatted" in self.line(lambda: logger.info("{not} {formatted"))

    @pytest.mark.parametrize("as_json", [False, True])
    def test_secrets(self, as_json: bool) -> None:
        """Neither in messages nor in fields, at any depth; and only if asked for."""

        def log() -> None:
            logger.bind(password="hunter2", deep={"api_key": "hunter2", "list": [{"token": "hunter2"}]}).info(
                "redis://:hunter2@x token=hunter2 Authorization: Bearer hunter2 'secret': 'hunter2'"
            )

        assert "hunter2" not in self.line(log, json=as_json)
        assert "hunter2" in self.line(log, json=as_json, redact=None)
        assert "hunter2" not in self.line(lambda: logger.bind(mine="hunter2").info("x"), redact=["mine"])


class TestRendering:
    """Parts that are not reached through a message."""

    def test_the_notice_about_drops(self) -> None:
        """It has the format of all other lines."""
        assert " | ws_logging.sink:put:0 - 5 log messages were dropped" in notice(TextFormatter(None))(5)
        line = json.loads(notice(JsonFormatter(None, resource={"service.name": "shop"}))(5))
        assert (line["Attributes"]["dropped"], line["Resource"]) == (5, {"service.name": "shop"})


LINE_ENDS = re.compile("[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


class TestEveryRecord:
    """Whatever is logged, it becomes one line that can be read."""

    @pytest.mark.parametrize("redact", [(), None])
    @given(message=TEXTS, fields=st.dictionaries(TEXTS, VALUES, max_size=4), error=st.none() | ERRORS)
    def test_json(self, message: str, fields: dict[str, Any], error: Exception | None, redact: Any) -> None:
        """Any message, any fields, any exception: one line of strict JSON with the message in it."""
        got = written(message, fields, error, json=True, redact=redact)

        assert got.endswith("\n")
        assert LINE_ENDS.search(got[:-1]) is None
        line = json.loads(got, parse_constant=pytest.fail)  # NaN is not JSON
        got.encode()  # nothing that cannot be sent
        assert line["SeverityText"] == ("ERROR" if error else "INFO")
        assert redact is not None or "log.repaired" in line["Attributes"] or line["Body"] == message

    @given(message=TEXTS, fields=st.dictionaries(TEXTS, VALUES, max_size=4), error=st.none() | ERRORS)
    def test_text(self, message: str, fields: dict[str, Any], error: Exception | None) -> None:
        """The same as text: one line, with the lines of a traceback indented below it."""
        got = written(message, fields, error)
        first, *rest = got.rstrip("\n").split("\n")

        assert got.endswith("\n")
        assert LINE_ENDS.search(first) is None
        assert all(line.startswith("    ") and LINE_ENDS.search(line) is None for line in rest)
        assert bool(rest) == bool(error)

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (float("nan"), "nan"),
            (HUGE, hex(HUGE)),
            (b"a\xff", "a\\xff"),
            ({(1, 2): 3}, {"(1, 2)": 3}),
            ({1: 2, (): 3}, {"1": 2, "()": 3}),
            ("\ud800", "\\ud800"),
            (Broken(), "<Broken: repr failed with ZeroDivisionError>"),
            (CIRCLE, {"self": "<circular>"}),
        ],
        ids=["nan", "huge", "bytes", "tuple", "keys", "surrogate", "broken", "circle"],
    )
    def test_what_json_cannot_hold(self, value: object, shown: object) -> None:
        """It is as much like the value as can be."""
        line = json.loads(written("m", {"x": value}, None, json=True))

        assert (line["Body"], line["Attributes"]["x"]) == ("m", shown)

    def test_repairs_are_marked_and_counted(self) -> None:
        """The line says what was wrong with it, and so do the statistics."""
        stream = io.StringIO()
        handle = register_logger("info", stream, json=True)
        logger.bind(x={(1, 2): 3}).info("m")

        assert json.loads(stream.getvalue())["Attributes"]["log.repaired"].startswith(
            "not rendered as it is: TypeError: keys must be"
        )
        assert handle.statistics().repaired == 1

    @pytest.mark.parametrize("as_json", [False, True])
    def test_a_formatter_that_fails_altogether(
        self, monkeypatch: pytest.MonkeyPatch, *, as_json: bool
    ) -> None:
        """Even then there is a line, with the message and the reason."""
        for kind in (TextFormatter, JsonFormatter):
            for method in ("_render", "_repaired"):
                monkeypatch.setattr(kind, method, lambda *_: 1 / 0)

        line = json.loads(written("m", {}, None, json=as_json))

        assert line["Body"] == "m"
        assert "ZeroDivisionError" in line["log.repaired"]

    def test_an_output_that_raises(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """The file has the line all the same; the failure is counted, and reported on stderr."""

        def broken(_: str) -> None:
            raise ZeroDivisionError("division")

        handle = register_logger("info", broken, tmp_path, "app.log")
        logger.info("one")
        logger.info("two")
        assert handle.flush(30)

        assert (tmp_path / "app.log").read_text().count("\n") == 2
        assert handle.statistics().failures == 2
        assert capfd.readouterr().err.count("an output of register_logger raised ZeroDivisionError") == 1

    def test_raw_messages(self) -> None:
        """A message of ``opt(raw=True)`` is a line like any other."""
        stream = io.StringIO()
        register_logger("info", stream)
        logger.opt(raw=True).info("a\nb")

        assert stream.getvalue().endswith(" - a\\nb\n")
        assert stream.getvalue().count("\n") == 1

    def test_a_message_of_a_signal_handler(self) -> None:
        """A handler that logs while a message is rendered does not lose its own."""

        class Interrupting:
            def __repr__(self) -> str:
                logger.info("inner")
                return "outer"

        stream = io.StringIO()
        register_logger("info", stream)
        logger.bind(x=Interrupting()).info("m")

        assert [line.partition(" - ")[2] for line in stream.getvalue().splitlines()] == [
            "inner",
            "m | x=outer",
        ]


class TestTime:
    """The time of a line."""

    def test_every_second_has_its_own(self) -> None:
        """What is kept of one second is not shown for another one, nor in another zone."""
        zones = (UTC, timezone(timedelta(hours=8)))
        times = [datetime(2026, 1, 2, 3, 4, second, 5006, zone) for second in (7, 8, 7) for zone in zones]
        text, line = TextFormatter(None), JsonFormatter(None)

        for time_ in times:
            record = {**RECORD, "time": time_}
            assert text(record, "").startswith(time_.isoformat(" ", "milliseconds")[:23])
            expected = int(time_.timestamp()) * 10**9 + 5_006_000
            assert json.loads(line(record, ""))["Timestamp"] == str(expected)


RECORD: dict[str, Any] = {
    "exception": None,
    "extra": {},
    "file": SimpleNamespace(path="x.py"),
    "function": "f",
    "level": SimpleNamespace(name="INFO", no=20),
    "line": 1,
    "message": "m",
    "name": "x",
    "process": SimpleNamespace(id=1),
    "thread": SimpleNamespace(id=1, name="main"),
}


class TestForgery:
    """Every part of a line is made visible, not only the message."""

    EVIL = "x\n2026-01-01 00:00:00.000 | INFO     | forged\x1b[2K\x85\u2028\u202e\x7f"

    @pytest.mark.parametrize("as_json", [False, True])
    def test_every_part(self, *, as_json: bool) -> None:
        """Logger, function, file, thread, names and values of fields, level: one printable line."""
        stream = io.StringIO()
        register_logger("info", stream, json=as_json)
        evil = self.EVIL
        record = logging.LogRecord(evil, 30, evil, 1, evil, (), None, evil)
        record.threadName = record.processName = evil
        vars(record)[evil] = {evil: evil}
        logging.getLogger().handlers[0].handle(record)
        text = stream.getvalue()

        assert text.endswith("\n")
        assert text[:-1].isprintable()

    def test_a_field_is_not_taken_for_the_records_own(self) -> None:
        """A field named like an attribute of the record does not replace it, nor stand beside it."""
        text = written("m", {"process.pid": 1, "thread.name": "x", "log.repaired": "x"}, None, json=True)

        assert json.loads(text)["Attributes"]["process.pid"] == os.getpid()
        assert text.count('"process.pid"') == 1
        assert "log.repaired" not in text


class TestLength:
    """Lines are bounded, and say what is missing."""

    @pytest.mark.parametrize("size", [2_000, 100_000, 3_000_000])
    @pytest.mark.parametrize("letter", ["a", "a ", "\x00", "\u6c49", '"'])
    def test_json(self, letter: str, size: int) -> None:
        """A line of JSON is never longer in bytes than `max_line`, and can be read."""
        text = letter * (size // len(letter))

        for fields in ({}, {"x": text}, {"x": [text] * 3, "y": 1}, {str(n): text[:500] for n in range(50)}):
            got = written(text, fields, ValueError(text), json=True, max_line=10_000)
            line = json.loads(got)

            assert len(got.encode()) <= 10_000
            assert "log.cut" in line["Attributes"] or len(text) < 5_000

    def test_text(self) -> None:
        """So is a line of text, and the traceback below it."""
        got = written("a" * 100_000, {"x": "b" * 100_000}, ValueError("c" * 100_000), max_line=10_000)
        first, _, rest = got.partition("\n")

        assert len(first) <= 10_000
        assert len(rest) <= 12_000
        assert re.search(r"\[cut: \d+ more characters]", first)

    def test_a_secret_at_the_cut(self) -> None:
        """Half a URL is not shown, since nobody sees that it holds a secret."""
        url = "mysql://root:hunter2hunter2@db/shop"

        for start in range(9_800, 10_000, 3):
            assert "hunter" not in written("a " * (start // 2) + url, {}, None, max_line=10_000)
