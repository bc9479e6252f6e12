# Written by tools/generate_sync_locks.py from ws_redislock/leader.py; do not edit.
"""Leader election: terms of office, one leader at a time, fenced."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from ws_core.backoff import delay
from ws_redislock.sync._concurrency import sleep
from ws_redislock.sync._lock.held import Held
from ws_redislock.sync._lock.hold import Hold
from ws_redislock.sync._redis.clients import HOPELESS, RedisSource
from ws_redislock._redis.keys import PREFIX
from ws_redislock.errors import LockLost, UnavailableError
from ws_redislock.sync.mutex import MutexLock
from ws_redislock.observe import LockObserver

__all__ = ("LeaderElection", "Term")

_logger = logging.getLogger("ws_redislock")


class LeaderLock(MutexLock):
    """A mutex whose names are apart from those of others."""

    _kind = "l"


class Term:
    """
    One term of office: a context manager whose block a loss ends, as that of ``hold()``.

    Losing office is nothing unusual for a leader, so the block's end by it is silent: the
    election goes on with the next term.
    """

    __slots__ = ("_held", "_hold")

    def __init__(self, held: Held, hold: Hold) -> None:
        self._held = held
        self._hold = hold

    def __enter__(self) -> Self:
        self._hold._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            self._hold.__exit__(kind, error, trace)
        except LockLost:
            return True

        return isinstance(error, LockLost) and self._held.lost

    @property
    def fence(self) -> int:
        """The number of the term, larger than all before it, wherever they were."""
        return self._held.fence

    @property
    def leading(self) -> bool:
        """Whether this is still the leader, by the clock; no I/O."""
        return self._held.locked

    def check(self) -> None:
        """
        Check that this is still the leader; no I/O.

        Raises:
            LockLost: The term is over.
        """
        self._held.check()

    def wait_over(self) -> None:
        """Wait until office is lost."""
        self._held.wait_lost()


class LeaderElection:
    """
    One leader among all that stand for election, and another at once when it goes.

    An iterator of terms: each step waits until this candidate is the leader, and returns its `Term`.
    The loss of office ends the block under ``with term``: a task is cancelled, and a thread
    should call ``term.check()`` while it works. When the block ends by itself, the leader resigns.
    Candidates lead in the order in which they stood.

    Args:
        redis: A client of redis-py, a pool or a manager of pools that has one, the name of a pool, or a URL.
        name: What is led, 1 to 512 bytes of UTF-8.
        lease: Seconds after which a leader that died is followed by another.
        heartbeat: Seconds after which a candidate that died is passed over.
        lock_delay: Seconds for which office stays empty after a leader was lost.
        key_prefix: With what the keys in Redis begin; users of one name agree on it.
        observer: Notified of every event, for metrics.

    Raises:
        ConfigError: A name or number that cannot work.

    Example:
        ```python
        from redis import Redis
        from ws_redislock.sync import LeaderElection

        redis = Redis.from_url("redis://localhost:6379/0")

        with LeaderElection(redis, "scheduler", lease=10) as election:
            for term in election:
                with term:
                    print("leading, term", term.fence)

                break

        redis.close()
        ```
    """

    def __init__(
        self,
        redis: RedisSource,
        name: str,
        lease: float = 15.0,
        *,
        heartbeat: float = 10.0,
        lock_delay: float = 0.0,
        key_prefix: str = PREFIX,
        observer: LockObserver | None = None,
    ) -> None:
        self._lock = LeaderLock(
            redis,
            name,
            lease,
            heartbeat=heartbeat,
            lock_delay=lock_delay,
            key_prefix=key_prefix,
            observer=observer,
        )

    def __repr__(self) -> str:
        return f"<LeaderElection {self._lock.name!r}{' leading' if self._lock.locked else ''}>"

    def __enter__(self) -> Self:
        """Enter without standing for election."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Term]:
        return self

    def __next__(self) -> Term:
        """
        Wait for the next term, through outages; a term that is still on is given up first.

        Raises:
            UnavailableError: Redis refuses the credentials.
        """
        failures = 0

        while True:
            hold = self._lock.hold(None)

            try:
                self._lock.release()
                return Term(hold.acquire(), hold)
            except UnavailableError as error:
                if isinstance(error.__cause__, HOPELESS):
                    raise

                _logger.warning("%r stands again after: %s", self, error)

            failures += 1
            sleep(delay(failures, 0.15, 7.5, jitter=2 / 3))

    @property
    def leading(self) -> bool:
        """Whether this candidate leads now, by the clock; no I/O."""
        return self._lock.locked

    def leader(self) -> str | None:
        """Return the token of the leader, or None."""
        return self._lock.owner()

    def depose(self) -> bool:
        """
        Take office away from the leader, wherever it is.

        Returns:
            Whether there was one.
        """
        return self._lock.force_release()

    def close(self) -> None:
        """Resign if this is the leader, and wait for what goes on in the background."""
        self._lock.close()
