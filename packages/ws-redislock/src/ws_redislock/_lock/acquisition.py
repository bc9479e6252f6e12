"""The conversation with Redis about one acquisition: entering, waiting, giving up, giving back."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError, ResponseError

from ws_redislock._coordination.coordinator import Coordinator, Job, Waiter
from ws_redislock._lease.cancel_scope import current_flow
from ws_redislock._lease.lease import Lease, boot_time
from ws_redislock._lock.held import Held
from ws_redislock._lock.options import LockOptions
from ws_redislock._lock.renewal import RenewalWatchdog
from ws_redislock._lock.status import BUDGET, LockStatus
from ws_redislock._redis.keys import QueueKeys
from ws_redislock._redis.script_client import HOPELESS, TRANSIENT, Reply, refuse
from ws_redislock._redis.scripts import load
from ws_redislock.errors import UnavailableError, WsError
from ws_redislock.observe import tell

__all__ = ("AcquireProtocol",)

_log = logging.getLogger("ws_redislock")

HELD, REFUSED = 1, -1
RELEASED_MS = 10_000
"""For how long the server remembers that an acquisition was released."""

ABANDONED_MS = 60_000
"""For how long the server refuses the late ENTER of an acquisition that was given up."""

GRACE = 0.2
"""Seconds that giving up waits for Redis to know of it; it goes on in the background then."""


class AcquireProtocol(LockStatus):
    """The part of a lock that acquires it and gives it back, once the user's call is found valid."""

    _delay_ms: int
    _depth: int
    _exclusive: bool
    _heartbeat_ms: int
    _held: Held | None
    _lease_ms: int
    _options: LockOptions
    _settling: set[Job]
    _spec: QueueKeys

    async def _acquire(self, coordinator: Coordinator, patience: float | None) -> bool:
        began = coordinator.time()
        observer = self._options.observer
        waiter = coordinator.new_waiter("x" if self._exclusive else "s")

        try:
            if patience == 0:
                sent_at, reply = await self._send_enter(coordinator, waiter.token, 0, BUDGET, waiter.doubt)
                acquired = reply[0] == HELD and self._grant(coordinator, waiter, reply[1], sent_at)

                # The reply came after the end of its own lease, or an earlier ENTER may still come.
                if not acquired and (reply[0] == HELD or waiter.doubtful):
                    self._settle(coordinator, waiter.token, self._options.expire)
            else:
                acquired = await self._wait_turn(
                    coordinator, waiter, None if patience is None else began + patience
                )
        except BaseException as error:
            self._settle(coordinator, waiter.token, self._options.expire)

            if not isinstance(error.__cause__, TRANSIENT):
                await coordinator.join(self._settling, GRACE)

            raise
        finally:
            coordinator.forget(waiter)

        if observer is not None:
            tell(
                observer.acquired if acquired else observer.not_acquired,
                self._name,
                coordinator.time() - began,
            )

        return acquired

    async def _wait_turn(self, coordinator: Coordinator, waiter: Waiter, until: float | None) -> bool:
        """ENTER until the lock is ours, waiting in between for the hint that it may be."""
        first = True
        late = 0

        while True:
            sent_at, reply = await self._ask(coordinator, waiter, until)
            state = reply[0]

            if state == HELD:
                if self._grant(coordinator, waiter, reply[1], sent_at):
                    return True

                late += 1

                if late == 3:
                    raise UnavailableError(
                        f"lock {self._name!r}: {late} replies in a row came after the end of their own lease "
                        f"of {self._options.expire:g} s: make it longer than Redis takes to answer",
                        lock=self._name,
                    )

                if until is None or coordinator.time() < until:
                    continue  # the reply came after the end of its own lease: ask again

                return await self._give_up(coordinator, waiter)

            late = 0

            if state == REFUSED:
                raise UnavailableError(f"lock {self._name!r}: the server gave up this acquisition; try again")

            if first and self._options.observer is not None:
                tell(self._options.observer.contended, self._name)

            first = False

            missed = await coordinator.queue_up(waiter, self._spec, reply[1] / 1000, until, sent_at)

            if missed and (until is None or coordinator.time() < until):
                continue

            if not await waiter.wait(until):
                return await self._give_up(coordinator, waiter)

    async def _give_up(self, coordinator: Coordinator, waiter: Waiter) -> bool:
        """Leave the queue; that goes on in the background when Redis is slow."""
        self._settle(coordinator, waiter.token, self._options.expire)
        await coordinator.join(self._settling, GRACE)
        return False

    async def _ask(
        self, coordinator: Coordinator, waiter: Waiter, until: float | None
    ) -> tuple[float, Reply]:
        """ENTER, through outages until the acquisition's own time is over."""
        pause = 0.1

        while True:
            budget = BUDGET if until is None else max(0.1, min(BUDGET, until - coordinator.time()))

            try:
                return await self._send_enter(
                    coordinator, waiter.token, self._heartbeat_ms, budget, waiter.doubt
                )
            except UnavailableError as error:
                passing = isinstance(error.__cause__, TRANSIENT) and not isinstance(error.__cause__, HOPELESS)

                if not passing or (until is not None and coordinator.time() + 0.001 >= until):
                    raise

                _log.warning("lock %r: still waiting, through an outage: %s", self._name, error)

            step = pause * random.uniform(0.5, 1.5)
            await coordinator.sleep(
                step if until is None else min(step, max(0.0, until - coordinator.time()))
            )
            pause = min(2 * pause, 2.0)

    def _send_enter(
        self,
        coordinator: Coordinator,
        token: str,
        heartbeat: int,
        budget: float,
        doubt: Callable[[], None],
    ) -> Awaitable[tuple[float, Reply]]:
        keys = self._keys.of(token)
        args = (token, self._lease_ms, heartbeat, self._limit, self._delay_ms)

        if self._options.min_replicas:
            return self._enter_replicated(coordinator, keys, args, budget, doubt)

        return coordinator.scripts.call(
            load("enter"),
            keys,
            args,
            what=("lock", self._name),
            budget=budget,
            fast=None if coordinator.contended(self._spec) else ("E", token, self._lease_ms, self._delay_ms),
            doubt=doubt,
        )

    async def _enter_replicated(
        self,
        coordinator: Coordinator,
        keys: tuple[bytes, ...],
        args: tuple[str | int, ...],
        budget: float,
        doubt: Callable[[], None],
    ) -> tuple[float, Reply]:
        replicas = self._options.min_replicas

        try:
            sent_at, reply, confirmed = await coordinator.scripts.confirmed(
                load("enter"), keys, args, replicas=replicas, within=min(budget, self._options.expire / 2)
            )
        except TRANSIENT as error:
            doubt()
            raise UnavailableError(f"lock {self._name!r}: Redis gave no answer: {error}") from error
        except ResponseError as error:
            refuse(error, "enter", ("lock", self._name))
            raise

        if reply[0] == HELD and confirmed < replicas:
            raise UnavailableError(
                f"lock {self._name!r}: only {confirmed} of {replicas} replicas confirmed it; it was given up",
                lock=self._name,
                confirmed=confirmed,
            )

        return sent_at, reply

    def _grant(self, coordinator: Coordinator, waiter: Waiter, fence: int, sent_at: float) -> bool:
        options = self._options
        token = waiter.token
        lease = Lease(options.expire, sent_at=sent_at, renewing=options.auto_renew)

        if not lease.valid(boot_time()):
            return False

        held = Held(
            name=self._name,
            token=token,
            fence=fence,
            lease=lease,
            coordinator=coordinator,
            since=sent_at,
            on_lost=options.on_lost,
            observer=options.observer,
        )
        held._begin(
            RenewalWatchdog(
                coordinator,
                lease,
                token,
                keys=self._keys.shared,
                args=(token, self._lease_ms, self._delay_ms),
                target=held,
                clock=boot_time,
            )
        )
        held.doubtful = waiter.doubtful
        self._held = held
        self._depth = 1

        if options.reentrant:
            held.reentry = (self._keys.shared[0], current_flow())
            coordinator.reentrant[held.reentry] = held

        return True

    def _settle(self, coordinator: Coordinator, token: str, budget: float) -> None:
        """Make sure in the background that an acquisition leaves nothing behind."""
        coordinator.settle(self._settling, self._abandon, coordinator, token, max(1.0, min(budget, 60.0)))

    async def _abandon(self, coordinator: Coordinator, token: str, budget: float) -> None:
        args = (token, self._limit, self._delay_ms, ABANDONED_MS)

        try:
            _, reply = await coordinator.scripts.call(
                load("abandon"), self._keys.of(token), args, what=("lock", self._name), budget=budget
            )
        except (WsError, RedisError, OSError, ValueError) as error:
            # The last two come out of the driver when its client is closed meanwhile.
            _log.warning(
                "lock %r: an acquisition could not be undone, and ends with its lease: %s", self._name, error
            )
            return

        coordinator.hint(reply[1:])

    def _undo_late(self, coordinator: Coordinator, held: Held) -> None:
        """Refuse an ENTER of a lost lock that may still be on its way."""
        if held.doubtful:
            self._settle(coordinator, held.token, self._options.expire)

    async def _send_release(self, coordinator: Coordinator, held: Held, left: float) -> bool:
        remember = ABANDONED_MS if held.doubtful else RELEASED_MS
        args = (held.token, self._limit, self._delay_ms, remember)
        simple = self._limit == 1 and self._delay_ms == 0 and not coordinator.contended(self._spec)

        try:
            _, reply = await coordinator.scripts.call(
                load("release"),
                self._keys.of(held.token),
                args,
                what=("lock", self._name),
                budget=max(1.0, min(BUDGET, left)),
                fast=("R", held.token, remember, 0) if simple else None,
            )
        except BaseException:
            self._settle(coordinator, held.token, left)
            raise

        if len(reply) > 1:
            coordinator.hint(reply[1:])

        if reply[0] != HELD:
            held._lose("the server did not know it any more when it was released")
            self._undo_late(coordinator, held)
            return False

        return True
