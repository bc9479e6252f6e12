"""Where rendered lines go: a file, a stream, a function, a handler of standard logging."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final

from ws_logging._formatters import Renderer
from ws_logging.sink import URGENT, QueuedFileSink

__all__ = ("Output", "RecentLines", "notice", "to_file", "to_handler", "to_stderr")

# Any below: loguru's records, and handlers of any kind.

RECENT_BYTES: Final = 16 * 1024 * 1024  # characters that the recent lines may take up

Write = Callable[[str, Any], None]


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
        self._size = 0
        self._lock = threading.RLock()  # a signal handler may log in the middle of add()

    def add(self, line: str) -> None:
        """Add a line, and forget the oldest ones when there are too many."""
        with self._lock:
            self._lines.append(line)
            self._size += len(line)

            while self._lines and (len(self._lines) > self._most or self._size > RECENT_BYTES):
                self._size -= len(self._lines.popleft())

    def latest(self, count: int) -> list[str]:
        """Return the latest lines, oldest first."""
        with self._lock:
            return list(self._lines)[-count:] if count > 0 else []


def to_file(sink: QueuedFileSink) -> Write:
    """Return an output that queues lines for a file."""
    put = sink.put

    def write(line: str, record: Any) -> None:
        put(line.encode("utf-8", "backslashreplace"), urgent=record["level"].no >= URGENT)

    return write


def to_stderr(line: str, _: Any) -> None:
    """Write a line to stderr, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(line.encode("utf-8", "backslashreplace").decode())


def to_handler(handler: Any) -> Write:
    """Return an output that writes to a handler of standard logging, an object with write, or a function."""
    if isinstance(handler, logging.Handler):
        return lambda line, record: _pass_on(handler, line, record)

    write: Callable[[str], object] = handler.write if hasattr(handler, "write") else handler
    lock = threading.RLock()  # as loguru keeps its sinks, so that lines of two threads do not mix

    def locked(line: str, _: Any) -> None:
        with lock:
            write(line)

    return locked


def _pass_on(handler: logging.Handler, line: str, record: Any) -> None:
    """Pass a line to a handler of standard logging; its formatter sees the finished line."""
    level, place = record["level"].no, record["file"].path

    if level >= handler.level:
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
            "message": f"{count} log messages were dropped, because the queue was full or the disk failed",
            "name": "ws_logging.sink",
            "process": SimpleNamespace(id=os.getpid()),
            "thread": SimpleNamespace(id=threading.get_ident(), name="log writer"),
            "time": datetime.now().astimezone(),
        }
        return render(record, "")

    return line
