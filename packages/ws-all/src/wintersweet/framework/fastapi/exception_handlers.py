"""Handlers that answer exceptions in the envelope: `ws_web.exception_handlers`."""

from ws_web.exception_handlers import err_response_handler as err_response_handler
from ws_web.exception_handlers import http_exception_handler as http_exception_handler
from ws_web.exception_handlers import (
    request_validation_exception_handler as request_validation_exception_handler,
)

__all__ = (
    "err_response_handler",
    "http_exception_handler",
    "request_validation_exception_handler",
)
