"""loguru set-up in one call: a lossless queued file sink, rotation, standard-library interception."""

from loguru import logger as logger

from ws_logging.context import event as event
from ws_logging.context import log_context as log_context
from ws_logging.errors import LoggingConfigError as LoggingConfigError
from ws_logging.intercept import LogInterceptor as LogInterceptor
from ws_logging.redact import Redactor as Redactor
from ws_logging.register import LoggerHandle as LoggerHandle
from ws_logging.register import register_logger as register_logger
from ws_logging.rotation import LogFileRotator as LogFileRotator
from ws_logging.sink import QueuedFileSink as QueuedFileSink

__all__ = (
    "LogFileRotator",
    "LogInterceptor",
    "LoggerHandle",
    "LoggingConfigError",
    "QueuedFileSink",
    "Redactor",
    "event",
    "log_context",
    "logger",
    "register_logger",
)
