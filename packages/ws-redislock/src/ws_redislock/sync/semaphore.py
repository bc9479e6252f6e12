# Written by tools/generate_sync_locks.py from ws_redislock/semaphore.py; do not edit.
"""A lock that several holders have at a time, each with a lease of its own."""

from __future__ import annotations

from ws_redislock.sync._lock.base import BaseLock
from ws_redislock.sync._lock.held import OnLost
from ws_redislock.sync._lock.options import options_of
from ws_redislock.sync._redis.clients import RedisSource
from ws_redislock._redis.keys import PREFIX
from ws_redislock.errors import ConfigError
from ws_redislock.observe import LockObserver

__all__ = ("Semaphore",)


class Semaphore(BaseLock):
    """
    At most `permits` holders at a time, first come first served.

    Each permit has a lease of its own: a holder that dies loses its permit when the lease
    ends, and the others keep theirs. All users of a name must agree on the number of permits.

    Args:
        redis: A client of redis-py, a pool or a manager of pools that has one, the name of a pool, or a URL;
            a client made from a URL is closed with the semaphore.
        name: The semaphore's name, 1 to 512 bytes of UTF-8.
        permits: How many may hold it at a time.
        expire: The lease of a permit in seconds.
        auto_renew: Whether the lease is renewed every third of it.
        heartbeat: Seconds after which a waiter that died is passed over.
        min_replicas: How many replicas must confirm an acquisition; not for clusters.
        lock_delay: Seconds for which a permit stays taken after its holder was lost.
        fence_ttl: Seconds for which the last fence is remembered; then the server's clock keeps them growing.
        key_prefix: With what the keys in Redis begin; users of one name agree on it.
        on_lost: Called with the `Held` when the lease is lost.
        observer: Notified of every event, for metrics.

    Raises:
        ConfigError: A name or number that cannot work.

    Example:
        ```python
        from redis import Redis
        from ws_redislock.sync import Semaphore

        redis = Redis.from_url("redis://localhost:6379/0")

        with Semaphore(redis, "exports", 3, 60).hold(timeout=5):
            print("one of three exports that run at a time")

        redis.close()
        ```
    """

    def __init__(
        self,
        redis: RedisSource,
        name: str,
        permits: int,
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
        if type(permits) is not int or not 1 <= permits < 2**31:
            raise ConfigError(f"permits must be a whole number from 1, not {permits!r}", permits=permits)

        options = options_of(
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
        super().__init__(redis, name, options, kind="s", exclusive=False, limit=permits)
        self._permits = permits

    @property
    def permits(self) -> int:
        """How many may hold it at a time."""
        return self._permits
