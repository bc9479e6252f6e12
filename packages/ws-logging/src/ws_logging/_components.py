"""The component that an application layer starts when LOGGING_CONFIG is set."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any

from ws_core.component import Health
from ws_core.errors import NotReadyError
from ws_logging import context
from ws_logging._validation import check
from ws_logging.errors import LoggingConfigError
from ws_logging.register import LoggerHandle, register_logger
from ws_logging.rotation import LogFileRotator

_ARGUMENTS = frozenset(inspect.signature(register_logger).parameters)


class LoggingComponent:
    """
    `register_logger` as a component: LOGGING_CONFIG holds its arguments.

    In settings that have no Python objects, ``file_rotation`` may be a mapping such as
    ``{"size_mb": 500, "at": "00:00"}``.
    """

    name = "logging"
    settings_key = "LOGGING_CONFIG"
    after: Collection[str] = ()

    def __init__(self) -> None:
        self._arguments: dict[str, Any] = {}  # Any: arguments of several types
        self._handle: LoggerHandle | None = None
        self._provided: dict[str, Callable[[], object]] = {}

    @property
    def handle(self) -> LoggerHandle:
        """The handle of `register_logger`, while started."""
        if self._handle is None:
            raise NotReadyError("logging is not started: it has no handle yet")

        return self._handle

    def configure(self, section: object) -> None:
        """Check and take LOGGING_CONFIG: arguments of `register_logger` by name."""
        if not isinstance(section, Mapping):
            raise LoggingConfigError(f"LOGGING_CONFIG: a mapping is expected, not {type(section).__name__}")

        arguments = dict(section)

        if unknown := sorted(set(arguments) - _ARGUMENTS):
            known = ", ".join(sorted(_ARGUMENTS))
            raise LoggingConfigError(f"LOGGING_CONFIG: there is no {', '.join(unknown)}; there are {known}")

        rotation = arguments.get("file_rotation")

        if isinstance(rotation, Mapping):
            try:
                arguments["file_rotation"] = LogFileRotator.make(**rotation)
            except TypeError:
                message = f"LOGGING_CONFIG: file_rotation takes size_mb and at, not {sorted(rotation)}"
                raise LoggingConfigError(message) from None

        check(**arguments)
        self._arguments = arguments

    def add_context(self, name: str, provider: Callable[[], object]) -> None:
        """Put a field on every message once started; a provider that returns a false value leaves it out."""
        self._provided[name] = provider

    async def start(self) -> None:
        """Set logging up; on an error nothing has changed."""
        self._handle = register_logger(**self._arguments)

        for name, provider in self._provided.items():
            context.provide(name, provider)

    async def close(self) -> None:
        """Drain the file off the event loop, then give standard logging its handlers back."""
        handle, self._handle = self._handle, None

        for name in self._provided:
            context.withdraw(name)

        if handle is not None:
            await asyncio.to_thread(handle.flush)
            handle.close()

    async def health(self) -> Health:
        """Return whether messages reach the file."""
        file = self.handle.statistics().file
        stuck = file is not None and file.pending > 0 and file.failing
        return Health(ok=not stuck, detail=file.last_error if file is not None and stuck else "")

    def status(self) -> Mapping[str, object]:
        """Return the accounts of the file, flat."""
        if self._handle is None:
            return {}

        statistics = self._handle.statistics()
        accounts = asdict(statistics.file) if statistics.file else {}
        file = {f"file_{name}": value for name, value in accounts.items()}
        return {"level": statistics.level, "messages": statistics.messages, **file}


def logging() -> LoggingComponent:
    """Return a new component; the entry point ``LOGGING_CONFIG`` names this function."""
    return LoggingComponent()
