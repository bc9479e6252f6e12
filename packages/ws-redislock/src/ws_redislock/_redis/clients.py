"""Which Redis clients are taken, and what their errors mean for a call that may be repeated."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeAlias, cast

import redis.asyncio
from redis import exceptions

from ws_core.errors import UnavailableError, UsageError

__all__ = (
    "HOPELESS",
    "TRANSIENT",
    "ClientHolder",
    "CommandClient",
    "RedisSource",
    "check_flow",
    "refuse",
    "resolve",
)

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

_BLOCKING = (redis.Redis, redis.RedisCluster)
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
    """
    Find the client to use.

    Args:
        source: A URL, a client of ``redis.asyncio``, or anything with such a client as ``.redis``.

    Returns:
        The client, and whether it was made here (from a URL) and must be closed by its user.

    Raises:
        UsageError: It is none of these, or a client that blocks.
    """
    if isinstance(source, str):
        return cast("CommandClient", redis.asyncio.from_url(source)), True

    client = source if hasattr(source, "execute_command") else getattr(source, "redis", None)

    if client is None or not hasattr(client, "execute_command"):
        raise UsageError(
            f"{type(source).__name__!r} is no Redis client: pass a redis.asyncio.Redis, a RedisPool or a URL",
        )

    if type(client) not in _accepted and isinstance(client, _BLOCKING):
        raise UsageError(
            f"{type(client).__name__!r} blocks the event loop: pass a redis.asyncio.Redis "
            f"or use ws_redislock.sync",
        )

    _accepted.add(type(client))
    return cast("CommandClient", client), False


def check_flow(flow: object, what: str) -> None:
    """
    Refuse use from another event loop: it would hang there.

    Args:
        flow: The loop of the first use.
        what: What was used, for the error.

    Raises:
        UsageError: This is another loop.
    """
    if asyncio.get_running_loop() is not flow:
        raise UsageError(f"{what} belongs to another event loop, where it was used first: make one per loop")


def refuse(error: exceptions.ResponseError, script: str, what: tuple[str, str]) -> None:
    """
    Tell an error reply that speaks of the server's state from one that speaks of a mistake.

    Args:
        error: What the server said.
        script: The script that it refused.
        what: Kind and name of what it was for.

    Raises:
        UnavailableError: The server is in no state to do it: short of memory or replicas, busy,
            without permission. Anything else is a mistake in the program or its data (a key of
            another type, a cluster's slot), and stays what it is.
    """
    if isinstance(error, _STATES) or str(error).startswith(_STATE_WORDS):
        raise UnavailableError(
            f"{what[0]} {what[1]!r}: Redis refused {script.upper()} ({type(error).__name__}: {error})",
            script=script,
            name=what[1],
        ) from error
