"""What is private to loguru and needed here; a test watches over each, and loguru's versions are bounded."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from loguru import logger

from ws_core.errors import describe

# Any below: records, tracebacks, and the inside of loguru.

_core: Any = logger._core  # type: ignore[attr-defined]


class TraceFormatter:
    """Formats exceptions as loguru does for one of its handlers, and those too that it fails with."""

    def __init__(self, number: int) -> None:
        self._formatter: Any = _core.handlers[number]._exception_formatter

    def format(self, record: Mapping[str, Any]) -> str:
        """Return the traceback of a record's exception, and of its own place when that was asked for."""
        error = record["exception"]
        own: str = record.get("trace", "")

        # An application may have put anything there.
        if getattr(error, "type", None) is None:
            return own

        return f"{self._exception(error)}{own}"

    def _exception(self, error: Any) -> str:
        try:
            caught = _is_catch(error.traceback)
            lines = self._formatter.format_exception(*error, from_decorator=caught)
            return "".join(lines)
        except Exception as failure:  # noqa: BLE001 - an exception of the application may break anything
            return f"{_plain(error)}(formatting the exception failed: {describe(failure, with_type=True)})\n"


def _is_catch(trace: Any) -> bool:
    """Return whether an exception was caught by ``logger.catch``, whose own frame is not shown."""
    return trace is not None and trace.tb_frame.f_code.co_name == "catch_wrapper"


def _plain(error: Any) -> str:
    try:
        return "".join(traceback.format_tb(error.traceback)) + describe(error.value, with_type=True) + "\n"
    except Exception:  # noqa: BLE001 - as above
        return f"{describe(error.value, with_type=True)}\n"


class _Handlers(dict[int, Any]):
    """Handlers that loguru ignores once all exit hooks are done: `datetime` of 3.13 crashes then."""

    def __bool__(self) -> bool:
        return not sys.is_finalizing()


class LastingSink:
    """
    The sink of a handler that goes on when loguru removes all of them at the end of the process.

    loguru does so in an exit hook of its own, and hooks from before its import log later. All work of the
    handler is done in its filter, so this one has nothing to write.
    """

    def __init__(self, is_ending: Callable[[], bool]) -> None:
        self._is_ending = is_ending
        self._number = -1
        self._handler: Any = None

    def keep(self, number: int) -> None:
        """Go on with this handler."""
        self._number, self._handler = number, _core.handlers[number]

    def release(self) -> None:
        """Let the handler be removed."""
        self._handler = None

    def write(self, _: str) -> None:
        """Do nothing: the filter has done it."""

    def stop(self) -> None:
        """Put the handler back when it is removed at the end; called by loguru, which has its lock."""
        if self._handler is not None and self._is_ending():
            _core.handlers = _Handlers({**_core.handlers, self._number: self._handler})
            _core.min_level = min(handler.levelno for handler in _core.handlers.values())


def set_threshold(number: int, level: int) -> None:
    """
    Change the level of a handler of loguru in place.

    loguru's own way is to remove the handler and add another one. A thread in the middle of a
    message knows only one of the two, so that messages would be lost or doubled.
    """
    with _core.lock:
        if number in _core.handlers:
            _core.handlers[number]._levelno = level
            # A loop, not min(): which of two equal numbers is kept matters, see `LevelByModule`.
            lowest: int | float = float("inf")

            for handler in _core.handlers.values():
                lowest = min(lowest, handler.levelno)

            _core.min_level = lowest
