"""What the tests of locks for threads share."""

from __future__ import annotations

import time
from collections.abc import Callable

from ws_redislock.sync import (
    MutexLock,
)
from ws_redislock.sync._lock.base import BaseLock
from ws_redislock.sync._lock.renewal import RenewalWatchdog


def until(condition: Callable[[], object]) -> None:
    """Let other threads go on until something is true."""
    end = time.monotonic() + 10

    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def watch_of(lock: MutexLock) -> RenewalWatchdog:
    """Return the watchdog of a held lock."""
    watch = lock.current()._watchdog
    assert watch is not None
    return watch


def unreachable(*_arguments: object) -> object:
    """Stand in for a call that finds no server."""
    raise ConnectionError("gone")


def waiting_for(lock: BaseLock, count: int = 1) -> None:
    """Let other threads go on until so many wait for a lock."""
    until(lambda: lock.waiters() >= count)
