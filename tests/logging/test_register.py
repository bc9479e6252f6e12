"""register_logger: what it sets up, what it refuses, and what its handle can do."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

import ws_logging
from ws_core.component import Component
from ws_core.errors import ConfigError, NotReadyError
from ws_logging import LogFileRotator, LoggingConfigError, Redactor, log_context, register_logger
from ws_logging import context as log_fields
from ws_logging._components import LoggingComponent
from ws_logging._components import logging as logging_component
from ws_logging._formatters import json_line, text_line
from ws_logging._outputs import notice


def text(path: Path) -> Any:
    """Return a file's text."""
    return path.read_text()


def fail(error: Exception) -> None:
    """Raise an error, one frame further down."""
    raise error


class TestOutputs:
    """Where messages go."""

    def test_a_file(self, tmp_path: Path) -> None:
        """The live file has no time in its name; the directory is made."""
        handle = register_logger("info", file_path=tmp_path / "a" / "b")
        logger.info("hello {}", "world")
        logger.debug("not this")
        handle.close()
        assert text(tmp_path / "a" / "b" / "app.log").endswith(" - hello world\n")

    @pytest.mark.parametrize("kind", ["write", "function", "handler"])
    def test_a_handler(self, kind: str) -> None:
        """An object with write, a function, or a handler of standard logging."""
        stream = io.StringIO()
        standard = logging.StreamHandler(stream)
        standard.setLevel("WARNING")
        handler = {"write": stream, "function": stream.write, "handler": standard}[kind]
        register_logger("info", handler)
        logger.info("quiet")
        logger.warning("loud")
        got = stream.getvalue()
        assert "loud\n" in got
        assert ("quiet" in got) is (kind != "handler")
        assert got.count("\n") == (1 if kind == "handler" else 2)

    def test_stderr_when_there_is_nothing_else(self, capsys: pytest.CaptureFixture[str]) -> None:
        """And with debug."""
        register_logger("info")
        logger.info("to stderr")
        assert "to stderr" in capsys.readouterr().err
        register_logger("info", io.StringIO())
        logger.info("not to stderr")
        assert capsys.readouterr().err == ""
        register_logger("info", io.StringIO(), debug=True)
        logger.info("both")
        assert "both" in capsys.readouterr().err

    def test_colors_on_a_terminal_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Files and pipes get plain text."""

        class Terminal(io.StringIO):
            def isatty(self) -> Any:
                return True

        terminal, stream = Terminal(), io.StringIO()
        monkeypatch.setattr(sys, "stderr", terminal)
        register_logger("info", stream, debug=True)
        logger.error("x")
        assert "\x1b[31mERROR" in terminal.getvalue()
        assert "\x1b" not in stream.getvalue()

    def test_without_stderr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process without it, as under pythonw, does not fail."""
        monkeypatch.setattr(sys, "stderr", None)
        handle = register_logger("info")
        logger.info("x")
        assert handle.statistics().messages == 1

    def test_a_second_call_replaces_the_first(self, tmp_path: Path) -> None:
        """The first one's file is drained and closed."""
        first = register_logger("info", file_path=tmp_path, file_name="one.log")
        logger.info("first")
        second = register_logger("info", file_path=tmp_path, file_name="two.log")
        logger.info("second")
        second.close()
        first.close()
        assert text(tmp_path / "one.log").count("\n") == text(tmp_path / "two.log").count("\n") == 1

    def test_closing_when_others_have_removed_the_handlers(self, tmp_path: Path) -> None:
        """Loguru's remove() takes ours too."""
        handle = register_logger("info", file_path=tmp_path)
        logger.info("x")
        logger.remove()
        handle.close()
        assert "x" in text(tmp_path / "app.log")
        handle.set_level("debug")


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
            "test_register:<lambda>:"
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
        log = lambda: logger.bind(user="ann", trace_id="t", span_id="s", tags={1}, o=object).warning("a\nb")  # noqa: E731 - a value
        got = self.line(log, json=True)
        assert got.count("\n") == 1
        line = json.loads(got)
        assert (line["SeverityText"], line["SeverityNumber"], line["Body"]) == ("WARNING", 13, "a\nb")
        assert (line["TraceId"], line["SpanId"]) == ("t", "s")
        assert line["Attributes"]["user"] == "ann"
        assert line["Attributes"]["process.pid"] == os.getpid()
        assert abs(line["Timestamp"] / 1e9 - __import__("time").time()) < 60
        assert line["InstrumentationScope"]["Name"].endswith("test_register")

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
    def test_secrets(self, as_json: bool) -> None:  # noqa: FBT001 - a parameter of the test
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
        assert " | ws_logging.sink:put:0 - 5 log messages were dropped" in notice(text_line(None))(5)
        line = json.loads(notice(json_line(None, resource={"service.name": "shop"}))(5))
        assert (line["Attributes"]["dropped"], line["Resource"]) == (5, {"service.name": "shop"})

    def test_redaction_has_an_end(self) -> None:
        """Very deep values are not gone through; without names only URLs are masked."""
        deep: Any = {"password": "x"}

        for _ in range(8):
            deep = {"a": deep}

        assert "x" in repr(Redactor().fields(deep))
        assert Redactor([]).text("password=x redis://u:y@h") == "password=x redis://u:***@h"


class TestLevels:
    """Which messages are logged."""

    def test_names_numbers_and_case(self) -> None:
        """As people write them."""
        for level in ("warning", "WARNING", "Warning", 30):
            stream = io.StringIO()
            register_logger(level, stream)
            logger.info("no")
            logger.warning("yes")
            assert "yes" in stream.getvalue()
            assert "no" not in stream.getvalue().replace("yes", "")[60:] or stream.getvalue().count("\n") == 1

    def test_levels_by_module(self) -> None:
        """The nearest parent decides; also for standard logging."""
        stream = io.StringIO()
        register_logger("info", stream, levels={"noisy": "error", "noisy.important": "debug"})
        logging.getLogger("noisy.part").warning("noisy")
        logging.getLogger("noisy.important").debug("important")
        logging.getLogger("other").debug("other")
        assert [line.split(" - ")[1] for line in stream.getvalue().splitlines()] == ["important"]

    def test_sampling_is_exact_and_never_loses_errors(self) -> None:
        """One in ten, every error."""
        stream = io.StringIO()
        register_logger("info", stream, sample={"noisy": 0.1})

        for _ in range(100):
            logging.getLogger("noisy").info("x")
            logging.getLogger("noisy").error("e")

        assert stream.getvalue().count("INFO") == 10
        assert stream.getvalue().count("ERROR") == 100

    def test_set_level_loses_and_doubles_nothing(self, tmp_path: Path) -> None:
        """While threads are logging."""
        handle = register_logger("info", file_path=tmp_path, file_rotation=None)
        stop = threading.Event()
        counts = {}

        def work(name: str) -> None:
            number = 0

            while not stop.is_set():
                logger.warning("{} {}", name, number)
                number += 1

            counts[name] = number

        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]

        for thread in threads:
            thread.start()

        for level in ("debug", "warning", "info", "error", "trace") * 2:
            if level != "error":
                handle.set_level(level)

        stop.set()

        for thread in threads:
            thread.join()

        handle.set_level("debug")
        logger.debug("now")
        assert handle.statistics().level == "DEBUG"
        handle.close()
        found = [line.split(" - ")[1] for line in text(tmp_path / "app.log").splitlines()]
        assert found.pop() == "now"
        assert sorted(found) == sorted(f"{name} {n}" for name, count in counts.items() for n in range(count))


class TestHandle:
    """What the handle tells."""

    def test_tail(self) -> None:
        """The latest lines, as many as the ring holds."""
        handle = register_logger("info", io.StringIO(), ring=3)

        for number in range(5):
            logger.info(str(number))

        assert [line.strip()[-1] for line in handle.tail()] == ["2", "3", "4"]
        assert len(handle.tail(1)) == 1
        assert handle.tail(0) == []

    def test_statistics_and_flush(self, tmp_path: Path) -> None:
        """Of the file, when there is one."""
        assert register_logger("info", io.StringIO()).flush()
        assert register_logger(33, io.StringIO()).statistics().level == "33"
        handle = register_logger("info", file_path=tmp_path)
        logger.info("x")
        assert handle.flush(30)
        statistics = handle.statistics()
        assert (statistics.messages, statistics.file and statistics.file.written) == (1, 1)

    def test_sigterm_is_given_back(self, tmp_path: Path) -> None:
        """The handler is ours between register and close, and only if nobody else's was there."""
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        handle = register_logger("info", file_path=tmp_path)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        handle.close()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

        try:
            register_logger("info", file_path=tmp_path).close()
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def test_in_a_thread(self, tmp_path: Path) -> None:
        """Only the main thread can install signal handlers; everything else works."""
        handles = []
        thread = threading.Thread(target=lambda: handles.append(register_logger("info", file_path=tmp_path)))
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        handles[0].close()


class TestMistakes:
    """A wrong argument is a clear error, and nothing is half installed."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"level": "loud"}, "level: there is no log level 'loud'; there are trace, debug"),
            ({"level": -1}, "no log level -1"),
            ({"level": None}, "no log level None"),
            ({"levels": {"a": "loud"}}, r"levels\['a'\]: there is no log level"),
            ({"handler": 7}, "handler: a function or an object with write is expected, not int"),
            ({"handler": asyncio.sleep}, "handler: a function or an object with write"),
            ({"file_path": "/proc/nosuch"}, "log file /proc/nosuch/app.log cannot be opened"),
            ({"file_path": "/etc/hostname/x"}, "file_path: /etc/hostname is no directory"),
            ({"file_name": "a/b.log"}, "file_name: the name of a file"),
            ({"file_name": ""}, "file_name: the name of a file"),
            ({"file_rotation": "1 day"}, "rotation"),
            ({"file_retention": "forever"}, "retention"),
            ({"compression": "rar"}, "compression"),
            ({"sample": {"a": 2}}, r"sample\['a'\]: a share between 0 and 1"),
            ({"ring": -1}, "ring: a number of lines"),
        ],
    )
    def test_arguments(self, tmp_path: Path, options: Any, message: Any) -> None:
        """What was set up before goes on."""
        stream = io.StringIO()
        register_logger("info", stream)
        before = logging.getLogger().handlers[:]

        with pytest.raises(LoggingConfigError, match=message) as caught:
            register_logger(**{"file_path": tmp_path / "logs", **options})

        assert isinstance(caught.value, ConfigError)
        assert logging.getLogger().handlers == before
        assert not (tmp_path / "logs").exists()
        logger.info("still here")
        assert "still here" in stream.getvalue()

    def test_a_directory_without_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message names it."""
        monkeypatch.setattr(os, "access", lambda *_: False)

        with pytest.raises(LoggingConfigError, match=f"no permission to write to {tmp_path}"):
            register_logger(file_path=tmp_path)


class TestContext:
    """Fields of a piece of work."""

    async def test_it_follows_tasks_and_does_not_mix(self) -> None:
        """Each task has its own; threads that copy the context too."""
        stream = io.StringIO()
        register_logger("info", stream)

        async def work(name: str) -> None:
            with log_context(name=name):
                await asyncio.sleep(0)
                logger.info("loguru")
                await asyncio.to_thread(logging.getLogger("std").info, "standard")

        await asyncio.gather(*(work(f"w{n}") for n in range(5)))
        logger.info("outside")
        lines = stream.getvalue().splitlines()
        assert "name=" not in lines.pop()
        assert sorted(line.rpartition("name=")[2] for line in lines) == sorted(
            [f"w{n}" for n in range(5)] * 2
        )

    def test_provided_fields(self) -> None:
        """Asked for with every message; the message's own fields win; empty ones are left out."""
        stream = io.StringIO()
        register_logger("info", stream)
        values = iter(["r1", "r2", "", "r4"])
        log_fields.provide("request_id", lambda: next(values))

        try:
            logger.info("a")
            logger.bind(request_id="mine").info("b")
            logger.info("c")
        finally:
            log_fields.withdraw("request_id")

        log_fields.withdraw("request_id")
        logger.info("d")
        tails = [line.split(" - ")[1] for line in stream.getvalue().splitlines()]
        assert tails == ["a | request_id=r1", "b | request_id=mine", "c", "d"]


class TestComponent:
    """Logging as an application starts it."""

    async def test_life(self, tmp_path: Path) -> None:
        """Configured, started, healthy, closed; the request id is on the lines in between."""
        component = logging_component()
        assert isinstance(component, Component)
        assert (component.settings_key, component.status()) == ("LOGGING_CONFIG", {})
        rotation = {"size_mb": 1, "at": "03:00"}
        component.configure({"level": "debug", "file_path": str(tmp_path), "file_rotation": rotation})
        component.add_context("request_id", lambda: "r-1")
        assert not (tmp_path / "app.log").exists()

        with pytest.raises(NotReadyError, match="not started"):
            _ = component.handle

        await component.start()
        logging.getLogger("std").debug("hello")
        component.handle.flush()
        assert (await component.health()).ok
        assert component.status()["file_written"] == 1
        await component.close()
        await component.close()
        assert text(tmp_path / "app.log").endswith("hello | request_id=r-1\n")
        logger.info("after")
        assert log_fields.current_fields() == {}

    async def test_health_when_the_disk_fails(self, tmp_path: Path) -> None:
        """Ill while messages do not reach the file."""
        (tmp_path / "app.log").symlink_to("/dev/full")
        component = logging_component()
        component.configure({"file_path": str(tmp_path)})
        await component.start()
        logger.info("x")
        component.handle.flush(0.2)
        health = await component.health()
        assert (health.ok, "No space left" in health.detail) == (False, True)
        (tmp_path / "app.log").unlink()
        component.handle.flush(30)
        assert (await component.health()).ok
        await component.close()

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            (["info"], "a mapping is expected, not list"),
            ({"levle": "info"}, "LOGGING_CONFIG: there is no levle; there are .*level"),
            ({"level": "loud"}, "no log level 'loud'"),
            ({"file_rotation": {"mb": 1}}, "file_rotation takes size_mb and at"),
            ({"file_rotation": {"size_mb": 0}}, "positive number of MiB"),
        ],
    )
    def test_wrong_sections(self, section: Any, message: Any) -> None:
        """Refused before anything is started."""
        with pytest.raises(LoggingConfigError, match=message):
            LoggingComponent().configure(section)


class TestImport:
    """`import ws_logging`."""

    def test_public_names(self) -> None:
        """The contract's names are exported, and everything exported is listed."""
        names = {
            "register_logger",
            "LogInterceptor",
            "QueuedFileSink",
            "LogFileRotator",
            "log_context",
            "logger",
        }
        assert names <= set(ws_logging.__all__)
        assert all(hasattr(ws_logging, name) for name in ws_logging.__all__)
        assert LogFileRotator is ws_logging.LogFileRotator

    def test_nothing_happens(self) -> None:
        """No thread, no handler, no hook, no sibling."""
        code = (
            "import threading, logging, signal, sys, ws_logging; "
            "assert threading.active_count() == 1; assert not logging.getLogger().handlers; "
            "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL; "
            "assert not {'ws_web', 'ws_pool', 'ws_tasks', 'ws_redislock'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
