# Written by tools/generate_sync_locks.py from ws_redislock/_lock/acquisition.py; do not edit.
"""The conversation with Redis about one acquisition: entering, waiting, giving up, releasing."""

from __future__ import annotations

import logging
from collections.abc import Callable

from redis.exceptions import RedisError, ResponseError

from ws_core.backoff import delay
from ws_redislock.sync._concurrency import Job, sleep, wait_jobs
from ws_redislock.sync._coordination.coordinator import Coordinator, Waiter
from ws_redislock._lease.lease import Lease, boot_time
from ws_redislock.sync._lock.held import Held
from ws_redislock.sync._lock.options import BUDGET, RELEASED_MS, LockOptions
from ws_redislock.sync._lock.renewal import RenewalWatchdog
from ws_redislock.sync._redis.clients import HOPELESS, TRANSIENT, refuse
from ws_redislock._redis.keys import QueueKeys
from ws_redislock.sync._redis.script_client import Reply
from ws_redislock._redis.scripts import load
from ws_redislock.errors import UnavailableError, WsError
from ws_redislock.observe import notify, observers_of

_logger = logging.getLogger("ws_redislock")

HELD, HANDED_OVER, REFUSED = 1, 2, -1
ABANDONED_MS = 60_000
"""For how long the server refuses the late ENTER of an acquisition that was given up."""

GIVING_UP = 0.2
"""Seconds that giving up waits for Redis to know of it; it goes on in the background then."""


class AcquireProtocol:
    """Acquires and releases one lock, once the user's call was found valid."""

    __slots__ = (
        "_keys",
        "_kind",
        "_name",
        "_options",
        "_settling",
        "_silent",
    )

    def __init__(self, name: str, keys: QueueKeys, options: LockOptions, kind: str) -> None:
        self._name = name
        self._keys = keys
        self._options = options
        self._kind = kind  # of its tokens: "x" for exclusive, "s" for shared
        self._settling: set[Job] = set()
        self._silent = False  # whether the server did not answer the last acquisition

    def fresh(self) -> AcquireProtocol:
        """Return the same for another object, with background jobs of its own."""
        return AcquireProtocol(self._name, self._keys, self._options, self._kind)

    def acquire(self, coordinator: Coordinator, timeout: float | None) -> Held | None:
        """Acquire the lock within so many seconds; return None when it was not free in time."""
        self._silent = False
        began = coordinator.time()
        waiter = coordinator.new_waiter(self._kind)
        waiter.lease_ms = 0 if self._options.min_replicas else self._options.lease_ms

        try:
            if timeout == 0:
                # Once, without a place in the queue (no heartbeat).
                sent_at, reply = self._send_enter(coordinator, waiter, 0, BUDGET)
                held = self._grant(coordinator, waiter, reply[1], sent_at) if reply[0] == HELD else None

                # The reply came after the end of its own lease, or an earlier ENTER may still arrive.
                if held is None and (reply[0] == HELD or waiter.uncertain):
                    self._undo(coordinator, waiter.token, self._options.expire)
            else:
                held = self._wait_turn(
                    coordinator, waiter, None if timeout is None else began + timeout
                )
        except BaseException as error:
            # Whatever happened, an ENTER may be in flight or done: its outcome must not stay behind. A
            # server that did not answer just now is not waited for a second time.
            self._undo(coordinator, waiter.token, self._options.expire)

            self._silent = isinstance(error.__cause__, TRANSIENT)

            if not self._silent:
                wait_jobs(self._settling, GIVING_UP)

            raise
        finally:
            coordinator.remove_waiter(waiter)

        if notified := observers_of(self._options.observer):
            waited = coordinator.time() - began
            notify(notified, "not_acquired" if held is None else "acquired", self._name, waited)

        return held

    def release(self, coordinator: Coordinator, held: Held, left: float) -> bool:
        """Release an acquisition whose lease is valid for so many seconds; return whether it was held."""
        remember = ABANDONED_MS if held.uncertain else RELEASED_MS
        keys = self._keys.of(held.token)
        args: tuple[str | int, ...] = (held.token, self._keys.limit, self._options.delay_ms, remember)
        following = coordinator.first_waiter(self._keys)

        # Our first waiter may be the first of all: then the RELEASE hands the lock over, in one round trip.
        if following is not None and following.lease_ms:
            keys = (*keys, self._keys.of(following.token)[-1])
            args = (*args, following.token, following.lease_ms, self._options.fence_ms)

        try:
            # A lock whose lease has ended need not be released, but one attempt should always have time.
            sent_at, reply = coordinator.scripts.call(
                load("release"),
                keys,
                args,
                what=("lock", self._name),
                budget=max(1.0, min(BUDGET, left)),
            )
        except BaseException:
            self._undo(coordinator, held.token, left)
            raise

        if reply[0] == HANDED_OVER:
            coordinator.grant(reply[2], sent_at, reply[1])
            coordinator.wake(reply[3:])
            return True

        if len(reply) > 1:
            coordinator.wake(reply[1:])

        if reply[0] != HELD:
            held._lose("the server did not know it any more when it was released")
            self.undo_late(coordinator, held)
            return False

        return True

    def adopt(self, coordinator: Coordinator, token: str, fence: int) -> Held | None:
        """Renew an acquisition that another object has handed on, and hold it."""
        sent_at, reply = coordinator.scripts.call(
            load("renew"),
            self._keys.shared,
            (token, self._options.lease_ms, self._options.delay_ms, self._options.fence_ms),
            what=("lock", self._name),
            budget=min(BUDGET, self._options.expire),
        )
        return self._grant(coordinator, Waiter(token), fence, sent_at) if reply[0] == HELD else None

    def undo_late(self, coordinator: Coordinator, held: Held) -> None:
        """Refuse an ENTER of a lost lock that may still arrive."""
        if held.uncertain:
            self._undo(coordinator, held.token, self._options.expire)

    def drain(self, *, owned: bool) -> None:
        """
        Wait for what goes on in the background.

        After a server's silence it goes on without us, unless it needs a client that is closed afterwards.
        """
        wait_jobs(self._settling, GIVING_UP if self._silent and not owned else BUDGET)

    def _wait_turn(self, coordinator: Coordinator, waiter: Waiter, until: float | None) -> Held | None:
        """
        ENTER until the lock is ours, waiting in between for the hint that it may be.

        The server decides and keeps the queue; a wake-up is only a reason to ask again. So a lost wake-up
        costs time (until the next heartbeat's look), a needless one a round trip, and neither the order.
        """
        first = True
        late = 0

        while True:
            sent_at, reply = self._enter(coordinator, waiter, until)
            state = reply[0]

            if state == HELD:
                held = self._grant(coordinator, waiter, reply[1], sent_at)

                if held is not None:
                    return held

                # The reply took longer than the lease lasts: the server may have granted the lock to another
                # by now. ENTER is repeatable, so ask again, but not for ever: such a lease is too short.
                late += 1

                if late == 3:
                    raise UnavailableError(
                        f"lock {self._name!r}: {late} replies in a row came after the end of their own lease "
                        f"of {self._options.expire:g} s: make it longer than Redis takes to answer",
                        lock=self._name,
                    )

                if until is not None and coordinator.time() >= until:
                    break

                continue

            late = 0

            # An ABANDON of this token has overtaken its ENTER: only a new token can enter.
            if state == REFUSED:
                raise UnavailableError(f"lock {self._name!r}: the server gave up this acquisition; try again")

            if first:
                notify(observers_of(self._options.observer), "contended", self._name)
                first = False

            # The subscription must stand before we rely on wake-ups. One that began only after our ENTER was
            # sent may have missed the release, so that the lock is looked at once more.
            missed = coordinator.enqueue(waiter, self._keys, reply[1] / 1000, until, sent_at)

            if missed and (until is None or coordinator.time() < until):
                continue

            if not waiter.wait(until):
                break

        # The time is over: leave the queue. That goes on in the background when Redis is slow.
        self._undo(coordinator, waiter.token, self._options.expire)
        wait_jobs(self._settling, GIVING_UP)
        return None

    def _enter(
        self, coordinator: Coordinator, waiter: Waiter, until: float | None
    ) -> tuple[float, Reply]:
        """ENTER, through outages until the acquisition's own time is over."""
        if waiter.granted is not None:  # by the RELEASE of another local holder
            (sent_at, fence), waiter.granted = waiter.granted, None
            return sent_at, [HELD, fence]

        failures = 0

        while True:
            budget = BUDGET if until is None else max(0.1, min(BUDGET, until - coordinator.time()))

            try:
                return self._send_enter(coordinator, waiter, self._keys.heartbeat, budget)
            except UnavailableError as error:
                passing = isinstance(error.__cause__, TRANSIENT) and not isinstance(error.__cause__, HOPELESS)

                if not passing or (until is not None and coordinator.time() + 0.001 >= until):
                    raise

                _logger.warning("lock %r: still waiting, through an outage: %s", self._name, error)

            failures += 1
            step = delay(failures, 0.15, 3.0, jitter=2 / 3)
            sleep(step if until is None else min(step, max(0.0, until - coordinator.time())))

    def _send_enter(
        self, coordinator: Coordinator, waiter: Waiter, heartbeat: int, budget: float
    ) -> tuple[float, Reply]:
        token = waiter.token
        keys = self._keys.of(token)
        args = (
            token,
            self._options.lease_ms,
            heartbeat,
            self._keys.limit,
            self._options.delay_ms,
            self._options.fence_ms,
        )

        if self._options.min_replicas:
            return self._enter_replicated(coordinator, keys, args, budget, waiter.mark_uncertain)

        return coordinator.scripts.call(
            load("enter"),
            keys,
            args,
            what=("lock", self._name),
            budget=budget,
            doubt=waiter.mark_uncertain,
        )

    def _enter_replicated(
        self,
        coordinator: Coordinator,
        keys: tuple[bytes, ...],
        args: tuple[str | int, ...],
        budget: float,
        doubt: Callable[[], None],
    ) -> tuple[float, Reply]:
        replicas = self._options.min_replicas

        try:
            sent_at, reply, confirmed = coordinator.scripts.confirmed(
                load("enter"), keys, args, replicas=replicas, within=min(budget, self._options.expire / 2)
            )
        except TRANSIENT as error:
            doubt()
            raise UnavailableError(f"lock {self._name!r}: Redis did not answer: {error}") from error
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

    def _grant(self, coordinator: Coordinator, waiter: Waiter, fence: int, sent_at: float) -> Held | None:
        """Begin to hold the lock; return None when the lease is over by now."""
        options = self._options
        token = waiter.token
        lease = Lease(options.expire, sent_at=sent_at, renewing=options.auto_renew)

        if not lease.valid(boot_time()):
            return None

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
                args=(token, self._options.lease_ms, self._options.delay_ms, self._options.fence_ms),
                target=held,
                clock=boot_time,
            )
        )
        held.uncertain = waiter.uncertain
        return held

    def _undo(self, coordinator: Coordinator, token: str, budget: float) -> None:
        """Make sure in the background that an acquisition leaves nothing behind."""
        # Not for longer than the server would refuse the late ENTER.
        seconds = max(1.0, min(budget, ABANDONED_MS / 1000))
        coordinator.settle(self._settling, self._abandon, coordinator, token, seconds)

    def _abandon(self, coordinator: Coordinator, token: str, budget: float) -> None:
        args = (token, self._keys.limit, self._options.delay_ms, ABANDONED_MS)

        try:
            _, reply = coordinator.scripts.call(
                load("abandon"), self._keys.of(token), args, what=("lock", self._name), budget=budget
            )
        except (WsError, RedisError, OSError, ValueError) as error:
            # The last two come out of the driver when its client is closed meanwhile.
            _logger.warning(
                "lock %r: an acquisition could not be undone, and ends with its lease: %s", self._name, error
            )
            return

        coordinator.wake(reply[1:])
