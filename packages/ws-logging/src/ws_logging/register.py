"""`register_logger`: one call that sets up loguru, a log file and standard logging."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from loguru import logger

from ws_core.errors import describe
from ws_core.metrics import Sample, register, sample
from ws_logging._exit_hooks import follow_end, is_ending, renew_in_children
from ws_logging._formatters import MAX_LINE
from ws_logging._levels import Levels, level_name, level_number, of_name
from ws_logging._loguru import LastingSink, TraceFormatter, set_threshold
from ws_logging._output_options import (
    DEFAULT_RETENTION,
    DEFAULT_ROTATION,
    DEFAULT_TOTAL_SIZE,
    Json,
    OutputOptions,
    check_format,
    parse_outputs,
)
from ws_logging._outputs import Output, RecentLines, Renderers, Sink, build
from ws_logging._queued_sink import URGENT, SinkStatistics, complain
from ws_logging._sink_options import Overflow
from ws_logging._validation import check, resource_of
from ws_logging.errors import LoggingConfigError
from ws_logging.intercept import LogInterceptor
from ws_logging.redact import Redactor
from ws_logging.rotation import LogFileRotator

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
        levels: The levels of modules that have one of their own.
        repaired: Lines that could not be rendered as they were, and are marked ``log.repaired``.
        failures: How often an output raised an error; files are not among them.
        files: The accounts of all files and collectors, by path or URL.
    """

    level: str
    messages: int
    file: SinkStatistics | None
    levels: Mapping[str, str] = field(default_factory=dict)
    repaired: int = 0
    failures: int = 0
    files: Mapping[str, SinkStatistics] = field(default_factory=dict)

    def samples(self) -> tuple[Sample, ...]:
        """Return the accounts of all files as samples of the metrics in `ws_core.metrics`."""
        files, state = self.files.values(), "wintersweet.log.state"
        return (
            sample("wintersweet.log.lines", sum(one.written for one in files), attributes={state: "written"}),
            sample("wintersweet.log.lines", sum(one.dropped for one in files), attributes={state: "dropped"}),
            sample("wintersweet.log.pending", sum(one.pending for one in files)),
        )


def register_logger(
    level: str | int = "info",
    handler: Any = None,
    file_path: str | os.PathLike[str] | None = None,
    file_name: str = "app.{time}.log",
    file_rotation: LogFileRotator | None = DEFAULT_ROTATION,
    file_retention: int | timedelta | None = DEFAULT_RETENTION,
    debug: bool = False,  # noqa: FBT001, FBT002 - as in the first version of the library
    *,
    json: Json = False,
    compression: str | None = None,
    levels: Mapping[str, str | int] | None = None,
    redact: Iterable[str] | None = (),
    sample: Mapping[str, float] | None = None,
    ring: int = 1000,
    intercept: bool = True,
    file_total_size: int | None = DEFAULT_TOTAL_SIZE,
    overflow: Overflow = "block",
    service: str | Mapping[str, object] | None = None,
    max_line: int = MAX_LINE,
    format: str | None = None,
    outputs: Iterable[Mapping[str, Any]] | None = None,
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
        json: Write JSON lines after the OpenTelemetry log data model instead of text; ``"otlp"`` writes
            lines of OTLP, which collectors read from files.
        file_total_size: How many bytes the live file and the rotated ones may take up together; by
            default 2 GiB, None for any number. The oldest are deleted first.
        overflow: What happens when the disk is too slow, see `QueuedFileSink`.
        compression: ``"gz"`` or ``"zst"`` compresses rotated files; the latter needs Python 3.14 or
            ``ws-logging[zstd]``.
        levels: Other lowest levels by logger or module. By default those of libraries that log much
            are raised: ``{"sqlalchemy": "warning"}``; ``{}`` for none.
        redact: Further names of fields whose values are masked, beside those of
            `ws_core.redaction`; None masks nothing at all.
        sample: The share of messages below ERROR to keep, by logger or module: ``{"noisy": 0.1}``.
        ring: How many lines `LoggerHandle.tail` can look back.
        intercept: Whether standard logging goes through loguru.
        service: The name of the service, or attributes such as ``{"service.name": "shop"}``, for the
            Resource of JSON lines.
        max_line: How long a line, and a traceback below it, may be; longer ones are cut and say so.
        format: Another format of lines of text, such as ``"{time:%H:%M} {level} {message} {fields}"``; there
            are also ``name function line process thread``. Every part is escaped.
        outputs: Further outputs, each with a format and a level of its own: mappings with ``to``
            (``"stderr"``, ``"stdout"``, a file, the URL of a collector that takes OTLP by HTTP, or as for
            ``handler``), and if wanted ``level``, ``json`` or ``format``, for files ``rotation retention
            total_size compression overflow``, and for URLs ``headers timeout overflow``.

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
        file_total_size=file_total_size,
        overflow=overflow,
        compression=compression,
        levels=levels,
        redact=redact,
        sample=sample,
        ring=ring,
        service=service,
        max_line=max_line,
        json=json,
        format=format,
        outputs=outputs,
    )
    options = parse_outputs(outputs, file_path)

    if handler is not None:
        options.insert(0, OutputOptions(to=handler, json=json, format=format))

    if file_path:
        file = OutputOptions(
            to=Path(file_path) / file_name,
            json=json,
            format=format,
            rotation=file_rotation,
            retention=file_retention,
            total_size=file_total_size,
            compression=compression,
            overflow=overflow,
        )
        options.insert(0, file)

    if debug or not options:
        options.append(OutputOptions(to="stderr", json=json, format=format))

    redactor = None if redact is None else Redactor(redact)
    renderers = Renderers(redactor, resource_of(service), max_line)
    wanted, sinks = build(options, renderers)
    handle = LoggerHandle(
        levels=Levels(
            level_number(level),
            {name: level_number(one) for name, one in (levels or {}).items()},
            _QUIET if levels is None else {},
        ),
        renderers=renderers,
        sample=sample or {},
        outputs=wanted,
        sinks=sinks,
        main=sinks[0] if file_path else None,
        ring=ring,
        debug=debug,
        interceptor=LogInterceptor() if intercept else None,
    )
    before, _current = _current, handle

    # The new one first: a message that is logged meanwhile is in both rather than in neither. Standard
    # logging goes the other way round, since it has its handlers put back by the one that took them.
    if before is not None:
        before.release_standard_logging()

    handle.install()

    if before is not None:
        before.close()

    return handle


_current: LoggerHandle | None = None
_QUIET: Final = {"sqlalchemy": 30}  # it logs each statement at INFO


class LoggerHandle:
    """What `register_logger` set up. Made by that function only."""

    def __init__(
        self,
        *,
        levels: Levels,
        renderers: Renderers,
        sample: Mapping[str, float],
        outputs: list[Output],
        sinks: list[Sink],
        main: Sink | None,
        ring: int,
        debug: bool,
        interceptor: LogInterceptor | None,
    ) -> None:
        self._levels = levels
        self._renderers = renderers
        self._sample = dict(sample)
        self._outputs = outputs
        self._sinks = sinks
        self._main = main
        self._recent = RecentLines(ring)
        self._debug = debug
        self._interceptor = interceptor
        self._number: int | None = None
        self._lasting = LastingSink(is_ending)
        self._traces: TraceFormatter | None = None
        self._messages = 0
        self._failures = 0
        self._counts: dict[str, int] = {}
        self._lock = threading.RLock()
        self._closed = False
        renew_in_children(self)
        register(self)

    def after_fork(self) -> None:
        """Replace the lock in a forked child; called by the interpreter."""
        self._lock = threading.RLock()

    def install(self) -> None:
        """Begin to log; called by `register_logger`."""
        with suppress(ValueError):  # somebody has removed it before
            logger.remove(0)  # loguru's own handler, which logs everything to stderr

        # All of the work is done in the filter, which then says that there is nothing left to do. It
        # has no part in loguru's lock: a message that takes long to render, or that waits for room
        # in the queue, does not hold up the threads of event loops, and a signal handler may log.
        self._number = logger.add(
            self._lasting,
            level=self._levels.lowest,
            filter=self._log,
            format="",
            backtrace=self._debug,
            diagnose=self._debug,
            colorize=False,
        )
        self._lasting.keep(self._number)
        follow_end()
        self._traces = TraceFormatter(self._number)
        set_threshold(self._number, self._levels.threshold())
        self._intercept()

    def release_standard_logging(self) -> None:
        """Restore the handlers of standard logging; called by `register_logger`."""
        if self._interceptor is not None:
            self._interceptor.unregister()

    def _intercept(self) -> None:
        if self._interceptor is not None:
            self._interceptor.register(self._levels.common, self._levels.modules)

    def set_level(self, level: str | int | None, module: str | None = None) -> None:
        """
        Change a level without losing or doubling a message.

        Args:
            level: The lowest level to log, by name in any case or by number; None takes back the level
                of a module.
            module: A logger or module, with all that is below it; by default all that have no level of
                their own here.

        Raises:
            LoggingConfigError: There is no such level.
        """
        if level is None and module is None:
            raise LoggingConfigError("level: None takes back the level of a module, so name one")

        number = None if level is None else level_number(level)

        with self._lock:
            if self._closed or self._number is None:
                return

            modules = dict(self._levels.given)
            common = self._levels.common

            if module is None:
                common = common if number is None else number
            elif number is None:
                modules.pop(module, None)
            else:
                modules[module] = number

            self._levels = Levels(common, modules, self._levels.raised)
            set_threshold(self._number, self._levels.threshold())
            self._intercept()

    def flush(self, timeout: float = 5.0) -> bool:
        """
        Wait until everything logged before this call is in the file. Blocks the calling thread.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it is.
        """
        deadline = time.monotonic() + timeout
        return all(sink.drain(max(0.0, deadline - time.monotonic())) for sink in self._sinks)

    def formatter(self, *, json: Json = False, format: str | None = None) -> Callable[[Any], str]:
        r"""
        Return a ``format`` for a further ``logger.add``, with the same masking, escaping and fields.

        Args:
            json: As for `register_logger`.
            format: As for `register_logger`.

        Raises:
            LoggingConfigError: The format cannot be filled in.

        Example:
            >>> import io
            >>> from ws_logging import logger, register_logger
            >>> mine, handle = io.StringIO(), register_logger("info", io.StringIO())
            >>> number = logger.add(mine, format=handle.formatter(format="{level} {message}"))
            >>> logger.info("token=hunter2")
            >>> logger.remove(number)
            >>> handle.close()
            >>> mine.getvalue()
            'INFO token=***\n'
        """
        check_format(format, json=json)
        render = self._renderers.get(json, format)

        def fill(record: Any) -> str:
            # loguru formats what is returned here with the record, and a line may hold braces.
            record["_line"] = render(record, self._trace(record))
            return "{_line}"

        return fill

    def _trace(self, record: Any) -> str:
        """Return the traceback of a record, or ""."""
        assert self._traces is not None
        return self._traces.format(record)

    def tail(self, count: int = 100) -> list[str]:
        """
        Return the latest lines that were logged, oldest first.

        Args:
            count: How many at most; never more than the ``ring`` of `register_logger`.
        """
        return self._recent.latest(count)

    def close(self) -> None:
        """Stop logging: drain and close the file, give standard logging its handlers back."""
        global _current  # noqa: PLW0603 - see register_logger

        with self._lock:
            if self._closed:
                # Perhaps by a thread that was cut off in the middle: a sink may be stopped again.
                for sink in self._sinks:
                    sink.stop()

                return

            self._closed = True

        self.release_standard_logging()
        self._lasting.release()

        if self._number is not None:
            with suppress(ValueError):  # somebody has removed all handlers
                logger.remove(self._number)

        for sink in self._sinks:
            sink.stop()

        if _current is self:
            _current = None

    def _log(self, record: Any) -> bool:
        """Log a record if it passes the levels and the samples; return False: loguru has no part in it."""
        number: int = record["level"].no
        name: str | None = record["name"]

        if number < self._levels.of(name) or (self._sample and not self._is_sampled(name or "", number)):
            return False

        trace = "" if record["exception"] is None and "trace" not in record else self._trace(record)
        line, rendered = "", None
        self._messages += 1

        for output in self._outputs:
            if number < output.level:
                continue

            if output.render is not rendered:
                rendered = output.render
                line = rendered(record, trace)

                if output is self._outputs[0]:
                    self._recent.add(line)

            try:
                output.write(line, record)
            except Exception as error:  # noqa: BLE001 - the other outputs must have the line all the same
                self._failed(error)

        return False

    def _is_sampled(self, name: str, number: int) -> bool:
        share: float | None = of_name(self._sample, name)

        if share is None or number >= URGENT:
            return True

        # Every 1/share-th message: exact, and without randomness.
        with self._lock:
            count = self._counts.get(name, 0) + 1
            self._counts[name] = count

        return int(count * share) > int((count - 1) * share)

    def _failed(self, error: Exception) -> None:
        """Count an output that raised, and report the first time and then each 1,000th."""
        self._failures += 1

        if self._failures % 1000 == 1:
            complain(f"an output of register_logger raised {describe(error, with_type=True)}")

    def statistics(self) -> LoggerStatistics:
        """Return a snapshot."""
        return LoggerStatistics(
            level=level_name(self._levels.common),
            messages=self._messages,
            file=None if self._main is None else self._main.statistics(),
            files={str(sink.path): sink.statistics() for sink in self._sinks},
            levels={name: level_name(number) for name, number in self._levels.modules.items()},
            repaired=self._renderers.repaired,
            failures=self._failures,
        )
