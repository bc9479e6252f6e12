"""Logging set-up: `ws_logging`, with the arguments of 1.x."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn, Self

import ws_logging
from wintersweet._gone import explain as _explain
from ws_logging import LogInterceptor as LogInterceptor
from ws_logging import logger as logger
from ws_logging import register_logger as register_logger

__all__ = (
    "LogFileRotator",
    "LogInterceptor",
    "QueuedFileSink",
    "logger",
    "register_logger",
)

# Any below: the library's options.


class LogFileRotator(ws_logging.LogFileRotator):
    """When a log file is rotated: at a size and at a time of the day."""

    @classmethod
    def make(  # type: ignore[override]
        cls, _size: float = 500, _time: str | None = "00:00", **options: Any
    ) -> Self:
        """Make one: ``_size`` in MiB, ``_time`` as ``HH:MM``."""
        return super().make(_size, _time, **options)


class QueuedFileSink(ws_logging.QueuedFileSink):
    """
    A file that a thread writes, so that who logs does not wait for the disk.

    Args:
        path: The file.
        buffer_size: Records in the queue at most; 0 for the library's bound.
        buffer_block: Whether a full queue makes the caller wait, or the record is dropped and counted.
        **options: Those of `ws_logging.QueuedFileSink`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        buffer_size: int = 0,
        buffer_block: bool = False,
        **options: Any,
    ) -> None:
        if buffer_size:
            options.setdefault("max_records", buffer_size)

        options.setdefault("overflow", "block" if buffer_block else "drop_newest")
        super().__init__(path, **options)


__getattr__: Callable[[str], NoReturn] = _explain(__name__)
