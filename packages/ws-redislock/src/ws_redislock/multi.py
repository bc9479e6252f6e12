"""Several locks at once, without deadlock."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from ws_redislock._concurrency import gather
from ws_redislock._lease.cancel_scope import CancelScope
from ws_redislock._lock.held import Held, OnLost
from ws_redislock._lock.options import seconds
from ws_redislock._redis.clients import RedisSource
from ws_redislock._redis.keys import PREFIX, check_name, plain
from ws_redislock.errors import ConfigError, LockNotAcquired, UnavailableError, UsageError
from ws_redislock.mutex import MutexLock
from ws_redislock.observe import LockObserver

__all__ = ("MultiHold", "MultiLock")

_logger = logging.getLogger("ws_redislock")


class MultiLock:
    """
    The locks of several names, all or none.

    They are acquired one after the other in the order of their names, whatever order they were
    given in, so that two users of the same names never wait for each other in a circle. The
    names may lie in different slots of a cluster.

    Args:
        redis: A client of redis-py, a pool or a manager of pools that has one, the name of a pool, or a URL.
        names: The names; repetitions count once.
        expire: The lease of each in seconds.
        auto_renew: Whether leases are renewed every third of them.
        heartbeat: Seconds after which a waiter that died is passed over.
        key_prefix: With what the keys in Redis begin; users of one name agree on it.
        on_lost: Called with the `Held` when one of the leases is lost.
        observer: Notified of every event, for metrics.

    Raises:
        ConfigError: There is no name, or a name or number that cannot work.

    Example:
        ```python
        from redis.asyncio import Redis
        from ws_redislock import MultiLock

        redis = Redis.from_url("redis://localhost:6379/0")

        async with MultiLock(redis, ["account:7", "account:3"], 60).hold(timeout=5) as fences:
            print(fences["account:3"], fences["account:7"])

        await redis.aclose()
        ```
    """

    def __init__(
        self,
        redis: RedisSource,
        names: Iterable[str],
        expire: float = 60.0,
        *,
        auto_renew: bool = True,
        heartbeat: float = 10.0,
        key_prefix: str = PREFIX,
        on_lost: OnLost | None = None,
        observer: LockObserver | None = None,
    ) -> None:
        if isinstance(names, str):
            raise ConfigError(f"names must be several names, not the string {names!r}: use MutexLock for one")

        self._source = redis
        self._entered = False
        self._acquiring = False
        self._locks = [
            MutexLock(
                redis,
                name,
                expire,
                auto_renew=auto_renew,
                heartbeat=heartbeat,
                key_prefix=key_prefix,
                on_lost=on_lost,
                observer=observer,
            )
            for name in dict.fromkeys(plain(check_name(name)) for name in names)
        ]

        if not self._locks:
            raise ConfigError("a MultiLock needs at least one name")

        self._locks.sort(key=lambda lock: lock.name.encode())

    def __repr__(self) -> str:
        return f"<MultiLock {', '.join(repr(lock.name) for lock in self._locks)}>"

    async def __aenter__(self) -> Self:
        """Enter without acquiring; leaving releases what is held."""
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        await self.aclose()

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the order in which they are acquired."""
        return tuple(lock.name for lock in self._locks)

    @property
    def locked(self) -> bool:
        """Whether all are held now; no I/O."""
        return all(lock.locked for lock in self._locks)

    @property
    def fences(self) -> Mapping[str, int]:
        """The fencing token of each name while it is held."""
        return {lock.name: lock.fence for lock in self._locks}

    def check(self) -> None:
        """
        Check that all are still held; no I/O.

        Raises:
            LockLost: One of the leases is over.
        """
        for lock in self._locks:
            lock.check()

    async def acquire(self, timeout: float | None = 0) -> bool:
        """
        Acquire all, or none.

        Args:
            timeout: Seconds to wait for all together: 0 tries once, None waits for ever.

        Returns:
            Whether all are held now.

        Raises:
            ConfigError: The timeout is not a number from 0.
            UsageError: This object holds or acquires them already.
            UnavailableError: Redis cannot be reached.
        """
        if timeout is not None:
            seconds("timeout", timeout)

        if self._acquiring or any(lock.locked for lock in self._locks):
            raise UsageError(
                f"{self!r} is held or being acquired already: use one object per acquisition",
                names=self.names,
            )

        self._acquiring = True

        try:
            return await self._acquire(timeout)
        finally:
            self._acquiring = False

    async def release(self) -> bool:
        """
        Release all, at the same time.

        Returns:
            Whether all were held until now.
        """
        outcomes = await gather([lock.release for lock in reversed(self._locks)])

        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome  # the others were released all the same

        return all(outcomes)

    def hold(self, timeout: float | None = None) -> MultiHold:
        """
        Hold all for a block of code, which ends with `LockLost` when one of them is lost.

        Args:
            timeout: Seconds to wait for all together: 0 tries once, None waits for ever.

        Returns:
            A context manager that yields the fences by name. It raises `LockNotAcquired` and
            `LockLost` as that of a single lock.
        """
        return MultiHold(self, self._locks, timeout)

    async def aclose(self) -> None:
        """Release what is held, and wait for what goes on in the background."""
        # The first one closes the client of its own that all work on, so that it comes last.
        first, *others = self._locks

        try:
            outcomes = await gather([lock.aclose for lock in others])
        finally:
            await first.aclose()

            if isinstance(self._source, str):
                for lock in others:
                    lock._work_on(self._source)

        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _close_after_hold(self) -> None:
        """Close a client of its own after a ``hold()``, unless the object is in a block of its own."""
        if isinstance(self._source, str) and not self._entered:
            await self.aclose()

    async def _acquire(self, timeout: float | None) -> bool:
        client = self._locks[0]._own_client()

        if client is not None:  # made from a URL: the first lock closes it, all work on it
            for lock in self._locks[1:]:
                lock._work_on(client)

        end = None if timeout is None else time.monotonic() + timeout
        done = False

        try:
            for lock in self._locks:
                left = timeout if end is None or timeout == 0 else max(0.0, end - time.monotonic())

                if not await lock.acquire(left):
                    return False

            done = self.locked
        finally:
            if not done:
                await self.release()

        return done


class MultiHold:
    """The context manager of `MultiLock.hold`."""

    __slots__ = ("_all_held", "_lock", "_locks", "_scope", "_timeout")

    def __init__(self, lock: MultiLock, locks: list[MutexLock], timeout: float | None) -> None:
        self._lock = lock
        self._locks = locks
        self._timeout = timeout
        self._all_held: list[Held] = []
        self._scope: CancelScope | None = None

    async def __aenter__(self) -> Mapping[str, int]:
        try:
            acquired = await self._lock.acquire(self._timeout)
        except BaseException:
            await self._lock._close_after_hold()
            raise

        if not acquired:
            await self._lock._close_after_hold()
            raise LockNotAcquired(
                f"{self._lock!r} was not free within {self._timeout} s", timeout=self._timeout
            )

        self._scope = scope = CancelScope()
        self._all_held = [lock.current() for lock in self._locks]

        for held in self._all_held:
            held._enter(scope)

        return self._lock.fences

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope = self._scope
        assert scope is not None

        for held in self._all_held:
            held._leave(scope)

        try:
            ours = await scope.leave(error)
        finally:
            try:
                await self._lock.release()
            except UnavailableError as failure:
                # The body's work was done under valid leases, and that is what counts here.
                _logger.warning("%s", failure)
            finally:
                await self._lock._close_after_hold()

        lost = next((held for held in self._all_held if held.lost), None)

        if lost is not None and (ours or error is None):
            raise lost._loss() from error
