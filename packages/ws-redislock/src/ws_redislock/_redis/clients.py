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

_RIGHTS = "give the user the rights that the documentation lists under 'Rights'"
_MEMORY = "raise maxmemory, or let the server evict other keys"
_MASTER = "connect to the master"

_REMEDIES: tuple[tuple[tuple[str, ...], type[Exception] | None, str], ...] = (
    (("NOPERM", "ACL failure", "The user executing"), exceptions.NoPermissionError, _RIGHTS),
    (("NOAUTH", "WRONGPASS"), exceptions.AuthenticationError, "check the user and the password"),
    (("OOM",), exceptions.OutOfMemoryError, _MEMORY),
    (("READONLY",), exceptions.ReadOnlyError, _MASTER),
    (("unknown command", "Unknown Redis command"), None, "do not rename or disable commands of scripts"),
    (("This Redis command is not allowed",), None, "do not rename or disable commands of scripts"),
    (("BUSY", "LOADING", "MISCONF", "NOREPLICAS"), None, "wait until the server is ready"),
)
"""Errors about the server's state: how they begin, redis-py's class for them, and the remedy."""

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
    known: Any = source  # Any: what the set says, the type checker cannot see

    if type(source) in _accepted:
        return known, False

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
    # An error inside of a script may come behind the name of the script, or "ERR".
    text = str(error)

    for words, kind, remedy in _REMEDIES:
        if (kind is not None and isinstance(error, kind)) or any(word in text[:120] for word in words):
            raise UnavailableError(
                f"{what[0]} {what[1]!r}: Redis refused {script.upper()} "
                f"({type(error).__name__}: {error}): {remedy}",
                script=script,
                name=what[1],
            ) from error
