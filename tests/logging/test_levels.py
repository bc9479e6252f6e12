"""Which messages are logged, and what it costs when they are not."""

from __future__ import annotations

import io
import logging
import logging.config
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from tests.logging._records import text
from ws_logging import LoggingConfigError, register_logger


def fail(error: Exception) -> None:
    """Raise an error, one frame further down."""
    raise error


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


class TestDefaults:
    """The levels that libraries have by default."""

    def test_a_library_that_logs_much(self) -> None:
        """It is raised, never lowered, and follows the level of all others."""
        stream = io.StringIO()
        handle = register_logger("info", stream)
        sql = logging.getLogger("sqlalchemy.engine.Engine")
        sql.info("select 1")
        sql.warning("one")
        handle.set_level("error")
        sql.warning("not this")
        assert handle.statistics().levels == {}
        handle.set_level("debug")
        sql.info("select 2")
        assert handle.statistics().levels == {"sqlalchemy": "WARNING"}
        handle.close()

        assert [line.partition(" - ")[2] for line in stream.getvalue().splitlines()] == ["one"]

    @pytest.mark.parametrize("levels", [{}, {"sqlalchemy": "info"}])
    def test_levels_of_your_own(self, levels: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        """They take the place of the defaults."""
        # SQLAlchemy sets the level of its own logger when it is imported, which another test may have done.
        monkeypatch.setattr(logging.getLogger("sqlalchemy"), "level", logging.NOTSET)
        logging.getLogger("sqlalchemy").manager._clear_cache()  # type: ignore[attr-defined]  # the standard library's own
        stream = io.StringIO()
        handle = register_logger("info", stream, levels=levels)
        logging.getLogger("sqlalchemy.engine.Engine").info("select 1")
        handle.close()

        assert "select 1" in stream.getvalue()


class TestCost:
    """A level of one module costs the others nothing."""

    @pytest.mark.parametrize(
        "levels", [{"shop.stock": "debug"}, {"shop.stock": "debug", "sqlalchemy": "error"}]
    )
    def test_disabled_calls(self, levels: dict[str, str]) -> None:
        """A disabled call of another module costs what it costs without any levels, or little more."""
        own = logging.getLogger("shop.other")
        costs = {}

        for name, given in (("without", None), ("with", levels)):
            handle = register_logger("info", io.StringIO(), levels=given)
            costs[name] = (_cost(lambda: own.debug("no")), _cost(lambda: logger.debug("no")))
            handle.close()

        # Standard logging has its own price, and loguru at most 2 microseconds more than its own.
        assert costs["with"][0] < 2 * costs["without"][0]
        assert costs["with"][1] < costs["without"][1] + 2e-6 * SLOWNESS

    def test_the_module_that_has_the_level(self) -> None:
        """It is found by the caller's frame, also through ``opt(depth=…)``, ``log`` and ``bind``."""
        stream = io.StringIO()
        register_logger("info", stream, levels={"shop.stock": "debug"})
        namespace: dict[str, Any] = {"__name__": "shop.stock.shelves", "logger": logger}
        code = "def log(call):\n    call()\ndef direct():\n    logger.debug('a')\n    logger.log(10, 'b')\n"
        code += "    logger.bind(x=1).debug('c')\n    logger.opt(depth=0).debug('d')\n"
        code += "    logger.trace('no')\n"
        exec(code, namespace)
        namespace["direct"]()
        logger.debug("no")
        logger.opt(depth=10**6).debug("no: there is no such frame")
        namespace["log"](lambda: logger.opt(depth=1).debug("e"))
        logging.getLogger("shop.stock").debug("f")
        logging.getLogger("shop").debug("no")

        shown = [line.partition(" - ")[2].partition(" ")[0] for line in stream.getvalue().splitlines()]
        assert shown == ["a", "b", "c", "d", "e", "f"]

    def test_another_handler_of_loguru_still_gets_everything(self) -> None:
        """A handler that wants all levels is not held short by ours."""
        stream, other = io.StringIO(), io.StringIO()
        register_logger("info", stream, levels={"shop.stock": "debug"})
        number = logger.add(other, level="DEBUG", format="{message}")
        logger.debug("one")
        logger.remove(number)
        logger.debug("two")
        logger.info("three")

        assert other.getvalue() == "one\n"
        assert stream.getvalue().count("\n") == 1


class TestModules:
    """Levels of modules, given at the beginning or later."""

    def test_a_librarys_own_level(self) -> None:
        """The level that was asked for wins over the one that a library has set, and both are undone."""
        own = logging.getLogger("library.part")
        own.setLevel("ERROR")
        stream = io.StringIO()
        handle = register_logger("info", stream, levels={"library": "debug"})
        own.debug("shown")
        handle.close()

        assert stream.getvalue().count("\n") == 1
        assert own.level == logging.ERROR
        own.setLevel("NOTSET")

    def test_changed_while_running(self) -> None:
        """Set, and taken back, for standard logging and loguru alike."""
        stream = io.StringIO()
        handle = register_logger("info", stream)
        own = logging.getLogger("shop.stock")
        own.debug("no")
        handle.set_level("debug", "shop.stock")
        own.debug("yes")
        assert handle.statistics().levels == {"sqlalchemy": "WARNING", "shop.stock": "DEBUG"}
        handle.set_level("warning")
        own.debug("still")
        logging.getLogger("shop").info("no")
        handle.set_level(None, "shop.stock")
        handle.set_level(None, "never.set")
        own.info("no")

        assert [line.partition(" - ")[2] for line in stream.getvalue().splitlines()] == ["yes", "still"]

        with pytest.raises(LoggingConfigError, match="so name one"):
            handle.set_level(None)


SLOWNESS = 4.0  # a machine that runs other tests meanwhile is slower than the bound's; the ratio above is not


def _cost(call: Callable[[], object]) -> float:
    """Return the seconds of processor time that a call takes: the best of several rounds."""
    best = float("inf")

    for _ in range(7):
        began = time.thread_time()

        for _ in range(2_000):
            call()

        best = min(best, (time.thread_time() - began) / 2_000)

    return best
