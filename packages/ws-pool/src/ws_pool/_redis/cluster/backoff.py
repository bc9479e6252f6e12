"""How long commands wait for a cluster that is not whole."""

from __future__ import annotations

import asyncio
from typing import Final

from redis.exceptions import ClusterDownError

from ws_pool._redis.cluster.topology import Topology
from ws_pool._redis.errors import UnavailableError

ATTEMPTS: Final = 16
"""How often a command is tried at least, and redirected at most."""
_PAUSE: Final = 0.05  # seconds to wait for a slot that is moving, or a cluster that is not whole
_LONGER_PAUSE: Final = 0.25  # the same, after ATTEMPTS attempts


class OutageBackoff:
    """
    How long one caller waits for a cluster that is not whole.

    A node that cannot be reached is given up after ATTEMPTS attempts; while the cluster reports that
    it is down, or that a slot is moving, ``outage_timeout`` seconds count. Once a command has waited so
    long for a cluster that is down, later ones for the same slot fail at once.
    """

    def __init__(self, topology: Topology, slot: int | None) -> None:
        self._topology = topology
        self._slot = slot
        self._began = 0.0  # until the first wait
        self._attempts = 0

    async def wait(self, error: Exception) -> None:
        """Pause before the next attempt, or raise the last error when there is no time left."""
        now = asyncio.get_running_loop().time()
        self._began = self._began or now
        self._attempts += 1

        is_down = isinstance(error, ClusterDownError)
        over = self._attempts > ATTEMPTS and (
            isinstance(error, UnavailableError) or now >= self._began + self._topology.outage_timeout
        )

        if over or (is_down and self._attempts == 1 and self._topology.is_given_up(self._slot)):
            if is_down:
                self._topology.give_up(self._slot)

            raise error

        await asyncio.sleep(_PAUSE if self._attempts <= ATTEMPTS else _LONGER_PAUSE)
