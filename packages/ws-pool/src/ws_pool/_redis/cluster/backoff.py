"""How long commands wait for a cluster that is not whole."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from redis.exceptions import ClusterDownError

from ws_pool._redis.errors import UnavailableError

__all__ = ("ATTEMPTS", "OutageBackoff")

ATTEMPTS: Final = 16
"""How often a command is tried at least, and redirected at most."""
_PAUSE: Final = 0.05  # seconds to wait for a slot that is on its way, or a cluster that is not whole
_LONGER_PAUSE: Final = 0.25  # the same, when it takes longer


class _Outages(Protocol):
    """What is known of a cluster's outages; a `Topology` knows it."""

    @property
    def patience(self) -> float:
        """Seconds to wait."""
        ...

    def give_up(self, slot: int | None, /) -> None:
        """Remember that a command of a slot has waited in vain."""

    def is_given_up(self, slot: int | None, /) -> bool:
        """Tell whether the last one that waited has waited in vain."""
        ...


class OutageBackoff:
    """
    How long one caller waits for a cluster that is not whole.

    A node that was gone for too long already is given up after a number of attempts; while the
    cluster says that it is down, or a slot that it is on its way, time counts. Once somebody has
    waited in vain for a cluster that is down, those who come later for the same slot don't wait.

    Args:
        outages: Says how long to wait, and remembers for which slots somebody has waited in vain.
        slot: The slot of the caller's command.
    """

    def __init__(self, outages: _Outages, slot: int | None) -> None:
        self._outages = outages
        self._slot = slot
        self._began = 0.0
        self._attempts = 0

    async def wait(self, error: Exception) -> None:
        """
        Pause before the next attempt.

        Args:
            error: How the last one has failed; raised when there is no time left.
        """
        now = asyncio.get_running_loop().time()
        self._began = self._began or now
        self._attempts += 1

        is_down = isinstance(error, ClusterDownError)
        over = self._attempts > ATTEMPTS and (
            isinstance(error, UnavailableError) or now >= self._began + self._outages.patience
        )

        if over or (is_down and self._attempts == 1 and self._outages.is_given_up(self._slot)):
            if is_down:
                self._outages.give_up(self._slot)

            raise error

        await asyncio.sleep(_PAUSE if self._attempts <= ATTEMPTS else _LONGER_PAUSE)
