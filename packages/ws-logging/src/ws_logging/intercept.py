"""Standard logging into loguru, without walking the stack: the record already knows its place."""

from __future__ import annotations

import functools
import logging
import logging.config
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from loguru import logger

from ws_core.errors import describe
from ws_logging._escaping import safe_repr, safe_str

__all__ = ("LogInterceptor",)

# Any below: loguru's records, and arguments of functions that are passed on.

# Loggers that servers and libraries give handlers of their own and do not let propagate.
_WAYWARD: Final = (
    "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "gunicorn.error", "gunicorn.access",
    "hypercorn.error", "hypercorn.access", "sqlalchemy", "aiohttp.access", "fastapi",
)  # fmt: skip

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "color_message", "taskName",
}  # fmt: skip
_NAMES: Final = {"WARN": "WARNING", "FATAL": "CRITICAL"}
_CONFIGURING: Final = ("dictConfig", "fileConfig")

_Saved = tuple[list[logging.Handler], bool]


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
        self._handlers: dict[logging.Logger, _Saved] = {}
        self._own_levels: dict[logging.Logger, int] = {}
        self._levels: dict[str, int | str] = {}
        self._functions: dict[str, Callable[..., Any]] = {}

    def register(
        self, level: int | str = logging.INFO, levels: Mapping[str, int | str] | None = None
    ) -> None:
        """
        Become the only handler of standard logging. May be called again.

        Stays it when a server or library configures logging later, with ``dictConfig`` or ``fileConfig``,
        as ``uvicorn.run`` does.

        Args:
            level: The level of the root logger, by name or number.
            levels: Levels of other loggers and all that is below them, also of those that have a level
                of their own.
        """
        self.unregister()
        self._levels = {"": level, **(levels or {})}
        self._take_over()

        for name in _CONFIGURING:
            self._functions[name] = getattr(logging.config, name)
            setattr(logging.config, name, self._followed(self._functions[name]))

    def unregister(self) -> None:
        """Restore the handlers and the level of every logger. Nothing happens when not registered."""
        for name, function in self._functions.items():
            if getattr(getattr(logging.config, name), "__wrapped__", None) is function:
                setattr(logging.config, name, function)

        for one, (handlers, propagate) in self._handlers.items():
            one.handlers[:] = handlers
            one.propagate = propagate

        for one, level in self._own_levels.items():
            one.setLevel(level)

        self._functions, self._handlers, self._own_levels, self._levels = {}, {}, {}, {}

    def _followed(self, configure: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that configures logging, and then hands it to this handler again."""

        @functools.wraps(configure)
        def configure_and_take_over(*args: Any, **kwargs: Any) -> Any:
            result = configure(*args, **kwargs)

            if self._levels:
                self._take_over()

            return result

        return configure_and_take_over

    def _take_over(self) -> None:
        root = logging.getLogger()
        known = [logging.getLogger(name) for name in _WAYWARD if name in root.manager.loggerDict]

        for one in (root, *known):
            mine = [self] if one is root else []

            if one.handlers != mine or (one is not root and not one.propagate):
                self._handlers[one] = (one.handlers[:], one.propagate)
                one.handlers[:] = mine
                one.propagate = True

        # A disabled call costs what it costs in standard logging, since the levels are its own.
        for name, level in self._levels.items():
            self._set_level(logging.getLogger(name or None), level)

        for name, below in list(root.manager.loggerDict.items()):
            if isinstance(below, logging.Logger) and below.level and self._covers(name):
                self._set_level(below, logging.NOTSET)

    def _set_level(self, one: logging.Logger, level: int | str) -> None:
        self._own_levels.setdefault(one, one.level)
        one.setLevel(level)

    def _covers(self, name: str) -> bool:
        """Return whether a logger has the level that was given for one above it, the root aside."""
        return name not in self._levels and any(
            above and name.startswith(f"{above}.") for above in self._levels
        )

    def emit(self, record: logging.LogRecord) -> None:
        """
        Hand a record to loguru.

        Args:
            record: The record; its message is never formatted a second time, so braces are safe.
        """
        try:
            message = _message(record)
            self._current.record = record
            target = self._logger.opt(exception=record.exc_info) if record.exc_info else self._logger
            target.log(_level(record.levelname, record.levelno), message)
        except Exception:  # noqa: BLE001 - the contract of logging handlers: report, never raise
            self.handleError(record)
        finally:
            self._current.record = None

    def _describe(self, target: dict[str, Any]) -> None:
        """Overwrite what loguru took from our own stack frame."""
        record: logging.LogRecord = self._current.record
        target["name"] = record.name
        target["function"] = record.funcName
        target["line"] = record.lineno
        target["module"] = record.module
        target["time"] = target["time"].fromtimestamp(record.created, target["time"].tzinfo)
        # Their classes are private to loguru.
        target["file"] = type(target["file"])(record.filename, record.pathname)
        target["thread"] = type(target["thread"])(record.thread, record.threadName)
        target["process"] = type(target["process"])(record.process, record.processName)

        # A record that has been through a queue has the text of its traceback only.
        if record.stack_info or (record.exc_text and not record.exc_info):
            target["trace"] = "\n".join(filter(None, (record.exc_text, record.stack_info)))

        if own := vars(record).keys() - _STANDARD:
            target["extra"].update({name: vars(record)[name] for name in own})


def _message(record: logging.LogRecord) -> str:
    """Return the message, or what it was to be made of when it cannot be made."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - wrong arguments must not cost the message
        reason = describe(error, with_type=True)
        return f"{safe_str(record.msg)} {safe_repr(record.args)} (not formatted: {reason})"


@functools.lru_cache(maxsize=256)
def _level(name: str, number: int) -> str | int:
    """Return a level as loguru knows it: by name when it has the same number there."""
    name = _NAMES.get(name, name)

    try:
        return name if logger.level(name).no == number else number
    except ValueError:
        return number
