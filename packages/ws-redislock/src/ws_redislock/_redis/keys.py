"""Names of locks, and the Redis keys that belong to one."""

from __future__ import annotations

import functools

from ws_redislock.errors import ConfigError

__all__ = ("LockKeys", "QueueKeys", "check_name", "plain", "queue_keys", "tagged")

MAX_NAME_BYTES = 512
_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


def check_name(name: object, what: str = "lock") -> str:
    """
    Check the name of a lock or limiter key.

    Args:
        name: What the user gave.
        what: What it names, for the message.

    Returns:
        The name.

    Raises:
        ConfigError: Not a string, empty, or longer than 512 bytes in UTF-8.
    """
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

    Args:
        name: A checked name.

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

    Args:
        kind: What the keys are for.
        name: A checked name; braces in it are escaped, so that it is the whole hash tag.

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
    """
    What a coordinator must know of a lock in order to beat for its waiters.

    Args:
        keys: The lock's keys.
        heartbeat: Milliseconds after which a silent waiter counts as dead.
        limit: How many may hold the lock.
        delay: Milliseconds for which a lock stays closed after an involuntary loss.
    """

    __slots__ = ("delay", "heartbeat", "identity", "keys", "limit")

    def __init__(self, keys: LockKeys, *, heartbeat: int, limit: int, delay: int) -> None:
        self.keys: LockKeys = keys
        self.heartbeat: int = heartbeat
        self.limit: int = limit
        self.delay: int = delay
        self.identity: tuple[bytes, int, int, int] = (keys.shared[0], heartbeat, limit, delay)


@functools.lru_cache(maxsize=1024)
def queue_keys(kind: str, name: str, heartbeat: int, limit: int, delay: int) -> QueueKeys:
    """
    Return what is to be known of a lock; remembered for locks in use.

    Args:
        kind: What kind of lock it is.
        name: Its checked name.
        heartbeat: As in `QueueKeys`.
        limit: As in `QueueKeys`.
        delay: As in `QueueKeys`.
    """
    return QueueKeys(LockKeys(kind, name), heartbeat=heartbeat, limit=limit, delay=delay)
