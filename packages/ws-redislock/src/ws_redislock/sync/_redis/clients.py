# Written by tools/generate_sync_locks.py from ws_redislock/_redis/clients.py; do not edit.
"""Which Redis clients are taken, and what their errors mean for a call that may be repeated."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, cast

from redis import exceptions

from ws_core.errors import UnavailableError, UsageError, describe
from ws_redislock.sync._concurrency import FOREIGN, FOREIGN_REASON, NATIVE, client_from_url
from ws_redislock._redis.url import SCHEMES, check_url, is_url

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

_accepted: set[type] = set()  # classes of clients, to ask once per class: the driver's are slow to compare
_holders: set[type] = set()  # the same of pools
_managers: list[PoolManager] = []  # the one that ws-pool publishes, once a pool was named


class CommandClient(Protocol):
    """What a Redis client must be able to do: ``redis.Redis``, a cluster's client, ..."""

    def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: the driver's own signature
        """Send a command and return its reply."""
        ...


class ClientHolder(Protocol):
    """A pool that has such a client, as ws-pool's ``RedisPool``."""

    @property
    def redis(self) -> Any:  # Any: pools type their client in their own way
        """The shared client."""
        ...


class PoolManager(Protocol):
    """A set of such pools by name, as ws-pool's ``RedisPoolManager``."""

    def get_pool(self, name: str = "default") -> ClientHolder:
        """Return a pool."""
        ...


RedisSource: TypeAlias = "str | CommandClient | ClientHolder | PoolManager"
"""A URL, the name of a pool of ws-pool, a client, a pool that holds one, or a manager with a default pool."""


def check_source(source: RedisSource) -> None:
    """Refuse what cannot be a source, without I/O; what it stands for is found at the first use."""
    kind = type(source)

    if kind in _accepted or kind in _holders:
        return

    if isinstance(source, str):
        if is_url(source):
            check_url(source)
        else:
            _manager(source)
    elif inspect.getattr_static(source, "redis", None) is not None:
        _holders.add(kind)  # not asked for its client yet: a pool that is not started has none
    elif not hasattr(source, "get_pool"):
        _check_client(source)


def client_lookup(source: RedisSource) -> Callable[[], object] | None:
    """Return a function that looks up the client of a manager's pool; None for other sources."""
    if isinstance(source, str):
        return None if "://" in source else lambda: _manager(source).get_pool(source).redis

    if not hasattr(source, "get_pool"):
        return None

    manager = cast("PoolManager", source)
    return lambda: manager.get_pool().redis


def resolve(source: RedisSource) -> tuple[CommandClient, bool]:
    """Return the client of a source, and whether it was made here (from a URL) and must be closed."""
    client: Any = source  # Any: what the checks say, the type checker cannot see

    if type(source) in _accepted:
        return client, False

    check_source(source)

    if isinstance(source, str):
        if is_url(source):
            return cast("CommandClient", client_from_url(source)), True

        client = _manager(source).get_pool(source).redis
    elif type(source) in _holders:
        client = client.redis
    elif not hasattr(source, "execute_command"):
        client = client.get_pool().redis

    _check_client(client)
    return client, False


def _check_client(client: Any) -> None:  # Any: whatever the user passed
    """Refuse what is not a client of this kind of program."""
    if type(client) in _accepted:
        return

    if not hasattr(client, "execute_command"):
        raise UsageError(
            f"{type(client).__name__!r} is not a Redis client: pass a {NATIVE}, a RedisPool, a manager, "
            f"the name of a pool or a URL"
        )

    if isinstance(client, FOREIGN):
        raise UsageError(f"{type(client).__name__!r} {FOREIGN_REASON}")

    _accepted.add(type(client))


def _manager(name: str) -> PoolManager:
    """Return the manager of named pools, which an installed ws-pool publishes; it knows this name only."""
    if not _managers:
        published = importlib.metadata.entry_points(group="wintersweet.redis", name="pools")
        _managers.extend(entry.load() for entry in published)

    if not _managers:
        raise UsageError(
            f"{name!r} is not a URL ({'://, '.join(SCHEMES)}://), and a pool of that name needs ws-pool: "
            f"pip install 'ws-pool[redis]'"
        )

    return _managers[0]


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
                f"({describe(error, with_type=True)}): {remedy}",
                script=script,
                name=what[1],
            ) from error
