"""Checks that are run again and again in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol, TypeAlias, runtime_checkable

from ws_core.component import Health
from ws_core.errors import describe
from ws_pool._core.config import function, number, sequence
from ws_pool._core.startable import Startable
from ws_pool.errors import ConfigError, UsageError


@runtime_checkable
class HasHealth(Protocol):
    """What can be checked: every pool, manager and component."""

    async def health(self) -> Health:
        """Check that the work can be done now."""
        ...


Check: TypeAlias = HasHealth | Callable[[], Awaitable[Health | bool]]


class HealthChecker(Startable):
    """
    Runs checks again and again, and knows the last answer.

    The process is healthy while the last round of checks, which was good, is not older than
    ``timeout``. A blocked event loop makes no rounds, so `health` turns false for those who ask
    from another thread or process.

    Args:
        interval: Seconds between rounds.
        timeout: Seconds after which an answer is too old; also the bound of a round.
        checks: Pools, managers, components, or coroutine functions that return a `Health` or a
            bool. Without any, only the loop itself is watched.
        clock: The monotonic clock.

    Raises:
        ConfigError: The interval is not positive, or not shorter than the timeout.

    Example:
        ```python
        from ws_pool.health import HealthChecker

        async def disk_has_room() -> bool:
            return True

        async with HealthChecker(interval=5, timeout=15, checks=[disk_has_room]) as checker:
            assert checker.health
        ```
    """

    def __init__(
        self,
        interval: float = 5.0,
        timeout: float = 15.0,
        *,
        checks: list[Check] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for option, seconds in (("interval", interval), ("timeout", timeout)):
            number()(seconds, option)

        if not 0 < interval < timeout:
            message = f"interval={interval!r}, timeout={timeout!r}: give 0 < interval < timeout, in seconds"
            raise ConfigError(message, interval=interval, timeout=timeout)

        self._interval = interval
        self._timeout = timeout
        for found in [] if checks is None else sequence(checks, "checks"):
            if not isinstance(found, HasHealth) and not callable(found):
                message = f"checks has {found!r:.100}: give pools, or coroutine functions"
                raise ConfigError(message, setting="checks")

        self._checks: list[Check] = list(checks or ())
        function(clock, "clock")
        self._clock = clock
        self._last: Health | None = None
        self._at = 0.0
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "new" if self._last is None else "healthy" if self.health else f"not healthy: {self.detail}"
        return f"<{type(self).__name__} {state}>"

    @property
    def health(self) -> bool:
        """Whether the last answer is good and recent. May be asked from any thread."""
        last = self._last
        return last is not None and last.ok and self._clock() - self._at <= self._timeout

    @property
    def detail(self) -> str:
        """Why `health` is false; empty when it is true."""
        last = self._last

        if last is None:
            return "not checked yet"

        if not last.ok:
            return last.detail or "a check failed"

        age = self._clock() - self._at
        return "" if age <= self._timeout else f"the last answer is {age:.1f} s old"

    async def start(self) -> None:
        """
        Make the first round and go on in the background.

        Raises:
            UsageError: It is running already.
        """
        if self._task is not None:
            raise UsageError(f"{type(self).__name__} is running already: close() it first")

        await self._round()
        self._task = asyncio.create_task(self._run(), name="ws_pool health")

    async def close(self) -> None:
        """Make no more rounds; `health` is false from then on. May be called again."""
        task, self._task = self._task, None
        self._last = None

        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def check(self) -> Health:
        """
        Run all checks now, at the same time.

        Returns:
            The health, with one part per check.
        """
        began = self._clock()
        results = await asyncio.gather(*(self._one(check) for check in self._checks))
        parts: dict[str, Health] = {}

        for check, result in zip(self._checks, results, strict=True):
            name = _name(check)
            parts[name if name not in parts else f"{name} ({len(parts) + 1})"] = result

        return replace(Health.combine(parts), latency=self._clock() - began)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._round()

    async def _round(self) -> None:
        self._last = await self.check()
        self._at = self._clock()

    async def _one(self, check: Check) -> Health:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                answer = await (check.health() if isinstance(check, HasHealth) else check())
        except Exception as error:  # noqa: BLE001 - a check that raises is a check that fails
            # An error of a check may be a TimeoutError too, such as that of a pool without a free connection.
            late = f"no answer within {self._timeout:g} s"
            return Health(ok=False, detail=late if limit.expired() else describe(error, with_type=True))

        return answer if isinstance(answer, Health) else Health(ok=bool(answer))


def _name(check: Check) -> str:
    name = getattr(check, "name", None) or getattr(check, "__qualname__", None)
    return name if isinstance(name, str) else type(check).__name__
