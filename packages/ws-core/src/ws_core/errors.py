"""The errors that every wintersweet library raises, and the boundary that logs them.

Catch `WsError` to catch them all. The tree is small and named after conditions::

    WsError
    ├── ConfigError                    a setting is wrong; nothing was started
    │   └── MissingExtraError          a setting asks for a library that is not installed
    ├── UsageError                     the calling code is wrong (another loop, not started, ...)
    │   ├── NotReadyError              used before it was started
    │   └── ClosedError                used after it was closed
    ├── InvalidValueError              also a ValueError: a value from outside cannot be understood
    ├── AcquireTimeout                 also a TimeoutError: a resource was not free in time
    └── UnavailableError               also a ConnectionError: the server cannot be reached

Each distribution adds its own leaves below these in its own ``errors`` module.
"""

from __future__ import annotations

from typing import ClassVar

from ws_core._catch_error import ErrorBoundary, ErrorLogger, catch_error, describe, set_error_logger

__all__ = (
    "AcquireTimeout",
    "ClosedError",
    "ConfigError",
    "ErrorBoundary",
    "ErrorLogger",
    "InvalidValueError",
    "MissingExtraError",
    "NotReadyError",
    "UnavailableError",
    "UsageError",
    "WsError",
    "catch_error",
    "describe",
    "set_error_logger",
)

for _public in (ErrorBoundary, catch_error, describe):
    _public.__module__ = __name__


class WsError(Exception):
    """
    Base of all errors that wintersweet libraries raise.

    The message is one sentence for people: what happened, to which named thing, and what to
    do. The code is for programs. The context holds the values that the message speaks of;
    it never takes part in ``str(error)``, so that a value is shown only where it was chosen.

    Args:
        message: The sentence for people.
        code: Stable identifier for programs; defaults to the class's ``default_code``.
        **context: Named values that describe the case, such as ``pool="default"``.

    Example:
        >>> error = WsError("pool 'default' is full", code="pool_full", pool="default")
        >>> str(error), error.code, error.context["pool"]
        ("pool 'default' is full", 'pool_full', 'default')
    """

    default_code: ClassVar[str] = "ws_error"

    def __init__(self, message: str, *, code: str | None = None, **context: object) -> None:
        super().__init__(message)
        self.message: str = message
        self.code: str = self.default_code if code is None else code
        self.context: dict[str, object] = context

    def __reduce__(self) -> tuple[object, ...]:
        """Support copying and pickling: keyword-only state does not fit in ``args``."""
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(cls: type[WsError], args: tuple[object, ...]) -> WsError:
    """Make an error without its ``__init__``, whose signature a subclass may have changed."""
    error = cls.__new__(cls, *args)
    error.args = args  # relatives of OSError would take them in __init__ only
    return error


class ConfigError(WsError):
    """A setting is wrong. Raised before any side effect; the message names the setting."""

    default_code = "config"


class MissingExtraError(ConfigError):
    """
    A setting or import asks for a library that is not installed.

    Example:
        >>> print(MissingExtraError.for_extra("DATABASES", "ws-pool[mysql]"))
        DATABASES is set, but ws-pool[mysql] is not installed: pip install 'ws-pool[mysql]'
    """

    default_code = "missing_extra"

    @classmethod
    def for_extra(cls, setting: str, requirement: str) -> MissingExtraError:
        """
        Build the error for a settings key whose library is missing.

        Args:
            setting: The settings key as the user wrote it.
            requirement: What to install, in pip's notation.

        Returns:
            The error, to be raised by the caller.
        """
        return cls(
            f"{setting} is set, but {requirement} is not installed: pip install '{requirement}'",
            setting=setting,
            requirement=requirement,
        )


class UsageError(WsError):
    """The calling code is wrong, such as use from another event loop. A bug to be fixed."""

    default_code = "usage"


class NotReadyError(UsageError):
    """The object was used before it was started."""

    default_code = "not_ready"


class ClosedError(UsageError):
    """The object was used after it was closed."""

    default_code = "closed"


class InvalidValueError(WsError, ValueError):
    """A value from outside cannot be understood, such as an address or XML. Also a `ValueError`."""

    default_code = "invalid_value"


class AcquireTimeout(WsError, TimeoutError):
    """A resource was not free in time. Also a `TimeoutError`."""

    default_code = "acquire_timeout"


class UnavailableError(WsError, ConnectionError):
    """The server cannot be reached, or the connection to it was lost. Also a `ConnectionError`."""

    default_code = "unavailable"
