"""Names of locks, and the Redis keys that belong to one."""

from __future__ import annotations

import functools
from collections.abc import Callable

from ws_redislock.errors import ConfigError

__all__ = ("LockKeys", "QueueKeys", "check_name", "plain", "queue_keys", "tagged")

MAX_NAME_BYTES = 512
_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


def check_name(name: object, what: str = "lock") -> str:
    """Check the name of a lock or limiter key."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"a {what}'s name must be a string that is not empty, not {name!r}", name=name)

    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ConfigError(
            f"a {what}'s name must be text that UTF-8 can write, not {name!r}", name=name
        ) from None

    if size > MAX_NAME_BYTES:
        raise ConfigError(
            f"the {what}'s name {name[:40]!r}… has {size} bytes; at most {MAX_NAME_BYTES} are allowed: "
            f"use a digest",
            name=name,
        )

    return name


def plain(name: str) -> str:
    """
    Return the text of a name whose class says something else of itself, such as a member of an enumeration.

    Example:
        >>> import enum
        >>> Task = enum.Enum("Task", {"REPORT": "report"}, type=str)
        >>> plain(Task.REPORT)
        'report'
    """
    return str.__str__(name)


def tagged(kind: str, name: str) -> str:
    """
    Return the prefix that all keys of a name share; a cluster keeps them in one slot.

    Example:
        >>> tagged("m", "stock{7}")
        'wsl:m:{stock%7B7%7D}:'
    """
    return f"wsl:{kind}:{{{name.translate(_ESCAPES)}}}:"


class LockKeys:
    """
    The keys of one lock, in the order in which its scripts take them.

    Example:
        >>> LockKeys("m", "stock").of("x1.2")[::4]
        (b'wsl:m:{stock}:holders', b'wsl:m:{stock}:done:x1.2')
    """

    __slots__ = ("_done", "shared")

    def __init__(self, kind: str, name: str) -> None:
        prefix = tagged(kind, name).encode()
        self.shared: tuple[bytes, bytes, bytes, bytes] = (
            prefix + b"holders",
            prefix + b"queue",
            prefix + b"alive",
            prefix + b"fence",
        )
        self._done = prefix + b"done:"

    def of(self, token: str) -> tuple[bytes, ...]:
        """Return the keys, with the tombstone of one acquisition as the last."""
        return (*self.shared, self._done + token.encode())


class QueueKeys:
    """What a coordinator must know of a lock in order to beat for its waiters."""

    __slots__ = ("delay", "heartbeat", "identity", "limit", "of", "shared")

    def __init__(self, keys: LockKeys, *, heartbeat: int, limit: int, delay: int) -> None:
        self.shared: tuple[bytes, ...] = keys.shared
        self.of: Callable[[str], tuple[bytes, ...]] = keys.of
        self.heartbeat: int = heartbeat
        self.limit: int = limit
        self.delay: int = delay
        self.identity: tuple[bytes, int, int, int] = (keys.shared[0], heartbeat, limit, delay)


@functools.lru_cache(maxsize=1024)
def queue_keys(kind: str, name: str, heartbeat: int, limit: int, delay: int) -> QueueKeys:
    """Return what is to be known of a lock; remembered for locks in use."""
    return QueueKeys(LockKeys(kind, name), heartbeat=heartbeat, limit=limit, delay=delay)
