"""The one subscription of a coordinator: wake-ups by pub/sub, as hints that may be lost."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from redis.exceptions import RedisError

from ws_core.backoff import delay
from ws_core.errors import WsError
from ws_redislock._concurrency import READ_SLICE, Event, Job, Mutex, sleep, timeout, wait_event
from ws_redislock._lease.cancel_scope import raise_if_cancelled
from ws_redislock._lease.lease import boot_time
from ws_redislock._lease.timers import Timer, Timers
from ws_redislock._redis.clients import TRANSIENT
from ws_redislock._redis.script_client import ScriptClient

_logger = logging.getLogger("ws_redislock")

IDLE = 10.0
"""Seconds for which the subscription outlives the last waiter."""

BEGINNING = 1.0
"""Seconds for which a waiter waits for the subscription to begin; it goes on without it then."""

CONNECTING = 5.0
"""Seconds that subscribing may take; then it begins anew, on another connection."""

REFUSED = 30.0
"""Seconds for which a server that refused the subscription is left alone."""

QUIET = 5.0
"""Seconds without a message after which the server is sent a PING; twice this, and the subscription
begins anew: a connection can stop receiving without any error."""


class WakeupOwner(Protocol):
    """What a subscription serves: the coordinator."""

    id: str
    mutex: Mutex
    scripts: ScriptClient
    timers: Timers

    def time(self) -> float:
        """Return the loop's time."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether there is any local waiter."""
        ...

    def wake(self, tokens: Iterable[str | bytes]) -> None:
        """Wake the local waiters and holders behind tokens."""

    def look_at_all(self) -> None:
        """Look at every lock that has local waiters."""

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Job:
        """Run work in the background."""
        ...


class WakeupSubscription:
    """Listens for a coordinator while it has waiters, and a little longer."""

    def __init__(self, owner: WakeupOwner) -> None:
        self._owner = owner
        self._channel = f"wsl:hub:{owner.id}"
        self._job: Job | None = None
        self._idle_timer: Timer | None = None
        self._ready = Event()
        self._stopped = False
        self._since = 0.0  # when the server last confirmed the subscription, by `boot_time`
        self._pause_until = 0.0
        self._late = False  # whether a waiter went on without the subscription

    async def begin(self, until: float | None, asked_at: float) -> bool:
        """Make sure that the coordinator listens; return whether that began only after `asked_at`."""
        owner = self._owner

        with owner.mutex:
            if self._idle_timer is not None:
                owner.timers.cancel(self._idle_timer)
                self._idle_timer = None

            if self.refused:
                return False

            if self._job is None or self._job.done():
                self._ready = Event()
                self._stopped = False
                self._job = owner.spawn(self._listen)

            ready = self._ready

        if not ready.is_set():
            left = BEGINNING if until is None else max(0.0, min(BEGINNING, until - owner.time()))

            if not await wait_event(ready, left):
                self._late = True

        # A wake-up that came between the ENTER and the subscription was lost: the waiter looks again.
        return ready.is_set() and self._since >= asked_at

    @property
    def refused(self) -> bool:
        """Whether the server has refused the subscription, and is not asked again for now."""
        return self._owner.time() < self._pause_until

    def stop_when_idle(self) -> None:
        """Stop listening after a while without waiters."""
        if self._job is not None and self._idle_timer is None:
            self._idle_timer = self._owner.timers.call_later(IDLE, self._stop_if_idle)

    def stop(self) -> None:
        """Stop listening now."""
        self._stopped = True

        if self._idle_timer is not None:
            self._owner.timers.cancel(self._idle_timer)
            self._idle_timer = None

        if self._job is not None:
            self._job.cancel()
            self._job = None

    def _stop_if_idle(self) -> None:
        with self._owner.mutex:
            self._idle_timer = None

            if not self._owner.waiting:
                self.stop()

    async def _listen(self) -> None:
        ready = self._ready

        try:
            await self._keep_subscribed(ready)
        finally:
            ready.set()  # whoever waits for the subscription goes on without it

    async def _keep_subscribed(self, ready: Event) -> None:
        failures = 0

        while not self._stopped:
            raise_if_cancelled()
            pubsub = None

            try:
                pubsub = self._owner.scripts.subscription()

                async with timeout(CONNECTING):
                    await pubsub.subscribe(self._channel)

                raise_if_cancelled()

                if not await self._read(pubsub, ready):
                    return

                failures = 0
            except Exception as error:  # noqa: BLE001 - a client that is closed meanwhile raises anything
                if isinstance(error, RedisError | WsError) and not isinstance(error, TRANSIENT):
                    self._pause_until = self._owner.time() + REFUSED
                    _logger.warning("no wake-ups, so waiters look at their locks by themselves: %s", error)
                    self._owner.look_at_all()
                    return

                if not self._owner.waiting:
                    return  # perhaps the client was closed; the next waiter begins anew

                _logger.debug("the subscription to wake-ups ended, and begins anew: %r", error)
            finally:
                if pubsub is not None:
                    with contextlib.suppress(Exception):
                        await pubsub.aclose()

            failures += 1
            await sleep(delay(failures, 0.075, 1.5))

    async def _read(self, pubsub: Any, ready: Event) -> bool:  # Any: untyped in the driver
        """Act on messages until the end; return whether the subscription receives nothing any more."""
        asked = False
        quiet_since = self._owner.time()

        while not self._stopped:
            began = self._owner.time()

            async with timeout(READ_SLICE + CONNECTING):  # the driver may connect again in between
                message = await pubsub.parse_response(block=False, timeout=READ_SLICE)

            raise_if_cancelled()
            now = self._owner.time()

            if message is not None:
                quiet_since, asked = now, False

                if not self._take(message, ready):
                    return False
            elif now - began < READ_SLICE / 2:
                quiet_since, asked = now, False  # the reply to the driver's own health check
            elif now - quiet_since < QUIET * 0.9:  # a read may end a little before its time
                continue
            elif asked:
                _logger.warning("the subscription to wake-ups receives nothing any more, and begins anew")
                return True
            elif self._owner.waiting:
                await pubsub.ping()
                quiet_since, asked = now, True

        return False

    def _take(self, message: list[Any], ready: Event) -> bool:  # Any: as the client decodes
        """Act on a message; return whether to go on."""
        kind = message[0]

        if kind in (b"message", "message"):
            self._owner.wake(message[2].split())
        elif kind in (b"subscribe", "subscribe"):
            self._since = boot_time()

            if not ready.is_set():
                ready.set()

                if self._late:
                    self._late = False
                    self._owner.look_at_all()
            elif self._owner.waiting:
                self._owner.look_at_all()  # the driver has connected again: messages may be lost
            else:
                return False  # the same, perhaps after its client was closed

        return True
