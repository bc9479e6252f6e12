"""Which Redis clients are taken, and what their errors mean for a call that may be repeated."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, cast

from redis import exceptions

from ws_core.errors import UnavailableError, UsageError
from ws_redislock._concurrency import FOREIGN, FOREIGN_REASON, NATIVE, client_from_url

__all__ = ("HOPELESS", "TRANSIENT", "ClientHolder", "CommandClient", "RedisSource", "refuse", "resolve")

TRANSIENT = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    OSError,
)
"""Errors after which the same script may succeed on another attempt."""

HOPELESS = (exceptions.AuthenticationError, exceptions.AuthorizationError)
"""Errors of the connection after which it never succeeds."""

_STATES = (
    exceptions.AuthenticationError,
    exceptions.NoPermissionError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
)
_STATE_WORDS = (
    "BUSY",
    "LOADING",
    "MISCONF",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "WRONGPASS",
)

_accepted: set[type] = set()  # to ask once per class: the driver's classes are slow to compare


class CommandClient(Protocol):
    """What a Redis client must be able to do: ``redis.asyncio.Redis``, a cluster's client, ..."""

    def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: the driver's own signature
        """Send a command and return its reply."""
        ...


class ClientHolder(Protocol):
    """A pool that has such a client, as ws-pool's ``RedisPool``."""

    @property
    def redis(self) -> Any:  # Any: pools type their client in their own way
        """The shared client."""
        ...


RedisSource: TypeAlias = "str | CommandClient | ClientHolder"
"""A URL, a client, or a pool that holds one."""


def resolve(source: RedisSource) -> tuple[CommandClient, bool]:
    """Return the client of a source, and whether it was made here (from a URL) and must be closed."""
    if isinstance(source, str):
        return cast("CommandClient", client_from_url(source)), True

    client = source if hasattr(source, "execute_command") else getattr(source, "redis", None)

    if client is None or not hasattr(client, "execute_command"):
        raise UsageError(
            f"{type(source).__name__!r} is not a Redis client: pass a {NATIVE}, a RedisPool or a URL"
        )

    if type(client) not in _accepted and isinstance(client, FOREIGN):
        raise UsageError(f"{type(client).__name__!r} {FOREIGN_REASON}")

    _accepted.add(type(client))
    return cast("CommandClient", client), False


def refuse(error: exceptions.ResponseError, script: str, what: tuple[str, str]) -> None:
    """
    Raise UnavailableError for an error reply about the server's state, and return for any other.

    The others are mistakes in the program or its data (a key of another type), and stay what they are.
    """
    if isinstance(error, _STATES) or str(error).startswith(_STATE_WORDS):
        raise UnavailableError(
            f"{what[0]} {what[1]!r}: Redis refused {script.upper()} ({type(error).__name__}: {error})",
            script=script,
            name=what[1],
        ) from error
