"""Health checkers as in 1.x, over `ws_pool.health`: they check the managers, or what a subclass lists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from wintersweet._eager import begin
from wintersweet.asyncs.pool.mongo import mongo_pool_manager
from wintersweet.asyncs.pool.mysql import mysql_pool_manager
from wintersweet.asyncs.pool.redis import redis_pool_manager
from ws_pool import health as library

__all__ = ("HealthChecker", "ProcessHealthChecker")


class _Listed:
    """Checks what `check_list` returns; mixed into the library's checkers."""

    async def initialize(self) -> None:
        """Make the first round and go on in the background."""
        await self.start()  # type: ignore[attr-defined]  # the library's

    def check_list(self) -> list[Awaitable[Any]]:  # Any: a bool or a Health
        """Return what one round waits for; a subclass may add its own."""
        return [
            mysql_pool_manager.check_health(),
            mongo_pool_manager.check_health(),
            redis_pool_manager.check_health(),
        ]

    def release(self) -> Awaitable[None]:
        """Make no more rounds. It begins at once."""
        return begin(self.close(), "closing a health checker")  # type: ignore[attr-defined]

    async def _all(self) -> bool:
        return all(await asyncio.gather(*self.check_list()))


class HealthChecker(_Listed, library.HealthChecker):
    """Whether this process is healthy."""

    def __init__(self, interval: float = 10, timeout: float = 30) -> None:
        super().__init__(interval, timeout, checks=[self._all])


class ProcessHealthChecker(_Listed, library.ProcessHealthChecker):
    """Whether all worker processes are healthy; ``ntp`` is an object with a ``timestamp``."""

    def __init__(
        self, process_num: int, interval: float = 10, timeout: float = 30, ntp: Any = None
    ) -> None:  # Any: see above
        super().__init__(process_num, interval, timeout, checks=[self._all])
        self._ntp = ntp

    @property
    def timestamp(self) -> int:
        """The time in seconds since 1970, of the NTP client where there is one."""
        return int(time.time() if self._ntp is None else self._ntp.timestamp)
