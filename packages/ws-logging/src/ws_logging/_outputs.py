"""Where rendered lines go: a file, a stream, a function, a handler of standard logging."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from ws_logging._formatters import Renderer
from ws_logging.sink import URGENT, QueuedFileSink

__all__ = ("Output", "notice", "to_file", "to_handler")

# Any below: loguru's records, and handlers of any kind.

Output = Callable[[str, Any], None]


def to_file(sink: QueuedFileSink) -> Output:
    """Return an output that queues lines for a file."""
    put = sink.put

    def output(line: str, record: Any) -> None:
        put(line.encode("utf-8", "backslashreplace"), urgent=record["level"].no >= URGENT)

    return output


def to_handler(handler: Any) -> Output:
    """
    Return an output that writes to what the user gave.

    Args:
        handler: A handler of standard logging, an object with ``write``, or a function.
    """
    if isinstance(handler, logging.Handler):
        return lambda line, record: _hand_over(handler, line, record)

    write: Callable[[str], object] = handler.write if hasattr(handler, "write") else handler

    def output(line: str, _: Any) -> None:
        write(line)

    return output


def _hand_over(handler: logging.Handler, line: str, record: Any) -> None:
    """Give a line to a handler of standard logging; its formatter sees the finished line."""
    level, place = record["level"].no, record["file"].path

    if level >= handler.level:
        text = line.rstrip("\n")
        name = record["name"] or "root"
        handler.handle(
            logging.LogRecord(name, level, place, record["line"], text, (), None, record["function"])
        )


def notice(render: Renderer) -> Callable[[int], str]:
    """
    Return what makes the line about dropped messages, in the format of all other lines.

    Args:
        render: The renderer of the other lines.
    """

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
            "process": SimpleNamespace(id=0),
            "thread": SimpleNamespace(id=0, name="log writer"),
            "time": datetime.now().astimezone(),
        }
        return render(record, "")

    return line
