"""What anybody may ask about a lock, or do to it, without holding it."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

from ws_redislock._coordination.coordinator import Coordinator
from ws_redislock._lock.options import seconds
from ws_redislock._redis.keys import LockKeys
from ws_redislock._redis.script_client import Reply
from ws_redislock._redis.scripts import load

__all__ = ("BUDGET", "LockStatus")

BUDGET = 5.0
"""Seconds for which one command is tried again when Redis does not answer."""

RESET_MS = 10_000
"""For how long the server remembers that a lock was taken away, so that doing it again is harmless."""


class LockStatus(ABC):
    """The part of a lock that needs no acquisition."""

    _keys: LockKeys
    _limit: int
    _name: str

    async def exists(self) -> bool:
        """Tell whether anybody holds the lock now."""
        return bool(await self.holders())

    async def owner(self) -> str | None:
        """Return the token of who holds the lock (or holds it the longest), or None."""
        holders = await self.holders()
        return holders[0] if holders else None

    async def holders(self) -> list[str]:
        """Return the tokens of all who hold the lock now."""
        reply = await self._status()
        return [token if isinstance(token, str) else token.decode() for token in reply[2:]]

    async def waiters(self) -> int:
        """Return how many stand in the queue."""
        return int((await self._status())[1])

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - a lock's timeout ends its waiting, and leaves the queue in order
        """
        Wait until nobody holds the lock, without acquiring it.

        It takes no place in the queue, so nobody wakes it: it looks when the lease may have ended,
        and in between at growing intervals of 1 s at most.

        Args:
            timeout: Seconds to wait, None for ever.

        Returns:
            Whether it was seen free in time.
        """
        if timeout is not None:
            seconds("timeout", timeout)

        coordinator = self._bind()
        until = None if timeout is None else coordinator.time() + timeout
        pause = 0.01

        while True:
            reply = await self._status()

            if len(reply) == 2:
                return True

            if until is not None and coordinator.time() >= until:
                return False

            step = min(pause, max(0.001, int(reply[0]) / 1000))
            await coordinator.sleep(
                step if until is None else min(step, max(0.0, until - coordinator.time()))
            )
            pause = min(2 * pause, 1.0)

    async def force_release(self) -> bool:
        """
        Take the lock away from whoever holds it; the holder is told that it is lost.

        Returns:
            Whether anybody held it.
        """
        coordinator = self._bind()
        _, reply = await coordinator.scripts.call(
            load("reset"),
            self._keys.of(secrets.token_hex(8)),
            (coordinator.id, self._limit, RESET_MS),
            what=("lock", self._name),
            budget=BUDGET,
        )
        coordinator.hint(reply[1:])
        return int(reply[0]) > 0

    @abstractmethod
    def _bind(self) -> Coordinator:
        """Return the coordinator."""

    async def _status(self) -> Reply:
        _, reply = await self._bind().scripts.call(
            load("status"), self._keys.shared, (), what=("lock", self._name), budget=BUDGET
        )
        return reply
