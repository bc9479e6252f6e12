"""Standard logging into loguru: the record's own place, levels, and everything given back."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import threading
from collections.abc import Iterator
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

    def test_a_message_that_cannot_be_formatted(
        self, records: list[Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is reported as standard logging does, and nothing is raised."""
        record = logging.LogRecord("a", 20, __file__, 1, "%d", ("x",), None)
        LogInterceptor().handle(record)
        assert records == []
        assert "TypeError" in capsys.readouterr().err

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
