"""The health of all worker processes of a service, in a file that they share."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ws_pool._health.checker import Check, HealthChecker
from ws_pool._health.process_table import (
    ProcessTable,
    can_share,
    process_start,
    remove_abandoned,
    runtime_directory,
)
from ws_pool.errors import ConfigError


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


def _prefix() -> str:
    """Return what the names of all tables of this user begin with."""
    return f"ws-health-{os.geteuid()}-"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value))


def _derived_name() -> str:
    parent = os.getppid()
    facts = (parent, process_start(parent), str(Path.cwd()), *sys.argv)
    return hashlib.blake2b(repr(facts).encode(), digest_size=10).hexdigest()
