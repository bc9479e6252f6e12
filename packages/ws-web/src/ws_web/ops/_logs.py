"""The tail of the log, and levels that can be changed while the service runs."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol, runtime_checkable

from ws_core.component import Component
from ws_core.redaction import mask_text

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LINES: Final = 100


@runtime_checkable
class LogHandle(Protocol):
    """What a logging component has as its ``handle``, such as that of ws-logging."""

    def tail(self, count: int) -> list[str]:
        """Return the latest lines."""
        ...

    def set_level(self, level: str | None, module: str | None = None) -> None:
        """Change the level of a module, or of all."""


class Logs:
    """The log of this process: that of a logging component, or of standard logging."""

    def __init__(self, components: Mapping[str, Component]) -> None:
        self._components = components
        self._recent = _Recent()
        self._before: dict[str, int] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the latest lines of standard logging, where no component does, and restore its levels."""
        own = self._handle() is None

        if own:
            logging.getLogger().addHandler(self._recent)

        try:
            yield
        finally:
            logging.getLogger().removeHandler(self._recent)

            for name, level in self._before.items():
                logging.getLogger(name or None).setLevel(level)

            self._before.clear()

    def tail(self) -> list[str]:
        """Return the latest lines, oldest first, without secrets."""
        handle = self._handle()
        return [*self._recent.lines] if handle is None else [line.rstrip() for line in handle.tail(_LINES)]

    def levels(self) -> dict[str, str]:
        """Return the levels of loggers that have one of their own; that of all others is ``""``."""
        loggers = logging.Logger.manager.loggerDict.items()
        found = {name: one.level for name, one in loggers if isinstance(one, logging.Logger) and one.level}
        found = {"": logging.getLogger().level, **found}
        return {name: logging.getLevelName(level) for name, level in found.items()}

    def set_level(self, module: str, level: str) -> None:
        """Change the level of a module and all below it; of all, for an empty name."""
        if (handle := self._handle()) is not None:
            handle.set_level(level, module or None)

        logger = logging.getLogger(module or None)
        self._before.setdefault(module, logger.level)
        logger.setLevel(level)

    def _handle(self) -> LogHandle | None:
        for component in self._components.values():
            if callable(getattr(component, "add_context", None)):
                handle = getattr(component, "handle", None)
                return handle if isinstance(handle, LogHandle) else None

        return None


class _Recent(logging.Handler):
    """Keeps the latest lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=_LINES)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        try:
            self.lines.append(mask_text(self.format(record)))
        except Exception:  # noqa: BLE001 - the contract of logging handlers: report, never raise
            self.handleError(record)
