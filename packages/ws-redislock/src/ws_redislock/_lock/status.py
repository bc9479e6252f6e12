"""What needs no acquisition: looking at a lock, and taking it away."""

from __future__ import annotations

import secrets

from ws_core.backoff import delay
from ws_redislock._concurrency import sleep
from ws_redislock._coordination.coordinator import Coordinator
from ws_redislock._lock.options import BUDGET, seconds
from ws_redislock._redis.keys import QueueKeys
from ws_redislock._redis.script_client import Reply
from ws_redislock._redis.scripts import load

RESET_MS = 10_000
"""For how long the server remembers that a lock was taken away, so that doing it again is harmless."""


class LockStatus:
    """One lock as it stands on the server."""

    __slots__ = ("_coordinator", "_keys", "_name")

    def __init__(self, coordinator: Coordinator, name: str, keys: QueueKeys) -> None:
        self._coordinator = coordinator
        self._name = name
        self._keys = keys

    async def holders(self) -> list[str]:
        """Return the tokens of all holders."""
        reply = await self._read()
        return [token if isinstance(token, str) else token.decode() for token in reply[2:]]

    async def waiters(self) -> int:
        """Return the length of the queue."""
        return int((await self._read())[1])

    async def wait(self, timeout: float | None) -> bool:
        """Wait until the lock has no holder; return whether it was seen free in time."""
        if timeout is not None:
            seconds("timeout", timeout)

        coordinator = self._coordinator
        until = None if timeout is None else coordinator.time() + timeout
        looks = 0

        while True:
            reply = await self._read()

            if len(reply) == 2:
                return True

            if until is not None and coordinator.time() >= until:
                return False

            # The caller has no place in the queue, so that nothing wakes it up: look more and more rarely,
            # and when the first lease can end.
            looks += 1
            step = min(delay(looks, 0.01, 1.0, jitter=0.0), max(0.001, int(reply[0]) / 1000))
            await sleep(step if until is None else min(step, max(0.0, until - coordinator.time())))

    async def force_release(self) -> bool:
        """Take the lock away from its holders; return whether there was any."""
        _, reply = await self._coordinator.scripts.call(
            load("reset"),
            self._keys.of(secrets.token_hex(8)),
            (self._coordinator.id, self._keys.limit, RESET_MS),
            what=("lock", self._name),
            budget=BUDGET,
        )
        self._coordinator.wake(reply[1:])
        return int(reply[0]) > 0

    async def _read(self) -> Reply:
        _, reply = await self._coordinator.scripts.call(
            load("status"), self._keys.shared, (), what=("lock", self._name), budget=BUDGET
        )
        return reply
