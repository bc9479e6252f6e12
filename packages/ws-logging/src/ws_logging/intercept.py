"""Standard logging into loguru, without walking the stack: the record already knows its place."""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from loguru import logger

__all__ = ("LogInterceptor",)

# Loggers that servers and libraries give handlers of their own and do not let propagate.
_WAYWARD: Final = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "gunicorn.error",
    "gunicorn.access",
    "sqlalchemy",
    "aiohttp.access",
    "fastapi",
)

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_NAMES: Final = {"WARN": "WARNING", "FATAL": "CRITICAL"}

_Saved = tuple[logging.Logger, list[logging.Handler], bool, int]


class LogInterceptor(logging.Handler):
    """
    A handler of standard logging that hands records to loguru.

    File, line, function, logger name, time, thread and process are those of the record, and its
    ``extra`` fields come along. It may be named in ``dictConfig`` as ``ws_logging.LogInterceptor``.

    Example:
        >>> from loguru import logger
        >>> number = logger.add(lambda m: print(m, end=""), format="{name} {level} {message}")
        >>> interceptor = LogInterceptor()
        >>> interceptor.register("INFO")
        >>> logging.getLogger("shop.stock").warning("%d left", 3)
        shop.stock WARNING 3 left
        >>> interceptor.unregister()
        >>> logger.remove(number)
    """

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._current = threading.local()
        self._logger = logger.patch(self._describe)  # type: ignore[arg-type]
        self._saved: list[_Saved] = []

    def register(self, level: int | str = logging.INFO) -> None:
        """
        Become the only handler of standard logging. May be called again.

        Args:
            level: The level of the root logger, by name or number.
        """
        self.unregister()
        root = logging.getLogger()
        known = [logging.getLogger(name) for name in _WAYWARD if name in logging.root.manager.loggerDict]
        self._saved = [(one, one.handlers[:], one.propagate, one.level) for one in (root, *known)]

        for one in known:
            one.handlers[:] = []
            one.propagate = True

        root.handlers[:] = [self]
        root.setLevel(level)

    def unregister(self) -> None:
        """Give every logger back the handlers it had. Nothing happens when not registered."""
        for one, handlers, propagate, level in self._saved:
            one.handlers[:] = handlers
            one.propagate = propagate
            one.setLevel(level)

        self._saved = []

    def emit(self, record: logging.LogRecord) -> None:
        """
        Hand a record to loguru.

        Args:
            record: The record; its message is never formatted a second time, so braces are safe.
        """
        try:
            message = record.getMessage()
            self._current.record = record
            target = self._logger.opt(exception=record.exc_info) if record.exc_info else self._logger
            target.log(_level(record), message)
        except Exception:  # noqa: BLE001 - the contract of logging handlers: report, never raise
            self.handleError(record)
        finally:
            self._current.record = None

    def _describe(self, target: dict[str, Any]) -> None:  # Any: loguru's record
        """Overwrite what loguru took from our own stack frame."""
        record: logging.LogRecord = self._current.record
        target["name"] = record.name
        target["function"] = record.funcName
        target["line"] = record.lineno
        target["module"] = record.module
        target["time"] = target["time"].fromtimestamp(record.created, target["time"].tzinfo)
        target["file"] = type(target["file"])(record.filename, record.pathname)
        target["thread"] = type(target["thread"])(record.thread, record.threadName)
        target["process"] = type(target["process"])(record.process, record.processName)

        target["extra"].update({name: vars(record)[name] for name in vars(record).keys() - _STANDARD})


def _level(record: logging.LogRecord) -> str | int:
    """Return the level as loguru knows it: by name when it has the same number there."""
    name = _NAMES.get(record.levelname, record.levelname)

    try:
        return name if logger.level(name).no == record.levelno else record.levelno
    except ValueError:
        return record.levelno
