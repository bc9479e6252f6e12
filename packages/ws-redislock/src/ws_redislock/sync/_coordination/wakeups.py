"""The one subscription of a coordinator, in a thread; the twin of `ws_redislock._coordination.wakeups`."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from redis.exceptions import MaxConnectionsError

from ws_redislock._coordination.wakeups import LINGER, PATIENCE, QUIET
from ws_redislock._lease.lease import boot_time
from ws_redislock.sync._redis.script_client import ScriptClient

__all__ = ("WakeupSubscription",)

_log = logging.getLogger("ws_redislock")

TURN = 0.25
"""Seconds after which the thread looks whether it should end."""


class WakeupOwner(Protocol):
    """What a subscription serves: the coordinator."""

    id: str
    mutex: threading.RLock
    scripts: ScriptClient

    @property
    def waiting(self) -> bool:
        """Whether any local thread stands in a queue."""
        ...

    def hint(self, tokens: Iterable[str | bytes]) -> None:
        """Wake the local threads and holders behind tokens."""

    def look_at_all(self) -> None:
        """Look at every lock that a local thread waits for."""

    def spawn(self, work: Callable[[], None]) -> threading.Thread:
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
        self._thread: threading.Thread | None = None
        self._subscribed = threading.Event()
        self._since = 0.0  # see the twin
        self._stopped = False
        self._late = False  # whether somebody went on without the subscription

    def begin(self, until: float | None, asked_at: float) -> bool:
        """Make sure that the coordinator listens; return whether listening began only after `asked_at`."""
        with self._coordinator.mutex:
            if self._thread is None or not self._thread.is_alive():
                self._subscribed = threading.Event()
                self._stopped = False
                self._thread = self._coordinator.spawn(self._listen)

        patience = PATIENCE if until is None else max(0.0, min(PATIENCE, until - time.monotonic()))

        if not self._subscribed.wait(patience):
            self._late = True

        # It may be set only since the line above, which `_take` did not see yet.
        return self._subscribed.is_set() and self._since >= asked_at

    def stop(self) -> None:
        """Stop listening, and wait for it."""
        self._stopped = True

        if self._thread is not None:
            self._thread.join(4 * TURN)
            self._thread = None

    def _listen(self) -> None:
        pause = 0.05
        idle_since = time.monotonic()
        beside = False

        while not self._stopped:
            pubsub = self._coordinator.scripts.pubsub(beside=beside)

            try:
                pubsub.subscribe(self._channel)
                heard, asked = time.monotonic(), False

                while not self._stopped:
                    message = pubsub.get_message(timeout=TURN)

                    if message is not None:
                        pause = 0.05
                        heard, asked = time.monotonic(), False
                        self._take(message)
                    elif self._coordinator.waiting and time.monotonic() - heard > QUIET:
                        if asked:
                            _log.warning("the subscription to wake-ups went deaf, and begins anew")
                            break

                        pubsub.ping()
                        heard, asked = time.monotonic(), True

                    if self._coordinator.waiting:
                        idle_since = time.monotonic()
                    elif time.monotonic() - idle_since > LINGER:
                        return
            except Exception as error:  # noqa: BLE001 - a client that is closed meanwhile raises anything
                if not self._coordinator.waiting:
                    return

                beside = isinstance(error, MaxConnectionsError)
                _log.debug("the subscription ended, and begins anew: %r", error)
            finally:
                with contextlib.suppress(Exception):
                    pubsub.close()

            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 1.0)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            self._coordinator.hint(message["data"].split())
        elif message["type"] == "subscribe":
            again = self._subscribed.is_set()
            self._since = boot_time()
            self._subscribed.set()

            if again or self._late:
                self._late = False
                self._coordinator.look_at_all()
