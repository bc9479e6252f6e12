"""The one subscription of a coordinator: wake-ups by pub/sub, as hints that may be lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from redis.exceptions import RedisError

from ws_core.errors import WsError
from ws_redislock._lease.cancel_scope import raise_if_cancelled
from ws_redislock._lease.lease import boot_time
from ws_redislock._redis.script_client import TRANSIENT, ScriptClient

__all__ = ("WakeupSubscription",)

_log = logging.getLogger("ws_redislock")

LINGER = 10.0
"""Seconds for which the subscription outlives the last waiter."""

PATIENCE = 1.0
"""Seconds that a waiter gives the subscription to begin; it goes on without it then."""

CONNECTING = 5.0
"""Seconds that subscribing may take; then it begins anew, on another connection."""

QUIET = 5.0
"""Seconds without a message after which the server is asked whether it is there; twice this, and
the subscription begins anew: a connection can go deaf without any error."""


class WakeupOwner(Protocol):
    """What a subscription serves: the coordinator."""

    id: str
    loop: asyncio.AbstractEventLoop
    scripts: ScriptClient

    @property
    def waiting(self) -> bool:
        """Whether any local task stands in a queue."""
        ...

    def hint(self, tokens: Iterable[str | bytes]) -> None:
        """Wake the local tasks and holders behind tokens."""

    def look_at_all(self) -> None:
        """Look at every lock that a local task waits for."""

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run work in the background."""
        ...


class WakeupSubscription:
    """
    Listens for a coordinator while anybody waits, and a little longer.

    Args:
        coordinator: The coordinator; its channel is named after its id.
    """

    def __init__(self, coordinator: WakeupOwner) -> None:
        self._coordinator = coordinator
        self._channel = f"wsl:hub:{coordinator.id}"
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._subscribed: asyncio.Future[None] | None = None
        self._since = 0.0  # when the server last confirmed the subscription, by `boot_time`
        self._pause_until = 0.0
        self._late = False  # whether somebody went on without the subscription

    async def begin(self, until: float | None, asked_at: float) -> bool:
        """
        Make sure that the coordinator listens.

        Args:
            until: The loop's time at which to give up, or None.
            asked_at: When the caller asked for its lock, by `boot_time`.

        Returns:
            Whether listening began only after that: what happened in between must be looked at.
        """
        loop = self._coordinator.loop

        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

        if self._coordinator.loop.time() < self._pause_until:
            return False

        if self._task is None or self._task.done():
            self._subscribed = loop.create_future()
            self._task = self._coordinator.spawn(self._listen)

        if self._subscribed is None:
            return False

        if self._subscribed.done():
            return self._since >= asked_at

        patience = PATIENCE if until is None else max(0.0, min(PATIENCE, until - loop.time()))
        await asyncio.wait(
            [self._subscribed, self._task], timeout=patience, return_when=asyncio.FIRST_COMPLETED
        )
        self._late = self._late or not self._subscribed.done()
        return self._subscribed.done()

    def linger(self) -> None:
        """Nobody waits any more: stop listening after a while."""
        if self._task is not None and self._timer is None:
            self._timer = self._coordinator.loop.call_later(LINGER, self._stop_if_idle)

    def stop(self) -> None:
        """Stop listening now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _stop_if_idle(self) -> None:
        self._timer = None

        if not self._coordinator.waiting:
            self.stop()

    async def _listen(self) -> None:
        pause = 0.05

        while True:
            raise_if_cancelled()
            pubsub = self._coordinator.scripts.pubsub()

            try:
                async with asyncio.timeout(CONNECTING):
                    await pubsub.subscribe(self._channel)

                raise_if_cancelled()

                if not await self._hear(pubsub):
                    return

                pause = 0.05
            except TRANSIENT:
                if not self._coordinator.waiting:
                    return  # perhaps the client was closed; whoever waits next begins anew
            except (RedisError, WsError) as error:
                self._pause_until = self._coordinator.loop.time() + 30.0
                _log.warning("no wake-ups, so waiters look at their locks by themselves: %s", error)
                return
            finally:
                with contextlib.suppress(*TRANSIENT):
                    await pubsub.aclose()

            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 1.0)

    async def _hear(self, pubsub: Any) -> bool:  # Any: untyped in the driver
        """Act on messages until the end; tell whether the subscription went deaf."""
        asked = False

        while True:
            since = self._coordinator.loop.time()

            async with asyncio.timeout(QUIET + CONNECTING):  # the driver may connect again in between
                message = await pubsub.parse_response(block=False, timeout=QUIET)

            raise_if_cancelled()

            if message is not None:
                asked = False

                if not self._take(message):
                    return False
            elif self._coordinator.loop.time() - since < QUIET / 2:
                asked = False  # the reply to the driver's own health check
            elif asked:
                _log.warning("the subscription to wake-ups went deaf, and begins anew")
                return True
            elif self._coordinator.waiting:
                await pubsub.ping()
                asked = True

    def _take(self, message: list[Any]) -> bool:
        """Act on a message; tell whether to go on."""
        kind = message[0]

        if kind in (b"message", "message"):
            self._coordinator.hint(message[2].split())
        elif kind in (b"subscribe", "subscribe"):
            self._since = boot_time()

            if self._subscribed is not None and not self._subscribed.done():
                self._subscribed.set_result(None)

                if self._late:
                    self._late = False
                    self._coordinator.look_at_all()
            elif self._coordinator.waiting:
                self._coordinator.look_at_all()
            else:
                return False  # the driver has connected again, perhaps after its client was closed

        return True
