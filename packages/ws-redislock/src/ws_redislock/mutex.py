"""The lock that one holder has at a time."""

from __future__ import annotations

from ws_redislock._lock.base import BaseLock
from ws_redislock._lock.held import Held, OnLost
from ws_redislock._lock.options import options_of
from ws_redislock._redis.clients import RedisSource
from ws_redislock._redis.keys import PREFIX
from ws_redislock.observe import LockObserver

__all__ = ("BaseLock", "Held", "MutexLock")

Held.__module__ = __name__


class MutexLock(BaseLock):
    """
    A distributed lock with one holder, first come first served.

    Waiting costs no polling: the release wakes who comes next. The holder has a lease, which is
    renewed while its event loop or process lives; a loss is reported at once. The `fence`
    of each acquisition is larger than all before it, so that a store can refuse late writes.

    Use one object per acquisition. Objects are cheap; all on one client share heartbeats and wake-ups.

    Args:
        redis: A client of redis-py, a pool or a manager of pools that has one, the name of a pool, or a URL;
            a client made from a URL is closed with the lock.
        name: The lock's name, 1 to 512 bytes of UTF-8.
        expire: The lease in seconds; what a crashed holder costs the next one at most.
        auto_renew: Whether the lease is renewed every third of it. If not, it ends at `expire`.
        heartbeat: Seconds after which a waiter that died is passed over; also bounds, to a third
            of it, what a lost wake-up costs.
        min_replicas: How many replicas must confirm an acquisition; not for clusters.
        lock_delay: Seconds for which the lock stays closed after a holder was lost.
        fence_ttl: Seconds for which the last fence is remembered; then the server's clock keeps them growing.
        reentrant: Whether the task that holds the lock may acquire it again.
        key_prefix: With what the keys in Redis begin; users of one name agree on it.
        on_lost: Called with the `Held` when the lease is lost.
        observer: Notified of every event, for metrics.

    Raises:
        ConfigError: A name or number that cannot work.

    Example:
        ```python
        from redis.asyncio import Redis
        from ws_redislock import MutexLock

        redis = Redis.from_url("redis://localhost:6379/0")

        async with MutexLock(redis, "stock:7", 60).hold(timeout=5) as held:
            print("mine alone, with fence", held.fence)

        await redis.aclose()
        ```
    """

    _kind = "m"

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
        reentrant: bool = False,
        key_prefix: str = PREFIX,
        on_lost: OnLost | None = None,
        observer: LockObserver | None = None,
    ) -> None:
        options = options_of(
            expire,
            auto_renew=auto_renew,
            heartbeat=heartbeat,
            min_replicas=min_replicas,
            lock_delay=lock_delay,
            fence_ttl=fence_ttl,
            reentrant=reentrant,
            key_prefix=key_prefix,
            on_lost=on_lost,
            observer=observer,
        )
        super().__init__(redis, name, options, kind=self._kind, exclusive=True, limit=1)
