"""Errors of shared and dedicated connections that are errors of redis-py as well.

Code written for redis-py catches `redis.exceptions.ConnectionError`; code written for wintersweet
catches `ws_core.errors.WsError`. These errors are both.
"""

from __future__ import annotations

from typing import Any

from redis import exceptions as driver

from ws_pool import errors

# Any: an attribute of redis-py's newer errors, which older ones don't have
_NETWORK: Any = getattr(getattr(driver, "ExceptionType", None), "NETWORK", None)


class _Driver(driver.ConnectionError):
    """redis-py's attributes, for errors that are built by our constructors."""

    error_type = _NETWORK
    status_code: str | None = None


class UnavailableError(errors.UnavailableError, _Driver):
    """The server cannot be reached; the command was not sent."""


class MaybeExecuted(errors.MaybeExecuted, _Driver):
    """The connection was lost after the command was sent and before its reply."""


class AcquireTimeout(errors.AcquireTimeout, _Driver):
    """The connection had no room for the command in time; it was not sent."""


class ConnectionLost(Exception):
    """The connection of a command was lost; caught by the clients, which raise a public error."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
