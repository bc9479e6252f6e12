"""What all locks have in common: acquire, hold, release, and everything that can go wrong between."""

from __future__ import annotations

import copy
import functools
import logging
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from redis.exceptions import RedisError

from ws_redislock._calls import TRANSIENT, RedisSource, Reply, resolve
from ws_redislock._held import Held
from ws_redislock._hold import Hold
from ws_redislock._hub import Hub, Job, Waiter, hub_for
from ws_redislock._keys import check_name, line_spec
from ws_redislock._lease import Lease, boot_time
from ws_redislock._look import BUDGET, Looking
from ws_redislock._options import LockOptions, seconds
from ws_redislock._scope import current_flow
from ws_redislock._script import load
from ws_redislock._watch import Watch
from ws_redislock.errors import UnavailableError, UsageError, WsError

__all__ = ("BaseLock",)

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("ws_redislock")

HELD, REFUSED = 1, -1
RELEASED_MS = 10_000
"""For how long the server remembers that an acquisition was released."""

ABANDONED_MS = 60_000
"""For how long the server refuses the late ENTER of an acquisition that was given up."""


class BaseLock(Looking):
    """
    One user's handle on one lock; use it for one acquisition at a time.

    Args:
        redis: A client of ``redis.asyncio``, a pool that holds one, or a URL.
        name: The lock's name, 1 to 512 bytes of UTF-8.
        options: The checked options.
        kind: What kind of lock this is; each kind has names of its own.
        exclusive: Whether nobody else may hold it.
        limit: How many may hold it otherwise.
    """

    def __init__(  # noqa: PLR0913 - options, keyword-only
        self,
        redis: RedisSource,
        name: str,
        options: LockOptions,
        *,
        kind: str,
        exclusive: bool,
        limit: int,
    ) -> None:
        self._source = redis
        self._options = options
        self._exclusive = exclusive
        self._name = name
        self._lease_ms = max(1, round(options.expire * 1000))
        self._delay_ms = round(options.lock_delay * 1000)
        self._heartbeat_ms = round(options.heartbeat * 1000)
        self._limit = limit
        self._spec = line_spec(kind, check_name(name), self._heartbeat_ms, limit, self._delay_ms)
        self._keys = self._spec.keys
        self._hub: Hub | None = None
        self._owned: Any = None  # Any: the client made from a URL, of the driver's untyped make
        self._held: Held | None = None
        self._depth = 0
        self._acquiring = False
        self._settling: set[Job] = set()

    def __repr__(self) -> str:
        state = f"held, {self.remaining:.3f} s left" if self.locked else "not held"
        return f"<{type(self).__name__} {self._name!r} {state}>"

    def __del__(self) -> None:
        # Nobody can release it any more, so it must not be renewed for ever; its lease ends by itself.
        held = self.__dict__.get("_held")

        if held is not None and held.locked:
            held.forsake()
            warnings.warn(
                f"{self!r} was dropped while it was held: release it, or use `async with`",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    async def __aenter__(self) -> Self:
        """Enter without acquiring; leaving releases the lock if it is held."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    def holds(self, held: Held) -> bool:
        """Tell whether an acquisition is this object's current one."""
        return self._held is held

    def fresh(self) -> Self:
        """Return a new object for another acquisition of the same lock, with the same options."""
        clone = copy.copy(self)
        unused: dict[str, Any] = {
            "_hub": None,
            "_owned": None,
            "_held": None,
            "_depth": 0,
        }  # Any: as they are
        clone.__dict__.update(unused, _acquiring=False, _settling=set())
        return clone

    def check(self) -> None:
        """
        Check that the lock is still held; no I/O.

        Raises:
            LockLost: The lease is over.
            UsageError: The lock was not acquired.
        """
        self.current().check()

    async def acquire(self, timeout: float | None = 0) -> bool:  # noqa: ASYNC109 - a lock's timeout ends its waiting, and leaves the queue in order
        """
        Acquire the lock.

        Args:
            timeout: Seconds to wait for it: 0 tries once, None waits for ever.

        Returns:
            Whether it is held now.

        Raises:
            UsageError: This object holds or acquires it already, or belongs to another loop.
            UnavailableError: Redis cannot be reached.
        """
        if timeout:
            seconds("timeout", timeout)

        hub = self._bind()

        if self._options.reentrant and self._reenter(hub):
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
            return await self._acquire(hub, timeout)
        finally:
            self._acquiring = False

    async def release(self) -> bool:
        """
        Give the lock back.

        Returns:
            Whether it was held until now; False when it had been lost.

        Raises:
            UnavailableError: Redis gave no answer. The lock is not held any more all the same;
                releasing it goes on in the background until the lease ends.
        """
        held = self._held

        if held is None:
            return False

        self._depth -= 1
        held.depth -= 1

        if self._depth == 0:
            self._held = None

        if held.depth > 0:
            return held.locked

        hub = self._bind()

        if held.reentry in hub.reentrant and hub.reentrant[held.reentry] is held:
            del hub.reentrant[held.reentry]

        left = held.end()

        if not left:
            return False

        if self._options.observer is not None:
            self._options.observer.released(self._name, boot_time() - held.since)

        args = (held.token, self._limit, self._delay_ms, RELEASED_MS)

        try:
            _, reply = await hub.caller.call(
                load("release"),
                self._keys.of(held.token),
                args,
                what=("lock", self._name),
                budget=max(1.0, min(BUDGET, left)),
                fast=("R", held.token, RELEASED_MS, 0) if self._limit == 1 and self._delay_ms == 0 else None,
            )
        except BaseException:
            self._settle(hub, held.token, left)
            raise

        if len(reply) > 1:
            hub.hint(reply[1:])

        if reply[0] != HELD:
            held.lose("the server did not know it any more when it was released")
            return False

        return True

    async def renew(self) -> bool:
        """
        Begin the lease anew, beside what the watchdog does.

        Returns:
            Whether the lock is still held.

        Raises:
            UnavailableError: Redis gave no answer; the lease still runs.
            UsageError: The lock was not acquired.
        """
        try:
            return await self.current().renew()
        except TRANSIENT as error:
            raise UnavailableError(f"lock {self._name!r}: Redis gave no answer to RENEW: {error}") from error

    def hold(self, timeout: float | None = None) -> Hold:
        """
        Hold the lock for a block of code, which is cancelled when the lock is lost.

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
        Decorate a coroutine function: each call holds the lock on its own.

        Args:
            timeout: Seconds to wait for the lock, as in `hold`.

        Returns:
            The decorator.
        """

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
            @functools.wraps(function)
            async def locked(*args: P.args, **kwargs: P.kwargs) -> R:
                async with self.fresh() as lock, lock.hold(timeout):
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

    def _bind(self) -> Hub:
        """Return the hub; the object belongs to the loop of its first use from then on."""
        if self._hub is None:
            client, owned = resolve(self._source)
            self._hub = hub_for(client)

            if owned:
                self._owned = client
        else:
            self._hub.check_flow(self._name)

        return self._hub

    def _reenter(self, hub: Hub) -> bool:
        held = hub.reentrant.get((self._keys.shared[0], current_flow()))

        if held is None or not held.locked or (self._held is not None and self._held is not held):
            return False

        self._held = held
        self._depth += 1
        held.depth += 1
        return True

    async def _acquire(self, hub: Hub, patience: float | None) -> bool:
        began = hub.time()
        observer = self._options.observer
        waiter = hub.new_waiter("x" if self._exclusive else "s")

        try:
            if patience == 0:
                sent_at, reply = await self._send_enter(hub, waiter.token, 0, BUDGET)
                acquired = reply[0] == HELD and self._grant(hub, waiter.token, reply[1], sent_at)

                if reply[0] == HELD and not acquired:  # the reply came after the end of its own lease
                    self._settle(hub, waiter.token, self._options.expire)
            else:
                acquired = await self._wait_turn(hub, waiter, None if patience is None else began + patience)
        except BaseException:
            self._settle(hub, waiter.token, self._options.expire)
            raise
        finally:
            hub.forget(waiter)

        if observer is not None:
            (observer.acquired if acquired else observer.not_acquired)(self._name, hub.time() - began)

        return acquired

    async def _wait_turn(self, hub: Hub, waiter: Waiter, until: float | None) -> bool:
        """ENTER until the lock is ours, waiting in between for the hint that it may be."""
        first = True

        while True:
            budget = BUDGET if until is None else max(0.1, min(BUDGET, until - hub.time()))
            sent_at, reply = await self._send_enter(hub, waiter.token, self._heartbeat_ms, budget)
            state = reply[0]

            if state == HELD:
                if self._grant(hub, waiter.token, reply[1], sent_at):
                    return True

                continue  # the reply came after the end of its own lease: ask again

            if state == REFUSED:
                raise UnavailableError(f"lock {self._name!r}: the server gave up this acquisition; try again")

            if first and self._options.observer is not None:
                self._options.observer.contended(self._name)

            first = False

            if await hub.queue_up(waiter, self._spec, reply[1] / 1000, until):
                continue

            if not await waiter.wait(until):
                self._settle(hub, waiter.token, self._options.expire)
                await hub.join(self._settling, BUDGET)
                return False

    def _send_enter(
        self, hub: Hub, token: str, heartbeat: int, budget: float
    ) -> Awaitable[tuple[float, Reply]]:
        keys = self._keys.of(token)
        args = (token, self._lease_ms, heartbeat, self._limit, self._delay_ms)

        if self._options.min_replicas:
            return self._enter_replicated(hub, keys, args, budget)

        return hub.caller.call(
            load("enter"),
            keys,
            args,
            what=("lock", self._name),
            budget=budget,
            fast=("E", token, self._lease_ms, self._delay_ms),
        )

    async def _enter_replicated(
        self, hub: Hub, keys: tuple[bytes, ...], args: tuple[str | int, ...], budget: float
    ) -> tuple[float, Reply]:
        replicas = self._options.min_replicas

        try:
            sent_at, reply, confirmed = await hub.caller.confirmed(
                load("enter"), keys, args, replicas=replicas, within=min(budget, self._options.expire / 2)
            )
        except TRANSIENT as error:
            raise UnavailableError(f"lock {self._name!r}: Redis gave no answer: {error}") from error

        if reply[0] == HELD and confirmed < replicas:
            raise UnavailableError(
                f"lock {self._name!r}: only {confirmed} of {replicas} replicas confirmed it; it was given up",
                lock=self._name,
                confirmed=confirmed,
            )

        return sent_at, reply

    def _grant(self, hub: Hub, token: str, fence: int, sent_at: float) -> bool:
        options = self._options
        lease = Lease(options.expire, sent_at=sent_at, renewing=options.auto_renew)

        if not lease.valid(boot_time()):
            return False

        held = Held(
            name=self._name,
            token=token,
            fence=fence,
            lease=lease,
            hub=hub,
            since=sent_at,
            on_lost=options.on_lost,
            observer=options.observer,
        )
        held.begin(
            Watch(
                hub,
                lease,
                token,
                keys=self._keys.shared,
                args=(token, self._lease_ms, self._delay_ms),
                target=held,
                clock=boot_time,
            )
        )
        self._held = held
        self._depth = 1

        if options.reentrant:
            held.reentry = (self._keys.shared[0], current_flow())
            hub.reentrant[held.reentry] = held

        return True

    def _settle(self, hub: Hub, token: str, budget: float) -> None:
        """Make sure in the background that an acquisition leaves nothing behind."""
        hub.settle(self._settling, self._abandon, hub, token, max(1.0, min(budget, 60.0)))

    async def _abandon(self, hub: Hub, token: str, budget: float) -> None:
        args = (token, self._limit, self._delay_ms, ABANDONED_MS)

        try:
            _, reply = await hub.caller.call(
                load("abandon"), self._keys.of(token), args, what=("lock", self._name), budget=budget
            )
        except (WsError, RedisError) as error:
            _log.warning(
                "lock %r: an acquisition could not be undone, and ends with its lease: %s", self._name, error
            )
            return

        hub.hint(reply[1:])

    async def _drain(self) -> None:
        if self._hub is None:
            return

        try:
            await self._hub.join(self._settling, BUDGET)
        finally:
            if self._owned is not None:
                client, self._owned, hub, self._hub = self._owned, None, self._hub, None

                try:
                    await hub.aclose()
                finally:
                    await client.aclose()
