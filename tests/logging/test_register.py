"""register_logger: what it sets up, what it refuses, and what its handle can do."""

from __future__ import annotations

import asyncio
import io
import logging
import logging.config
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

import ws_logging
from tests.logging._accounts import read
from tests.logging._records import text
from ws_core.errors import ConfigError
from ws_logging import LogFileRotator, LoggingConfigError, register_logger


def fail(error: Exception) -> None:
    """Raise an error, one frame further down."""
    raise error


def raise_error(text: str) -> None:
    """Raise an error."""
    raise ValueError(text)


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

    def test_a_record_that_was_spoilt(self) -> None:
        """A patcher of the application puts anything anywhere; its message is a line all the same."""
        for json in (False, True, "otlp"):
            out = io.StringIO()
            handle = register_logger("info", out, json=json)
            spoilt = logger.patch(lambda record: record.update(message=5, extra=None, exception="x"))  # type: ignore[call-arg]
            spoilt.info("m")
            handle.close()
            assert out.getvalue().count("\n") == 1
            assert "5" in out.getvalue()
            assert "log.repaired" in out.getvalue()

    def test_closing_when_others_have_removed_the_handlers(self, tmp_path: Path) -> None:
        """Loguru's remove() takes ours too."""
        handle = register_logger("info", file_path=tmp_path)
        logger.info("x")
        logger.remove()
        handle.close()
        assert "x" in text(tmp_path / "app.log")
        handle.set_level("debug")


class TestHandle:
    """What the handle reports."""

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

    @pytest.mark.parametrize("options", [{}, {"json": True}, {"format": "{level} {message} {fields}"}])
    def test_a_further_handler_of_loguru(self, options: Any) -> None:
        """It writes the very lines that ours writes: masked, escaped, with traceback and all fields."""
        ours, theirs = io.StringIO(), io.StringIO()
        handle = register_logger("info", ours, **options)
        number = logger.add(theirs, format=handle.formatter(**options))

        try:
            raise_error("password=hunter2")
        except ValueError:
            logger.bind(x="{a}", token="hunter2").exception("<red>{{not}} a\nb</red> {}", "x")

        logger.remove(number)
        handle.close()
        assert theirs.getvalue() == ours.getvalue() != ""
        assert "hunter2" not in theirs.getvalue()

    def test_a_further_handler_with_a_wrong_format(self) -> None:
        """It is refused when the format is asked for."""
        handle = register_logger("info", io.StringIO())

        with pytest.raises(LoggingConfigError, match="cannot be filled in"):
            handle.formatter(format="{nothing}")

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
            ({"file_path": "/etc/hostname/x"}, "file_path: /etc/hostname is not a directory"),
            ({"file_name": "a/b.log"}, "file_name: the name of a file"),
            ({"file_name": ""}, "file_name: the name of a file"),
            ({"file_rotation": "1 day"}, "rotation"),
            ({"file_retention": "forever"}, "retention"),
            ({"compression": "rar"}, "compression: 'gz', 'zst' or None is expected"),
            ({"compression": ["gz"]}, "compression: 'gz', 'zst' or None is expected"),
            ({"json": "xml"}, 'json: True, False or "otlp" is expected'),
            ({"sample": {"a": 2}}, r"sample\['a'\]: a share between 0 and 1"),
            ({"ring": -1}, "ring: a number from 0 to 1,000,000"),
            ({"ring": 10**12}, "ring: a number from 0"),
            ({"ring": True}, "ring: a number from 0"),
            ({"max_line": 5}, "max_line: a number from 1,024"),
            ({"redact": "password"}, "redact: a set of names is expected"),
            ({"redact": [5]}, "redact: a name has letters"),
            ({"service": 5}, "service: a name or a mapping"),
            ({"service": ""}, "service: a name or a mapping"),
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

    def test_without_posix(self, tmp_path: Path) -> None:
        """Without flock, fork and owners of files, as on Windows, one process logs all the same."""
        program = (
            "import os, signal, sys\n"
            "sys.modules['fcntl'] = None\n"
            "for name in ('fork', 'register_at_fork', 'fchmod', 'fchown', 'pread', 'pwrite', 'O_CLOEXEC'):\n"
            "    delattr(os, name)\n"
            "del signal.SIGHUP\n"
            "from ws_logging import LogFileRotator, logger, register_logger\n"
            "import ws_logging._components, ws_core.backoff, ws_core.metaclass, ws_core.component\n"
            "rotator = LogFileRotator(1000, '00:00')\n"
            "register_logger('info', None, sys.argv[1], file_rotation=rotator, compression='gz')\n"
            "for number in range(50):\n"
            "    logger.info('line {}', number)\n"
        )
        words = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)

        assert (done.returncode, done.stderr) == (0, "")
        assert sum(line.count(" - line ") for line in read(tmp_path)) == 50
