# Written by tools/generate_sync_locks.py from ws_redislock/rwlock.py; do not edit.
"""A lock for many readers or one writer."""

from __future__ import annotations

from ws_redislock.sync._lock.base import BaseLock
from ws_redislock.sync._lock.held import OnLost
from ws_redislock.sync._lock.options import options_of
from ws_redislock.sync._redis.clients import RedisSource
from ws_redislock._redis.keys import PREFIX
from ws_redislock.observe import LockObserver

__all__ = ("ReadLock", "ReadWriteLock", "WriteLock")

MANY = 2**31 - 1
"""Readers at a time: as many as there are."""


class ReadLock(BaseLock):
    """The shared side of a `ReadWriteLock`: one reader's acquisition."""


class WriteLock(BaseLock):
    """The exclusive side of a `ReadWriteLock`: one writer's acquisition."""


class ReadWriteLock:
    """
    Many readers at a time, or one writer.

    A writer that waits goes before all readers that wait, and lets no new reader in: writers do
    not starve. Writers among themselves, and readers among themselves, are served in the order
    in which they came. Where writers never cease, readers wait for ever.

    Args:
        redis: A client of redis-py, a pool or a manager of pools that has one, the name of a pool, or a URL.
        name: The lock's name, 1 to 512 bytes of UTF-8.
        expire: The lease of every holder in seconds.
        auto_renew: Whether leases are renewed every third of them.
        heartbeat: Seconds after which a waiter that died is passed over.
        min_replicas: How many replicas must confirm an acquisition; not for clusters.
        lock_delay: Seconds for which the lock stays as it was after a holder was lost.
        fence_ttl: Seconds for which the last fence is remembered; then the server's clock keeps them growing.
        key_prefix: With what the keys in Redis begin; users of one name agree on it.
        on_lost: Called with the `Held` when a lease is lost.
        observer: Notified of every event, for metrics.

    Raises:
        ConfigError: A name or number that cannot work.

    Example:
        ```python
        from redis import Redis
        from ws_redislock.sync import ReadWriteLock

        redis = Redis.from_url("redis://localhost:6379/0")
        lock = ReadWriteLock(redis, "catalogue", 60)

        with lock.read().hold(), lock.read().hold():
            print("readers share it")

        with lock.write().hold(timeout=5) as held:
            print("a writer has it alone, with fence", held.fence)

        redis.close()
        ```
    """

    def __init__(
        self,
        redis: RedisSource,
        name: str,
        expire: float = 60.0,
        *,
        auto_renew: bool = True,
        heartbeat: float = 10.0,
        min_replicas: int = 0,
        lock_delay: float = 0.0,
        fence_ttl: float = 3600.0,
        key_prefix: str = PREFIX,
        on_lost: OnLost | None = None,
        observer: LockObserver | None = None,
    ) -> None:
        self._options = options_of(
            expire,
            auto_renew=auto_renew,
            heartbeat=heartbeat,
            min_replicas=min_replicas,
            lock_delay=lock_delay,
            fence_ttl=fence_ttl,
            key_prefix=key_prefix,
            on_lost=on_lost,
            observer=observer,
        )
        self._reader = ReadLock(redis, name, self._options, kind="rw", exclusive=False, limit=MANY)
        self._writer = WriteLock(redis, name, self._options, kind="rw", exclusive=True, limit=MANY)

    def __repr__(self) -> str:
        return f"<ReadWriteLock {self.name!r}>"

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._writer.name

    def read(self) -> ReadLock:
        """Return a lock for one acquisition by a reader."""
        return self._reader._fresh()

    def write(self) -> WriteLock:
        """Return a lock for one acquisition by a writer."""
        return self._writer._fresh()
