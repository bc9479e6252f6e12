"""Logging set-up: `ws_logging`."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain
from ws_logging import LogFileRotator as LogFileRotator
from ws_logging import LogInterceptor as LogInterceptor
from ws_logging import QueuedFileSink as QueuedFileSink
from ws_logging import logger as logger
from ws_logging import register_logger as register_logger

__all__ = (
    "LogFileRotator",
    "LogInterceptor",
    "QueuedFileSink",
    "logger",
    "register_logger",
)

__getattr__: Callable[[str], NoReturn] = _explain(__name__)
