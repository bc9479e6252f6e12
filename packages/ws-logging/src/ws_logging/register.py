"""`register_logger`: one call that sets up loguru, a log file and standard logging."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from loguru import logger

from ws_logging._formatters import Renderer, json_line, text_line
from ws_logging._outputs import Output, notice, to_file, to_handler
from ws_logging._validation import check, level_number
from ws_logging.intercept import LogInterceptor
from ws_logging.redact import DEFAULT_NAMES, Redactor
from ws_logging.rotation import LogFileRotator
from ws_logging.sink import QueuedFileSink, SinkStatistics

__all__ = ("LoggerHandle", "LoggerStatistics", "register_logger")

# Any below: loguru's messages and records, and sinks of any kind.


@dataclass(frozen=True, slots=True)
class LoggerStatistics:
    """
    A snapshot of what `register_logger` set up.

    Args:
        level: The level in force.
        messages: Messages that passed the level, of this process.
        file: The file's accounts, or None when there is no file.
    """

    level: str
    messages: int
    file: SinkStatistics | None


def register_logger(  # noqa: PLR0913, PLR0917 - the contract's arguments
    level: str | int = "info",
    handler: Any = None,
    file_path: str | os.PathLike[str] | None = None,
    file_name: str = "app.{time}.log",
    file_rotation: LogFileRotator | None = LogFileRotator(500 * 1024 * 1024, "00:00"),  # noqa: B008 - immutable
    file_retention: int | timedelta | None = 255,
    debug: bool = False,  # noqa: FBT001, FBT002 - as in the first version of the library
    *,
    json: bool = False,
    compression: str | None = None,
    levels: Mapping[str, str | int] | None = None,
    redact: Iterable[str] | None = DEFAULT_NAMES,
    sample: Mapping[str, float] | None = None,
    ring: int = 1000,
    intercept: bool = True,
) -> LoggerHandle:
    """
    Set up logging for the process: loguru, a lossless file, and standard logging through loguru.

    A later call replaces what an earlier one set up. All arguments are checked first: when one is
    wrong, everything stays as it was.

    Args:
        level: The lowest level to log, by name in any case or by number.
        handler: A further output: a callable that takes the line, an object with ``write``, or
            anything else that loguru takes as a sink.
        file_path: The directory of the log file; None or "" for no file.
        file_name: The file's name; ``{time}`` stands in the names of rotated files.
        file_rotation: When to begin a new file; by default at 500 MiB and at midnight.
        file_retention: How many rotated files to keep (int), or how long (timedelta).
        debug: Log to stderr too, and show values in tracebacks. Never in production: values may
            be secret.
        json: Write JSON lines after the OpenTelemetry log data model instead of text.
        compression: ``"gz"`` compresses rotated files.
        levels: Other lowest levels by logger or module, such as ``{"sqlalchemy": "warning"}``.
        redact: Names of fields whose values are masked; None masks nothing.
        sample: The share of messages below ERROR to keep, by logger or module: ``{"noisy": 0.1}``.
        ring: How many lines `LoggerHandle.tail` can look back.
        intercept: Whether standard logging goes through loguru.

    Returns:
        The handle to change the level, look at the accounts, and close.

    Raises:
        LoggingConfigError: An argument is wrong, or the file cannot be opened.

    Example:
        >>> import pathlib, tempfile
        >>> from ws_logging import logger, register_logger
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     handle = register_logger("info", file_path=directory, file_name="shop.log")
        ...     logger.info("{} lamps sold", 3)
        ...     handle.close()
        ...     "3 lamps sold" in pathlib.Path(directory, "shop.log").read_text()
        True
    """
    global _current
    check(
        level=level,
        handler=handler,
        file_path=file_path,
        file_name=file_name,
        file_rotation=file_rotation,
        file_retention=file_retention,
        compression=compression,
        levels=levels,
        sample=sample,
        ring=ring,
    )
    plan = _Plan(
        level_number(level),
        {name: level_number(value) for name, value in (levels or {}).items()},
        dict(sample or {}),
    )
    redactor = Redactor(redact) if redact is not None else None
    render = json_line(redactor) if json else text_line(redactor)
    outputs: list[Output] = []
    sink: QueuedFileSink | None = None

    if file_path:
        sink = QueuedFileSink(
            Path(file_path) / file_name,
            rotation=file_rotation,
            retention=file_retention,
            compression=compression,
            notice=notice(render),
        )
        outputs.append(to_file(sink))

    if handler is not None:
        outputs.append(to_handler(handler))

    console = debug or not outputs
    color = console and not json and sys.stderr is not None and sys.stderr.isatty()
    handle = LoggerHandle(
        plan=plan,
        render=render,
        outputs=outputs,
        console=(text_line(redactor, color=True) if color else render) if console else None,
        sink=sink,
        ring=ring,
        debug=debug,
        interceptor=LogInterceptor() if intercept else None,
    )
    before, _current = _current, handle

    if before is not None:
        before.close()

    handle.install()
    return handle


_current: LoggerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which records are logged."""

    level: int
    levels: Mapping[str, int]
    sample: Mapping[str, float]

    @property
    def lowest(self) -> int:
        """The lowest level that any module may log."""
        return min([self.level, *self.levels.values()])


class LoggerHandle:
    """What `register_logger` set up. Made by that function only."""

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        *,
        plan: _Plan,
        render: Renderer,
        outputs: list[Output],
        console: Renderer | None,
        sink: QueuedFileSink | None,
        ring: int,
        debug: bool,
        interceptor: LogInterceptor | None,
    ) -> None:
        self._plan = plan
        self._render = render
        self._outputs = outputs
        self._console = console
        self._sink = sink
        self._ring: deque[str] = deque(maxlen=ring)
        self._debug = debug
        self._interceptor = interceptor
        self._number: int | None = None
        self._messages = 0
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closed = False

    def install(self) -> None:
        """Begin to log; called by `register_logger`."""
        with suppress(ValueError):  # somebody has removed it before
            logger.remove(0)  # loguru's own handler, which logs everything to stderr

        self._number = self._add()

        if self._interceptor is not None:
            self._interceptor.register(self._plan.lowest)

    def set_level(self, level: str | int) -> None:
        """
        Change the level without losing or doubling a message.

        Args:
            level: The lowest level to log, by name in any case or by number.

        Raises:
            LoggingConfigError: There is no such level.
        """
        number = level_number(level)

        with self._lock:
            if self._closed or self._number is None:
                return

            self._plan = _Plan(number, self._plan.levels, self._plan.sample)
            _set_handler_level(self._number, self._plan.lowest)

            if self._interceptor is not None:
                logging.getLogger().setLevel(self._plan.lowest)

    def flush(self, timeout: float = 5.0) -> bool:
        """
        Wait until everything logged before this call is in the file. Blocks the calling thread.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it is.
        """
        return self._sink is None or self._sink.drain(timeout)

    def tail(self, count: int = 100) -> list[str]:
        """
        Return the latest lines that were logged, oldest first.

        Args:
            count: How many at most; never more than the ``ring`` of `register_logger`.
        """
        return list(self._ring)[-count:] if count > 0 else []

    def close(self) -> None:
        """Stop logging: drain and close the file, give standard logging its handlers back."""
        global _current  # noqa: PLW0603 - see register_logger

        with self._lock:
            if self._closed:
                return

            self._closed = True

        if self._interceptor is not None:
            self._interceptor.unregister()

        if self._number is not None:
            with suppress(ValueError):  # somebody has removed all handlers
                logger.remove(self._number)

        if self._sink is not None:
            self._sink.stop()

        if _current is self:
            _current = None

    def _add(self) -> int:
        plan = self._plan
        return logger.add(
            self._emit,
            level=plan.lowest,
            format="",  # rendered here, once for all outputs; loguru appends the exception
            filter=self._passes if plan.levels or plan.sample else None,
            backtrace=self._debug,
            diagnose=self._debug,
            colorize=False,
        )

    def _passes(self, record: Any) -> bool:
        name = record["name"] or ""
        number: int = record["level"].no
        level: int | None = _of(self._plan.levels, name)

        if number < (self._plan.level if level is None else level):
            return False

        share: float | None = _of(self._plan.sample, name)

        if share is None or number >= 40:
            return True

        # Every 1/share-th message: exact, and without randomness.
        count = self._counts.get(name, 0) + 1
        self._counts[name] = count
        return int(count * share) > int((count - 1) * share)

    def _emit(self, message: Any) -> None:
        record = message.record
        exception = message[1:]  # behind the line end of the empty format
        line = self._render(record, exception)
        self._messages += 1
        self._ring.append(line)

        for output in self._outputs:
            output(line, record)

        if self._console is not None and sys.stderr is not None:
            sys.stderr.write(line if self._console is self._render else self._console(record, exception))

    def statistics(self) -> LoggerStatistics:
        """Return a snapshot."""
        number = self._plan.level
        names = {
            5: "TRACE",
            10: "DEBUG",
            20: "INFO",
            25: "SUCCESS",
            30: "WARNING",
            40: "ERROR",
            50: "CRITICAL",
        }
        file = self._sink.statistics() if self._sink is not None else None
        return LoggerStatistics(names.get(number, str(number)), self._messages, file)


def _of(table: Mapping[str, Any], name: str) -> Any:
    """Return the entry of a dotted name or of its nearest parent, or None."""
    while name:
        if name in table:
            return table[name]

        name = name.rpartition(".")[0]

    return None


def _set_handler_level(number: int, level: int) -> None:
    """
    Change the level of a handler of loguru in place.

    loguru's own way is to remove the handler and add another one. A thread in the middle of a
    message knows only one of the two, so that messages would be lost or doubled. The attributes
    are private to loguru; a test watches over them, and the range of its versions is closed.
    """
    core: Any = logger._core  # type: ignore[attr-defined]  # noqa: SLF001 - see above

    with core.lock:
        if number in core.handlers:
            core.handlers[number]._levelno = level  # noqa: SLF001 - see above
            core.min_level = min(handler.levelno for handler in core.handlers.values())
