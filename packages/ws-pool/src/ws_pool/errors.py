"""The errors of ws-pool, below those of `ws_core.errors`.

The tree::

    WsError
    ├── ConfigError                 a setting is wrong: the message names it, as DATABASES.default.port
    ├── UsageError                  the calling code is wrong
    │   ├── NotReadyError           the pool was not started
    │   ├── ClosedError             the pool was closed
    │   └── ConnectionBusy          two tasks use one connection at the same time
    ├── AcquireTimeout              no connection became free in time
    ├── UnavailableError            the server cannot be reached, or the connection was lost
    │   ├── CommitUnknown           the connection was lost during COMMIT: it may or may not have happened
    │   └── MaybeExecuted           the connection was lost between a command and its reply
    ├── QueryError                  the server refused a statement; carries the server's error number
    │   ├── IntegrityViolation      a unique, foreign key, not-null or check rule
    │   └── TransactionConflict     deadlock, lock timeout, busy: running the transaction again may help
    ├── QueryTimeout                also a TimeoutError: a statement took longer than query_timeout
    ├── HttpError                   a request failed; carries its method and URL
    │   ├── HttpStatusError         the server answered with a status from 400 on; carries the response
    │   ├── HttpConnectionError     also an UnavailableError: no connection, or it was lost
    │   │   └── HttpCircuitOpen     the host failed too often; nothing was sent
    │   ├── HttpAddressDenied       the address is not public, and deny_private is on
    │   ├── HttpTimeout             also a TimeoutError: no complete answer in time
    │   └── HttpDecodeError         also a ValueError: the body is not what it was taken for
    └── UnsupportedStatement        this client cannot run that construct; nothing was sent
"""

from __future__ import annotations

from ws_core.errors import (
    AcquireTimeout,
    ClosedError,
    ConfigError,
    MissingExtraError,
    NotReadyError,
    UnavailableError,
    UsageError,
    WsError,
)

__all__ = (
    "AcquireTimeout",
    "ClosedError",
    "CommitUnknown",
    "ConfigError",
    "ConnectionBusy",
    "HttpAddressDenied",
    "HttpCircuitOpen",
    "HttpConnectionError",
    "HttpDecodeError",
    "HttpError",
    "HttpStatusError",
    "HttpTimeout",
    "IntegrityViolation",
    "MaybeExecuted",
    "MissingExtraError",
    "NotReadyError",
    "QueryError",
    "QueryTimeout",
    "TransactionConflict",
    "UnavailableError",
    "UnsupportedStatement",
    "UsageError",
    "WsError",
)


class ConnectionBusy(UsageError):
    """Two tasks use one connection at the same time: take a client per task, or `share()` it."""

    default_code = "connection_busy"


class CommitUnknown(UnavailableError):
    """
    The connection was lost while COMMIT was on its way.

    The transaction may have been committed or not; only the data itself shows which. It is
    never retried on its own.
    """

    default_code = "commit_unknown"


class MaybeExecuted(UnavailableError):
    """
    The connection was lost after a command was sent and before its reply came.

    The server may have executed it or not.
    """

    default_code = "maybe_executed"


class QueryError(WsError):
    """
    The server refused a statement.

    ``errno`` is the server's error number (MySQL) or SQLite's extended result code, or 0 when
    there is none; ``context["sqlstate"]`` is PostgreSQL's SQLSTATE. The driver's own exception is the
    ``__cause__``.
    """

    default_code = "query"

    @property
    def errno(self) -> int:
        """The server's error number; 0 when it gave none."""
        number = self.context.get("errno", 0)
        return number if isinstance(number, int) else 0


class QueryTimeout(WsError, TimeoutError):
    """
    A statement took longer than the pool's ``query_timeout``. Also a `TimeoutError`.

    The statement is stopped on the server where the pool can reach it directly. What it has changed
    outside of a transaction is not known.
    """

    default_code = "query_timeout"


class IntegrityViolation(QueryError):
    """A unique, foreign key, not-null or check rule forbids the change."""

    default_code = "integrity"


class TransactionConflict(QueryError):
    """A deadlock, a lock timeout or a busy database: running the whole transaction again may help."""

    default_code = "conflict"


class HttpError(WsError):
    """
    A request failed. ``context`` holds its ``method`` and ``url``, the URL without secrets.

    The HTTP library's own exception is the ``__cause__``.
    """

    default_code = "http"


class HttpStatusError(HttpError):
    """
    The server answered with a status from 400 on.

    ``context["response"]`` is the whole response, `status_code` its status.
    """

    default_code = "http_status"

    @property
    def status_code(self) -> int:
        """The status; 0 when the error was made without one."""
        number = self.context.get("status_code", 0)
        return number if isinstance(number, int) else 0

    @property
    def response(self) -> object:
        """The `ws_pool.http.HttpResponse`."""
        return self.context.get("response")


class HttpConnectionError(HttpError, UnavailableError):
    """
    The server cannot be reached, or the connection was lost before the answer was complete.

    ``context["sent"]`` says whether the request may have reached the server.
    """

    default_code = "http_connection"


class HttpCircuitOpen(HttpConnectionError):
    """The host failed too often in a row and is left alone for a while; nothing was sent."""

    default_code = "http_circuit_open"


class HttpAddressDenied(HttpError):
    """The host has an address that is not public, and the pool must not go there."""

    default_code = "http_address_denied"


class HttpTimeout(HttpError, TimeoutError):
    """No complete answer came in time. Also a `TimeoutError`."""

    default_code = "http_timeout"


class HttpDecodeError(HttpError, ValueError):
    """The body is not what it was taken for, such as JSON, or its checksum is another."""

    default_code = "http_decode"


class UnsupportedStatement(UsageError):
    """This client cannot run that construct; nothing was sent. `engine()` runs all of SQLAlchemy."""

    default_code = "unsupported_statement"
