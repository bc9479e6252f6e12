"""What all locks have in common: acquire, hold, release, and everything that can go wrong between."""

from __future__ import annotations

import copy
import functools
import logging
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from redis.exceptions import ResponseError

from ws_redislock._concurrency import current_loop, current_task
from ws_redislock._coordination.coordinator import Coordinator, coordinator_for
from ws_redislock._lease.lease import boot_time
from ws_redislock._lock.acquisition import AcquireProtocol
from ws_redislock._lock.held import Held
from ws_redislock._lock.hold import Hold
from ws_redislock._lock.options import LockOptions, seconds
from ws_redislock._lock.status import LockStatus
from ws_redislock._redis.clients import TRANSIENT, CommandClient, RedisSource, check_source, refuse, resolve
from ws_redislock._redis.keys import check_name, queue_keys
from ws_redislock.errors import ConfigError, UnavailableError, UsageError
from ws_redislock.observe import notify, observers_of

P = ParamSpec("P")
R = TypeVar("R")

_logger = logging.getLogger("ws_redislock")


class BaseLock:
    """
    One user's handle on one lock; use it for one acquisition at a time.

    Its parts: `AcquireProtocol` acquires and releases, `LockStatus` looks, `Held` is what was acquired.
    """

    def __init__(
        self,
        redis: RedisSource,
        name: str,
        options: LockOptions,
        *,
        kind: str,
        exclusive: bool,
        limit: int,
    ) -> None:
        check_source(redis)
        self._source = redis
        self._options = options
        self._name = name
        self._keys = queue_keys(
            options.key_prefix, kind, check_name(name), options.heartbeat_ms, limit, options.delay_ms
        )
        self._protocol = AcquireProtocol(name, self._keys, options, "x" if exclusive else "s")
        self._coordinator: Coordinator | None = None
        self._owned: Any = None  # Any: the client made from a URL, of the driver's untyped make
        self._held: Held | None = None
        self._depth = 0
        self._acquiring = False
        self._entered = False

    def __repr__(self) -> str:
        state = f"held, {self.remaining:.3f} s left" if self.locked else "not held"
        return f"<{type(self).__name__} {self._name!r} {state}>"

    def __del__(self) -> None:
        # Nobody can release it any more, so it must not be renewed for ever; its lease ends by itself.
        held = self.__dict__.get("_held")

        if held is not None and held.locked:
            held._stop_renewing()
            warnings.warn(
                f"{self!r} was dropped while it was held: release it, or use `async with`",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    async def __aenter__(self) -> Self:
        """Enter without acquiring; leaving releases the lock if it is held."""
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        await self.aclose()

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._name

    @property
    def expire(self) -> float:
        """The lease in seconds."""
        return self._options.expire

    @property
    def locked(self) -> bool:
        """Whether this object holds the lock now, by the clock; no I/O."""
        return self._held is not None and self._held.locked

    @property
    def remaining(self) -> float:
        """Seconds for which the lease is still valid; 0 when it is not held."""
        return 0.0 if self._held is None else self._held.remaining

    @property
    def fence(self) -> int:
        """
        The fencing token of the current acquisition, larger than all before it.

        Raises:
            UsageError: The lock was not acquired.
        """
        return self.current().fence

    def current(self) -> Held:
        """
        Return the current acquisition.

        Raises:
            UsageError: The lock was not acquired.
        """
        if self._held is None:
            raise UsageError(
                f"lock {self._name!r} is not held by this object: acquire it first", lock=self._name
            )

        return self._held

    def _holds(self, held: Held) -> bool:
        """Return whether an acquisition is this object's current one."""
        return self._held is held

    def _fresh(self) -> Self:
        """Return a new object for another acquisition of the same lock, with the same options."""
        clone = copy.copy(self)
        clone._protocol = self._protocol.fresh()
        clone._coordinator = clone._owned = clone._held = None
        clone._depth = 0
        clone._acquiring = clone._entered = False
        return clone

    def check(self) -> None:
        """
        Check that the lock is still held; no I/O.

        Raises:
            LockLost: The lease is over.
            UsageError: The lock was not acquired.
        """
        self.current().check()

    async def acquire(self, timeout: float | None = 0) -> bool:
        """
        Acquire the lock.

        Args:
            timeout: Seconds to wait for it: 0 tries once, None waits for ever.

        Returns:
            Whether it is held now.

        Raises:
            UsageError: This object holds or acquires it already, or belongs to another loop or process.
            UnavailableError: Redis could not be reached until the timeout (5 s when it tries
                once), refuses, or takes longer to answer than the lease lasts.
        """
        if timeout is not None and timeout != 0:
            seconds("timeout", timeout)

        coordinator = self._bind()

        if self._options.reentrant and self._reenter(coordinator):
            return True

        if self._held is not None and not self._held.lost:
            raise UsageError(
                f"lock {self._name!r} is held by this object already: use one object per acquisition, "
                f"or reentrant=True",
                lock=self._name,
            )

        if self._acquiring:
            raise UsageError(
                f"lock {self._name!r} is being acquired by this object already: "
                f"use one object per acquisition",
                lock=self._name,
            )

        self._acquiring = True

        try:
            held = await self._protocol.acquire(coordinator, timeout)

            if held is not None:
                self._held = held
                self._depth = 1

                if self._options.reentrant:
                    held.reentry = (self._keys.shared[0], current_task())
                    coordinator.reentrant[held.reentry] = held
        finally:
            self._acquiring = False

        return held is not None

    async def release(self) -> bool:
        """
        Release the lock.

        Returns:
            Whether it was held until now; False when it had been lost.

        Raises:
            UnavailableError: Redis did not answer. The lock is not held any more all the same;
                releasing it goes on in the background until the lease ends.
        """
        held = self._held

        if held is None:
            return False

        coordinator = self._bind()
        self._depth -= 1
        held.depth -= 1

        if self._depth == 0:
            self._held = None

        if held.depth > 0:
            return held.locked

        if held.reentry in coordinator.reentrant and coordinator.reentrant[held.reentry] is held:
            del coordinator.reentrant[held.reentry]

        left = held._end()

        if not left:
            self._protocol.undo_late(coordinator, held)
            return False

        if notified := observers_of(self._options.observer):
            notify(notified, "released", self._name, boot_time() - held.since)

        return await self._protocol.release(coordinator, held, left)

    async def renew(self) -> bool:
        """
        Begin the lease anew, beside what the watchdog does.

        Returns:
            Whether the lock is still held.

        Raises:
            UnavailableError: Redis did not answer; the lease still runs.
            UsageError: The lock was not acquired.
        """
        try:
            return await self.current().renew()
        except TRANSIENT as error:
            raise UnavailableError(f"lock {self._name!r}: Redis did not answer RENEW: {error}") from error
        except ResponseError as error:
            refuse(error, "renew", ("lock", self._name))
            raise

    async def exists(self) -> bool:
        """Return whether the lock has a holder now, wherever it is."""
        return bool(await self.holders())

    async def owner(self) -> str | None:
        """Return the token of the holder (of several: the one whose lease ends first), or None."""
        holders = await self.holders()
        return holders[0] if holders else None

    async def holders(self) -> list[str]:
        """Return the tokens of all holders."""
        return await self._status().holders()

    async def waiters(self) -> int:
        """Return the length of the queue."""
        return await self._status().waiters()

    async def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until the lock has no holder, without acquiring it.

        It takes no place in the queue, so that it is not woken up: it looks when the lease may have
        ended, and in between at growing intervals of 1 s at most.

        Args:
            timeout: Seconds to wait, None for ever.

        Returns:
            Whether it was seen free in time.
        """
        return await self._status().wait(timeout)

    async def force_release(self) -> bool:
        """
        Take the lock away from its holder, which finds it lost.

        Returns:
            Whether it had a holder.
        """
        return await self._status().force_release()

    async def transfer(self) -> str:
        """
        Hand the acquisition to another object, also in another process, without releasing it.

        The lease is begun anew before, so that the other object has `expire` seconds to `adopt` it;
        until then it is not renewed.

        Returns:
            The token for `adopt`.

        Raises:
            LockLost: The lease is over.
            UnavailableError: Redis did not answer; the lock is still held by this object.
            UsageError: The lock was not acquired, or more than once (reentrant).
        """
        held = self.current()

        if held.depth > 1:
            raise UsageError(
                f"lock {self._name!r} is held {held.depth} times: transfer it where it is held once",
                lock=self._name,
            )

        if not await self.renew():
            raise held._loss()

        self._held = None
        self._depth = 0

        if held.reentry is not None:
            self._bind().reentrant.pop(held.reentry, None)

        held._end()
        return f"{held.token}/{held.fence}"

    async def adopt(self, token: str) -> bool:
        """
        Hold what another object has handed on by `transfer`, with the same fence.

        Args:
            token: What `transfer` returned.

        Returns:
            Whether the lock is held now; False when its lease has ended in the meantime.

        Raises:
            ConfigError: It is not such a token.
            UsageError: This object holds or acquires the lock already, or belongs to another loop or process.
            UnavailableError: Redis did not answer.
        """
        name, _, fence = str(token).partition("/")

        if not name or not fence.isdecimal():
            raise ConfigError(f"{token!r} is not a token of transfer()", lock=self._name)

        if self.locked or self._acquiring:
            raise UsageError(
                f"lock {self._name!r} is held or being acquired by this object already: "
                f"use one object per acquisition",
                lock=self._name,
            )

        coordinator = self._bind()
        self._acquiring = True

        try:
            held = await self._protocol.adopt(coordinator, name, int(fence))
        finally:
            self._acquiring = False

        if held is not None:
            self._held = held
            self._depth = 1

        return held is not None

    def hold(self, timeout: float | None = None) -> Hold:
        """
        Hold the lock for a block of code, which ends with `LockLost` when the lock is lost.

        A task is cancelled at once; a thread cannot be, and should call `check` while it works.

        Args:
            timeout: Seconds to wait for the lock: 0 tries once, None waits for ever.

        Returns:
            A context manager that yields a `Held`. It raises `LockNotAcquired` when the lock is
            not free in time, and `LockLost` when the lease did not last until the block's end.
        """
        return Hold(self, timeout)

    def wrap(
        self, timeout: float | None = None
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """
        Decorate a function: each call holds the lock on its own.

        Args:
            timeout: Seconds to wait for the lock, as in `hold`.

        Returns:
            The decorator.
        """

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
            @functools.wraps(function)
            async def locked(*args: P.args, **kwargs: P.kwargs) -> R:
                async with self._fresh() as lock, lock.hold(timeout):
                    return await function(*args, **kwargs)

            return locked

        return decorate

    async def aclose(self) -> None:
        """Release the lock if it is held, wait for what goes on in the background, close an own client."""
        try:
            while self._held is not None:
                await self.release()
        finally:
            await self._drain()

    def _own_client(self) -> CommandClient | None:
        """Return the client that this object closes: one made from a URL."""
        self._bind()
        return cast("CommandClient | None", self._owned)

    def _work_on(self, source: RedisSource) -> None:
        """Use another client from now on, with a coordinator of its own."""
        self._source = source
        self._coordinator = None

    async def _close_after_hold(self) -> None:
        """Close a client of its own after a ``hold()``, unless the object is in a block of its own."""
        if self._owned is not None and self._held is None and not self._entered:
            await self.aclose()

    def _status(self) -> LockStatus:
        return LockStatus(self._bind(), self._name, self._keys)

    def _bind(self) -> Coordinator:
        """Return the coordinator; the object belongs to its loop from then on."""
        if self._coordinator is None:
            client, owned = resolve(self._source)
            coordinator = coordinator_for(client)

            if coordinator.scripts.cluster and self._options.min_replicas:
                raise UsageError(
                    f"lock {self._name!r}: min_replicas works with a master and its replicas, not a cluster",
                    lock=self._name,
                )

            self._coordinator = coordinator

            if owned:
                self._owned = client
        elif self._coordinator.loop is not current_loop():
            self._coordinator.check_loop(self._name)

        return self._coordinator

    def _reenter(self, coordinator: Coordinator) -> bool:
        held = coordinator.reentrant.get((self._keys.shared[0], current_task()))

        if held is None or not held.locked or (self._held is not None and self._held is not held):
            return False

        self._held = held
        self._depth += 1
        held.depth += 1
        return True

    async def _drain(self) -> None:
        if self._coordinator is None:
            return

        try:
            await self._protocol.drain(owned=self._owned is not None)
        finally:
            if self._owned is not None:
                client, self._owned, coordinator, self._coordinator = (
                    self._owned,
                    None,
                    self._coordinator,
                    None,
                )

                try:
                    await coordinator.aclose()
                finally:
                    await client.aclose()
