"""Names of locks, and the Redis keys that belong to one."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from ws_redislock.errors import ConfigError

PREFIX = "wsl"
"""With what all keys begin, unless their user says otherwise."""

MAX_NAME_BYTES = 512
_PREFIX = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
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


def check_prefix(prefix: object) -> str:
    """Check the prefix of keys: without braces, since the name alone decides about the slot of a cluster."""
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"key_prefix must be 1 to 64 letters, digits or any of '_.:/-', not {prefix!r}",
            option="key_prefix",
            value=prefix,
        )

    return plain(prefix)


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


def escape(name: str) -> str:
    """Return a name without braces, which would move the hash tag."""
    return name.translate(_ESCAPES)


def unescape(text: str) -> str:
    """
    Return the name behind an escaped one.

    Example:
        >>> unescape(escape("a{b}%7D"))
        'a{b}%7D'
    """
    return text.replace("%7B", "{").replace("%7D", "}").replace("%25", "%")


def tagged(prefix: str, kind: str, name: str) -> str:
    """
    Return the prefix that all keys of a name share; a cluster keeps them in one slot.

    Example:
        >>> tagged("wsl", "m", "stock{7}")
        'wsl:m:{stock%7B7%7D}:'
    """
    return f"{prefix}:{kind}:{{{escape(name)}}}:"


class LockKeys:
    """
    The keys of one lock, in the order in which its scripts take them.

    Example:
        >>> LockKeys("wsl", "m", "stock").of("x1.2")[::4]
        (b'wsl:m:{stock}:holders', b'wsl:m:{stock}:done:x1.2')
    """

    __slots__ = ("_done", "shared")

    def __init__(self, prefix: str, kind: str, name: str) -> None:
        start = tagged(prefix, kind, name).encode()
        self.shared: tuple[bytes, bytes, bytes, bytes] = (
            start + b"holders",
            start + b"queue",
            start + b"alive",
            start + b"fence",
        )
        self._done = start + b"done:"

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
def queue_keys(prefix: str, kind: str, name: str, heartbeat: int, limit: int, delay: int) -> QueueKeys:
    """Return what is to be known of a lock; remembered for locks in use."""
    return QueueKeys(LockKeys(prefix, kind, name), heartbeat=heartbeat, limit=limit, delay=delay)
