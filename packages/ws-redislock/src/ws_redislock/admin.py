"""For operators: which locks there are, who holds them, and taking one away.

Nothing here belongs to an acquisition. What a program needs of its own locks, the locks have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from redis.exceptions import ResponseError

from ws_redislock._coordination.coordinator import coordinator_for
from ws_redislock._lock.options import BUDGET
from ws_redislock._lock.status import LockStatus
from ws_redislock._redis.clients import TRANSIENT, CommandClient, RedisSource, refuse, resolve
from ws_redislock._redis.keys import PREFIX, LockKeys, check_name, check_prefix, escape, queue_keys, unescape
from ws_redislock._redis.scripts import load
from ws_redislock.errors import ConfigError, UnavailableError

__all__ = ("LockInfo", "LockKind", "list_locks", "reset_lock")

LockKind: TypeAlias = Literal["mutex", "semaphore", "read_write", "election"]
"""Each kind of lock has names of its own."""

_LETTERS: Mapping[str, LockKind] = {"m": "mutex", "s": "semaphore", "rw": "read_write", "l": "election"}
_KINDS = {kind: letters for letters, kind in _LETTERS.items()}

TOGETHER = 100
"""Locks that are looked at together."""

ANY_LIMIT = 2**31 - 1
"""Wakes all who could enter whatever the permits are, which this side does not know; they look themselves."""


@dataclass(frozen=True, slots=True)
class LockInfo:
    """
    One lock as it stood when it was listed.

    Args:
        kind: What kind of lock it is.
        name: Its name.
        holders: For how many seconds the lease of each holder is valid, by its token.
        waiters: How many wait for it.
        fence: The last fencing token; 0 when none is remembered.
    """

    kind: LockKind
    name: str
    holders: Mapping[str, float]
    waiters: int
    fence: int


async def list_locks(
    redis: RedisSource, match: str = "*", *, limit: int = 1000, key_prefix: str = PREFIX
) -> list[LockInfo]:
    """
    List the locks that are held or waited for.

    The server is searched by SCAN, in small steps that hold nobody up; that takes time on a server with
    many keys. A lock that comes or goes meanwhile may be missing.

    Args:
        redis: A client of redis-py, a pool or a manager of pools that has one, the name of a pool, or a URL.
        match: Which names, as a pattern of Redis: ``*``, ``?`` and ``[abc]``.
        limit: How many locks to list at most, from 1.
        key_prefix: With what the keys of the locks begin.

    Returns:
        The locks by kind and name.

    Raises:
        ConfigError: A pattern, limit or prefix that cannot work.
        UnavailableError: Redis did not answer, or the user lacks the right to SCAN.

    Example:
        ```python
        from ws_redislock import MutexLock
        from ws_redislock.admin import list_locks

        async with MutexLock("redis://localhost:6379/0", "stock:7", 60).hold():
            [lock] = await list_locks("redis://localhost:6379/0", "stock:*")
            print(lock.kind, lock.name, lock.holders, lock.waiters, lock.fence)
        ```
    """
    if type(limit) is not int or limit < 1:
        raise ConfigError(f"limit must be a whole number from 1, not {limit!r}", option="limit", value=limit)

    check_name(match, "pattern")
    check_prefix(key_prefix)
    client, owned = resolve(redis)

    try:
        return await _list(client, match, limit, key_prefix)
    finally:
        if owned:
            await _close(client)


async def reset_lock(
    redis: RedisSource, name: str, kind: LockKind = "mutex", *, key_prefix: str = PREFIX
) -> bool:
    """
    Take a lock away from its holders, and let those that wait have it.

    A holder is notified at once when it is listening, else at its next renewal. What it writes afterwards
    only a fence can refuse.

    Args:
        redis: A client of redis-py, a pool or a manager of pools that has one, the name of a pool, or a URL.
        name: The lock's name.
        kind: What kind of lock it is.
        key_prefix: With what the keys of the lock begin.

    Returns:
        Whether anybody held it.

    Raises:
        ConfigError: A name, kind or prefix that cannot work.
        UnavailableError: Redis did not answer.
    """
    if kind not in _KINDS:
        raise ConfigError(f"kind must be one of {', '.join(_KINDS)}, not {kind!r}", option="kind", value=kind)

    keys = queue_keys(check_prefix(key_prefix), _KINDS[kind], check_name(name), 10_000, ANY_LIMIT, 0)
    client, owned = resolve(redis)

    try:
        return await LockStatus(coordinator_for(client), name, keys).force_release()
    finally:
        if owned:
            await _close(client)


async def _list(client: CommandClient, match: str, limit: int, prefix: str) -> list[LockInfo]:
    found = await _scan(client, match, limit, prefix)
    scripts = coordinator_for(client).scripts
    described: list[LockInfo] = []

    for first in range(0, len(found), TOGETHER):
        some = found[first : first + TOGETHER]
        calls = [(load("describe"), LockKeys(prefix, letters, name).shared, ()) for letters, name in some]
        replies = await scripts.many(calls, BUDGET)

        for (letters, name), reply in zip(some, replies, strict=True):
            if isinstance(reply, BaseException):
                _refuse(reply, "describe", name)
                raise reply

            tokens = [token if isinstance(token, str) else token.decode() for token in reply[2::2]]
            holders = {token: ms / 1000 for token, ms in zip(tokens, reply[3::2], strict=True)}

            if holders or reply[1]:  # else it was left meanwhile, and its keys end soon
                described.append(LockInfo(_LETTERS[letters], name, holders, reply[1], reply[0]))

    return described


# Any: the driver's clients are untyped, and a cluster's goes through all nodes.
async def _scan(client: Any, match: str, limit: int, prefix: str) -> list[tuple[str, str]]:
    """Find kind and name of locks by the keys of their holders and queues."""
    pattern = re.compile(
        rf"{re.escape(prefix)}:({'|'.join(_LETTERS)}):\{{(.*)\}}:(?:holders|queue)", re.DOTALL
    )
    found: set[tuple[str, str]] = set()

    try:
        async for raw in client.scan_iter(match=f"{prefix}:*:{{{escape(match)}}}:[hq]*", count=1000):
            key = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")

            if (parts := pattern.fullmatch(key)) is not None:
                found.add((parts[1], unescape(parts[2])))

            if len(found) >= limit:
                break
    except (*TRANSIENT, ResponseError) as error:
        _refuse(error, "scan", match)
        raise

    return sorted(found)


def _refuse(error: BaseException, command: str, name: str) -> None:
    """Raise what an error of the server means to an operator; return for a mistake in the data."""
    if isinstance(error, TRANSIENT):
        raise UnavailableError(f"locks {name!r}: Redis did not answer {command.upper()}: {error}") from error

    if isinstance(error, ResponseError):
        refuse(error, command, ("locks", name))


async def _close(client: Any) -> None:  # Any: as above
    """Close a client of our own, and the coordinator that worked on it."""
    await coordinator_for(client).aclose()
    await client.aclose()
