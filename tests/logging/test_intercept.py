"""Standard logging into loguru: the record's own place, levels, and everything given back."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from ws_logging import LogInterceptor, register_logger


class TestInterceptor:
    """Standard logging through loguru."""

    @pytest.fixture
    def records(self) -> Iterator[Any]:
        """Register, and collect loguru's records."""
        got = []
        logger.remove()
        logger.add(lambda message: got.append(message.record), level=0, format="{message}")
        interceptor = LogInterceptor()
        interceptor.register("DEBUG")
        yield got
        interceptor.unregister()

    def test_the_place_is_the_records_own(self, records: list[Any]) -> None:
        """File, line, function, logger, thread and process, without walking the stack."""
        logging.getLogger("a.b").warning("%s {braces}", "x", extra={"order": 7})
        (record,) = records
        assert (record["name"], record["message"], record["level"].name) == ("a.b", "x {braces}", "WARNING")
        assert record["file"].path == __file__
        assert record["function"] == "test_the_place_is_the_records_own"
        assert record["module"] == "test_intercept"
        assert (record["thread"].id, record["process"].id) == (threading.get_ident(), os.getpid())
        assert record["extra"] == {"order": 7}

    def test_exceptions_come_along(self, records: list[Any]) -> None:
        """With their traceback."""
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logging.getLogger("a").exception("failed")

        assert records[0]["exception"].type is ZeroDivisionError

    def test_levels(self, records: list[Any]) -> None:
        """Known names, other names for known numbers, and numbers of their own."""
        logging.addLevelName(35, "NOTICE")

        for level in (10, 20, 30, 40, 50, 35):
            logging.getLogger("a").log(level, "x")

        names = [record["level"].name for record in records]
        assert names == ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "Level 35"]

    def test_a_message_that_cannot_be_formatted(self, records: list[Any]) -> None:
        """It is logged as what it was to be made of, with the reason."""
        for message, argument in (("%d left", "x"), ("no place", 1)):
            LogInterceptor().handle(logging.LogRecord("a", 30, __file__, 1, message, (argument,), None))

        assert [record["message"] for record in records] == [
            "%d left ('x',) (not formatted: TypeError: %d format: a real number is required, not str)",
            "no place (1,) (not formatted: TypeError: not all arguments converted during string formatting)",
        ]

    def test_a_record_that_cannot_be_logged(
        self, records: list[Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is reported as standard logging does, and nothing is raised."""
        record = logging.LogRecord("a", 20, __file__, 1, "x", (), None)
        record.levelno = "loud"  # type: ignore[assignment]  # a broken record
        LogInterceptor().handle(record)
        assert records == []
        assert "Logging error" in capsys.readouterr().err

    @pytest.mark.parametrize("as_json", [False, True])
    def test_stack_info_and_texts_of_tracebacks(self, *, as_json: bool) -> None:
        """The stack that was asked for is shown, and the traceback of a record that came through a queue."""
        stream = io.StringIO()
        register_logger("info", stream, json=as_json)
        logging.getLogger("a").info("here", stack_info=True)
        record = logging.LogRecord("a", 40, __file__, 1, "there", (), None)
        record.exc_text = "Traceback (most recent call last):\nValueError: x"
        logging.getLogger().handle(record)

        assert "Stack (most recent call last):" in stream.getvalue()
        assert "test_stack_info_and_texts_of_tracebacks" in stream.getvalue()
        assert "ValueError: x" in stream.getvalue()

    @pytest.mark.parametrize("configure", ["dictConfig", "fileConfig"])
    def test_configuring_later(self, tmp_path: Path, configure: str) -> None:
        """When a server configures logging afterwards, its lines arrive all the same."""
        stream = io.StringIO()
        handle = register_logger("info", stream, levels={"uvicorn.access": "warning"})

        if configure == "dictConfig":
            handler = {"class": "logging.NullHandler"}
            own = {"handlers": ["own"], "propagate": False, "level": "INFO"}
            loggers = {"uvicorn": own, "uvicorn.access": own}
            config = {"version": 1, "handlers": {"own": handler}, "loggers": loggers}
            logging.config.dictConfig({**config, "disable_existing_loggers": False})
        else:
            (tmp_path / "log.ini").write_text(
                "[loggers]\nkeys=root,uvicorn\n[handlers]\nkeys=own\n[formatters]\nkeys=\n"
                "[handler_own]\nclass=NullHandler\nargs=()\n[logger_root]\nhandlers=own\n"
                "[logger_uvicorn]\nhandlers=own\npropagate=0\nqualname=uvicorn\nlevel=INFO\n"
            )
            logging.config.fileConfig(tmp_path / "log.ini", disable_existing_loggers=False)

        logging.getLogger("uvicorn").info("started")
        logging.getLogger("uvicorn.access").info("not this")
        logging.getLogger("other").info("other")
        handle.close()

        assert [line.partition(" - ")[2] for line in stream.getvalue().splitlines()] == ["started", "other"]
        assert [type(one) for one in logging.getLogger("uvicorn").handlers] == [logging.NullHandler]
        assert not hasattr(getattr(logging.config, configure), "__wrapped__")
        logging.getLogger("uvicorn").handlers[:] = []

    def test_loggers_with_handlers_of_their_own(self) -> None:
        """Those of servers are made to propagate, and get everything back."""
        own = logging.NullHandler()
        uvicorn = logging.getLogger("uvicorn.access")
        uvicorn.handlers[:], uvicorn.propagate = [own], False
        interceptor = LogInterceptor()
        interceptor.register()
        interceptor.register()
        assert (uvicorn.handlers, uvicorn.propagate) == ([], True)
        assert logging.getLogger().handlers == [interceptor]
        interceptor.unregister()
        interceptor.unregister()
        assert (uvicorn.handlers, uvicorn.propagate) == ([own], False)
        assert logging.getLogger().handlers != [interceptor]
        uvicorn.handlers[:], uvicorn.propagate = [], True

    def test_in_dict_config(self, records: list[Any]) -> None:
        """It can be named there."""
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {"loguru": {"class": "ws_logging.LogInterceptor", "level": "INFO"}},
                "loggers": {"configured": {"handlers": ["loguru"], "propagate": False, "level": "DEBUG"}},
            }
        )
        logging.getLogger("configured").info("x")
        logging.getLogger("configured").debug("y")
        assert [record["message"] for record in records] == ["x"]

    def test_without_interception(self) -> None:
        """register_logger can leave standard logging alone."""
        before = logging.getLogger().handlers[:]
        register_logger("info", io.StringIO(), intercept=False).set_level("debug")
        assert logging.getLogger().handlers == before
