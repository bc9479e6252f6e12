"""Whether this process is healthy, and all worker processes of its service.

`HealthChecker` watches one process: its event loop, and whatever checks it is given.
`ProcessHealthChecker` shares the answers of all workers of a service, so that any of them can
report the health of the whole node. Neither needs an extra.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from ws_core.component import Health
from ws_core.errors import describe
from ws_pool._core.config import function, number, sequence
from ws_pool._core.startable import Startable
from ws_pool._process_table import ProcessTable, can_share, process_start, remove_abandoned, runtime_directory
from ws_pool.errors import ConfigError, UsageError

__all__ = ("Check", "HealthChecker", "ProcessHealthChecker")


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


class ProcessHealthChecker(HealthChecker):
    """
    A `HealthChecker` that speaks for all worker processes of a service.

    Each worker runs one. The node is healthy while ``process_num`` of them have reported so recently.
    They share a small file in the runtime directory; a worker that is killed counts no longer at
    once, and one that takes its place counts when it has started. The file goes with the last worker, or,
    when all were killed, with the next start of any service of this user. On systems without POSIX's
    locks it speaks for one process, without a file.

    Args:
        process_num: How many workers must be healthy.
        interval: Seconds between rounds.
        timeout: Seconds after which an answer is too old.
        name: The service's name, the same in all its workers and different from all other
            services of this user on this machine. By default it is derived from the parent
            process, the working directory and the command line, which workers of one server share.
        checks: See `HealthChecker`.
        directory: Where the file is; by default ``$XDG_RUNTIME_DIR``, or that for temporary files.
        clock: The monotonic clock, the same in all processes of a machine.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        ```python
        from ws_pool.health import ProcessHealthChecker

        async with ProcessHealthChecker(1, name="shop-example") as checker:
            assert checker.health, checker.detail
        ```
    """

    def __init__(
        self,
        process_num: int = 1,
        interval: float = 5.0,
        timeout: float = 15.0,
        *,
        name: str | None = None,
        checks: list[Check] | None = None,
        directory: str | Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(interval, timeout, checks=checks, clock=clock)

        if isinstance(process_num, bool) or process_num not in range(1, 65):
            message = f"process_num={process_num!r} is wrong: give a whole number from 1 to 64"
            raise ConfigError(message, process_num=process_num)

        if name is not None and not _is_name(name):
            raise ConfigError(f"name={name!r} is wrong: use letters, digits, '.', '_' and '-'", name=name)

        if directory is not None and not isinstance(directory, str | Path):
            raise ConfigError(f"directory={directory!r:.100} is wrong: give a path", directory=directory)

        self.name: str = _derived_name() if name is None else name
        self._process_num = process_num
        self._path: Path | None = None

        if can_share():
            self._path = Path(directory or runtime_directory()) / f"{_prefix()}{self.name}"
        elif process_num != 1:
            message = f"process_num={process_num}: processes cannot share their health on this system: give 1"
            raise ConfigError(message, process_num=process_num)

        self._table: ProcessTable | None = None
        self._pid = 0

    @property
    def health(self) -> bool:
        """Whether enough workers are healthy. May be asked from any thread."""
        return not self.detail

    @property
    def detail(self) -> str:
        """Why `health` is false; empty when it is true."""
        if self._path is None:
            return super().detail

        table = self._table

        if table is None or self._pid != os.getpid():
            return "not checked yet"

        now = self._clock()
        alive = table.alive()
        silent = [record.pid for record in alive if not 0 <= now - record.heartbeat <= self._timeout]
        unhealthy = [record.pid for record in alive if not record.healthy and record.pid not in silent]
        healthy = len(alive) - len(silent) - len(unhealthy)

        if healthy >= self._process_num:
            return ""

        parts = [f"{healthy} of {self._process_num} workers are healthy"]

        if silent:
            parts.append(f"silent: {', '.join(map(str, silent))}")

        if unhealthy:
            parts.append(f"not healthy: {', '.join(map(str, unhealthy))}")

        if super().detail:
            parts.append(f"this one: {super().detail}")

        return "; ".join(parts)

    async def close(self) -> None:
        """Free this process's record. May be called again."""
        await super().close()
        table, self._table = self._table, None

        if table is not None:
            (table.close if self._pid == os.getpid() else table.close_inherited)()

    async def _round(self) -> None:
        if self._path is None:
            await super()._round()
            return

        if self._pid != os.getpid():
            if self._table is not None:
                self._table.close_inherited()

            remove_abandoned(self._path.parent, _prefix())
            self._table = ProcessTable(self._path)
            self._pid = os.getpid()

        await super()._round()
        assert self._table is not None and self._last is not None  # both were made above
        self._table.heartbeat(self._at, healthy=self._last.ok)


def _name(check: Check) -> str:
    name = getattr(check, "name", None) or getattr(check, "__qualname__", None)
    return name if isinstance(name, str) else type(check).__name__


def _prefix() -> str:
    """Return what the names of all tables of this user begin with."""
    return f"ws-health-{os.geteuid()}-"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value))


def _derived_name() -> str:
    parent = os.getppid()
    facts = (parent, process_start(parent), str(Path.cwd()), *sys.argv)
    return hashlib.blake2b(repr(facts).encode(), digest_size=10).hexdigest()
