"""Where rendered lines go: a file, a collector, a stream, a function, a handler of standard logging."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final

from ws_logging._documents import JsonFormatter, OtlpFormatter
from ws_logging._exit_hooks import renew_in_children
from ws_logging._formatters import MAX_LINE, Formatter, Renderer, TextFormatter
from ws_logging._levels import level_number
from ws_logging._output_options import Json, OutputOptions
from ws_logging._queued_sink import URGENT
from ws_logging.otel import OtlpSink
from ws_logging.redact import Redactor
from ws_logging.sink import QueuedFileSink

# Any below: loguru's records, and handlers of any kind.

MOST_CHARACTERS: Final = 16 * 1024 * 1024  # that the recent lines may take up

Write = Callable[[str, Any], None]
Sink = QueuedFileSink | OtlpSink


@dataclass(frozen=True, slots=True)
class Output:
    """Where lines of some levels go, and how they look."""

    write: Write
    render: Renderer
    level: int = 0


class RecentLines:
    """The latest lines, bounded by their number and their size."""

    def __init__(self, most: int) -> None:
        self._lines: deque[str] = deque()
        self._most = most
        self._begin()
        renew_in_children(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()  # a signal handler may log in the middle of add()
        self._size = sum(map(len, self._lines))

    def after_fork(self) -> None:
        """Replace the lock in a forked child, and count anew: a thread may have been within add()."""
        self._begin()

    def add(self, line: str) -> None:
        """Add a line, and forget the oldest ones when there are too many."""
        with self._lock:
            lines, size = self._lines, self._size + len(line)
            lines.append(line)

            while len(lines) > self._most or size > MOST_CHARACTERS:
                size -= len(lines.popleft())

            self._size = size

    def latest(self, count: int) -> list[str]:
        """Return the latest lines, oldest first."""
        with self._lock:
            return list(self._lines)[-count:] if count > 0 else []


class Renderers:
    """One renderer for all outputs of a format: a line is rendered once."""

    def __init__(
        self, redactor: Redactor | None, resource: Mapping[str, object], max_line: int = MAX_LINE
    ) -> None:
        self._redactor = redactor
        self._resource = resource
        self._max_line = max_line
        self._known: dict[object, Formatter] = {}

    def get(self, json: Json, template: str | None, *, color: bool = False) -> Formatter:
        """Return the renderer of a format, the same for the same one."""
        key = (json, template, color)

        if key not in self._known:
            if json:
                kind = OtlpFormatter if json == "otlp" else JsonFormatter
                one: Formatter = kind(self._redactor, resource=self._resource, max_line=self._max_line)
            else:
                one = TextFormatter(self._redactor, color=color, template=template, max_line=self._max_line)

            self._known[key] = one

        return self._known[key]

    @property
    def repaired(self) -> int:
        """How many lines could not be rendered as they were."""
        return sum(one.repaired for one in list(self._known.values()))


def build(options: Iterable[OutputOptions], renderers: Renderers) -> tuple[list[Output], list[Sink]]:
    """Make outputs and the sinks of their files; when one cannot be made, none is left open."""
    outputs: list[Output] = []
    sinks: list[Sink] = []

    try:
        for one in options:
            is_stream = isinstance(one.to, str) and one.path is None and one.url is None
            color = is_stream and not one.json and _is_terminal(one.to)
            render = renderers.get(one.json, one.format, color=color)

            if one.path is not None or one.url is not None:
                sinks.append(_sink(one, render))
                write = to_file(sinks[-1])
            else:
                write = to_stream(one.to) if is_stream else to_handler(one.to)

            outputs.append(Output(write, render, level_number(one.level)))
    except BaseException:
        for sink in sinks:
            sink.stop()

        raise

    return outputs, sinks


def _sink(one: OutputOptions, render: Formatter) -> Sink:
    if one.url is not None:
        assert isinstance(render, OtlpFormatter)
        return OtlpSink(
            one.url,
            render,
            headers=one.headers,
            timeout=one.timeout,
            overflow=one.overflow,
            notice=notice(render),
        )

    assert one.path is not None
    return QueuedFileSink(
        one.path,
        rotation=one.rotation,
        retention=one.retention,
        total_size=one.total_size,
        compression=one.compression,
        overflow=one.overflow,
        notice=notice(render),
    )


def _is_terminal(name: str) -> bool:
    stream = getattr(sys, name)
    return stream is not None and bool(stream.isatty())


def to_file(sink: Sink) -> Write:
    """Return an output that queues lines for a file."""
    put = sink.put

    def write(line: str, record: Any) -> None:
        put(line.encode("utf-8", "backslashreplace"), urgent=record["level"].no >= URGENT)

    return write


def to_stream(name: str) -> Write:
    """Return an output that writes to ``sys.stderr`` or ``sys.stdout``, whatever they are at the time."""

    def write(line: str, _: Any) -> None:
        stream = getattr(sys, name)

        if stream is not None:
            stream.write(line.encode("utf-8", "backslashreplace").decode())

    return write


def to_handler(handler: Any) -> Write:
    """Return an output that writes to a handler of standard logging, an object with write, or a function."""
    if isinstance(handler, logging.Handler):
        return lambda line, record: _pass_on(handler, line, record)

    return _Locked(handler.write if hasattr(handler, "write") else handler)


class _Locked:
    """Calls a function for one line at a time, as loguru does, so that lines of two threads do not mix."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._lock = threading.RLock()
        renew_in_children(self)

    def __call__(self, line: str, _: Any) -> None:
        with self._lock:
            self._write(line)

    def after_fork(self) -> None:
        """Replace the lock in a forked child."""
        self._lock = threading.RLock()


def _pass_on(handler: logging.Handler, line: str, record: Any) -> None:
    """Pass a line to a handler of standard logging; its formatter sees the finished line."""
    level, place = record["level"].no, record["file"].path

    if level >= handler.level:  # as a logger looks before it calls handle()
        text = line.rstrip("\n")
        name = record["name"] or "root"
        handler.handle(
            logging.LogRecord(name, level, place, record["line"], text, (), None, record["function"])
        )


def notice(render: Renderer) -> Callable[[int], str]:
    """Return what makes the line about dropped messages, in the format of all other lines."""

    def line(count: int) -> str:
        record = {
            "exception": None,
            "extra": {"dropped": count},
            "file": SimpleNamespace(path=__file__),
            "function": "put",
            "level": SimpleNamespace(name="WARNING", no=30),
            "line": 0,
            "message": f"{count} log messages were dropped: the queue was full, or they could not be written",
            "name": "ws_logging.sink",
            "process": SimpleNamespace(id=os.getpid()),
            "thread": SimpleNamespace(id=threading.get_ident(), name="log writer"),
            "time": datetime.now().astimezone(),
        }
        return render(record, "")

    return line
