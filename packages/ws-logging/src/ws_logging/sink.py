"""The lossless queued file sink: a file that many processes share, behind a queue.

How lines wait and are written is in `ws_logging._queued_sink`, how files are rotated and shared in
`ws_logging._file`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from ws_logging import _exit_hooks
from ws_logging._file import RotatingFile
from ws_logging._queued_sink import QueuedSink, SinkStatistics
from ws_logging._sink_options import Overflow, check, live_path
from ws_logging.errors import LoggingConfigError
from ws_logging.rotation import LogFileRotator

__all__ = ("QueuedFileSink", "SinkStatistics")

SinkStatistics.__module__ = __name__


class QueuedFileSink(QueuedSink):
    """
    A sink for loguru: ``logger.add(QueuedFileSink("app.log"))``.

    Args:
        path: The live file. Several processes may share it. ``{time}`` in the name, as in
            ``app.{time}.log``, stands in the names of rotated files only.
        rotation: When to begin a new file; None never does.
        retention: How many rotated files to keep (int), or how long (timedelta); None keeps all.
        total_size: How many bytes the live file and the rotated ones may take up together; None for
            any number. The oldest are deleted first.
        compression: ``"gz"`` or ``"zst"`` to compress rotated files; the latter needs Python 3.14 or
            ``ws-logging[zstd]``.
        max_bytes: How many bytes may wait for the writer.
        max_records: How many messages may wait for the writer.
        overflow: What to do when the queue is full: ``"block"`` the caller for at most
            ``block_timeout`` seconds (never on the thread of an event loop) and then drop the
            message, or ``"drop_newest"`` at once, or ``"drop_oldest"`` to make room.
        block_timeout: Seconds, see ``overflow``.
        stop_timeout: Seconds that the writer gets to empty the queue at exit.
        notice: Makes the line that reports a number of dropped messages.
        clock: Returns Unix time in seconds.

    Raises:
        LoggingConfigError: An argument makes no sense, or the file cannot be opened.

    Example:
        >>> import pathlib, tempfile
        >>> from loguru import logger
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     sink = QueuedFileSink(f"{directory}/app.log")
        ...     number = logger.add(sink, format="{message}")
        ...     logger.info("hello")
        ...     logger.remove(number)  # drains and closes the sink
        ...     print(pathlib.Path(directory, "app.log").read_text(), end="")
        hello
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rotation: LogFileRotator | None = None,
        retention: int | timedelta | None = None,
        total_size: int | None = None,
        compression: str | None = None,
        max_bytes: int = 64 * 1024 * 1024,
        max_records: int = 200_000,
        overflow: Overflow = "block",
        block_timeout: float = 1.0,
        stop_timeout: float = 10.0,
        notice: Callable[[int], str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check(
            rotation=rotation,
            retention=retention,
            total_size=total_size,
            compression=compression,
            overflow=overflow,
            max_bytes=max_bytes,
            max_records=max_records,
            block_timeout=block_timeout,
            stop_timeout=stop_timeout,
        )
        self._file = RotatingFile(
            live_path(path),
            rotator=rotation,
            retention=retention,
            total_size=total_size,
            compression=compression,
            clock=clock,
        )
        super().__init__(
            self._file,
            max_bytes=max_bytes,
            max_records=max_records,
            overflow=overflow,
            block_timeout=block_timeout,
            stop_timeout=stop_timeout,
            notice=notice,
        )
        self._open()
        _exit_hooks.watch(self)

    @property
    def path(self) -> Path:
        """The live file."""
        return self._file.path

    def _open(self) -> None:
        path = self._file.path

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file.open()
        except OSError as error:
            self._file.close()
            message = f"the log file {path} cannot be opened: {error.strerror or error}; choose another place"
            raise LoggingConfigError(message, path=str(path)) from None
