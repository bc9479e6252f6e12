"""Worker processes on one port: start, watch, replace, stop.

Each worker opens a socket of its own on the port, once it can serve, and the kernel spreads connections
evenly among those that listen. When a worker dies, its connections are reset at once and come
back to the others. The parent holds the port by a socket that is bound but never listens.

Each worker also holds the reading end of a pipe whose writing end only the parent has: when the
parent is gone, however it ended, the pipe closes and the worker stops by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from ws_core.errors import UnavailableError

__all__ = ("FAILED", "READY", "Supervisor")

READY = b"ready\n"
"""What a worker writes to its standard output once it serves."""

FAILED = b"failed: "
"""What it writes instead, with the reason behind it, when it cannot."""

_QUICK = 5.0
"""A worker that dies sooner (seconds) than this did not die of the sale, but of its set-up."""

_UNREADY = 5
"""So many workers in a row that were killed before they served mean that something is wrong."""

Notice = Callable[[str], None]


class Supervisor:
    """
    A fixed number of worker processes; whichever dies is replaced.

    Args:
        sock: Holds the port.
        workers: How many processes, 1 or more.
        command: Program and arguments of a worker; address and port are added.
        env: Environment of the workers.
        notice: Told in one line of what happens.
        grace: Seconds that a worker has to stop before it is killed.
    """

    def __init__(  # noqa: PLR0913 - one place that starts them, with named options
        self,
        sock: socket.socket,
        workers: int,
        *,
        command: tuple[str, ...] = (sys.executable, "-m", "wintersweet.demo.worker"),
        env: Mapping[str, str] | None = None,
        notice: Notice = lambda _: None,
        grace: float = 10.0,
    ) -> None:
        self.replaced: int = 0
        self.failure: UnavailableError | None = None
        self.failed: asyncio.Event = asyncio.Event()
        self._sock = sock
        self._count = workers
        self._command = command
        self._env = dict(os.environ if env is None else env)
        self._notice = notice
        self._grace = grace
        self._stopping = asyncio.Event()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._lifeline: tuple[int, int] | None = None

    async def __aenter__(self) -> Self:
        await self.start()

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return sorted(self._running)

    async def start(self) -> None:
        """
        Start all workers and wait until each serves.

        Raises:
            UnavailableError: A worker ended before it served; what it wrote to stderr says why.
        """
        self._lifeline = os.pipe()
        serving = [asyncio.get_running_loop().create_future() for _ in range(self._count)]
        self._keepers = [
            asyncio.create_task(self._keep(future), name=f"worker {place}")
            for place, future in enumerate(serving)
        ]

        try:
            await asyncio.gather(*serving)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ask all workers to stop, kill those that do not within the grace, and reap them."""
        self._stopping.set()
        keepers, self._keepers = self._keepers, []

        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

        if keepers:
            _, late = await asyncio.wait(keepers, timeout=self._grace)

            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

            if late:
                self._notice(f"{len(late)} workers did not stop within {self._grace:g} s and were killed")

            await asyncio.gather(*keepers, return_exceptions=True)

        if self._lifeline is not None:
            for end in self._lifeline:
                os.close(end)

            self._lifeline = None

    async def _keep(self, serving: asyncio.Future[None]) -> None:
        """Run one worker after another until stopped, or until one cannot even start."""
        unready = 0

        while not self._stopping.is_set():
            began = time.monotonic()
            process = await self._spawn()
            self._running[process.pid] = process

            if self._stopping.is_set():  # told while the process was being made
                process.terminate()

            try:
                answer = await self._first_line(process)
                served = answer == READY

                if served and not serving.done():
                    serving.set_result(None)

                code = await process.wait()
            finally:
                self._running.pop(process.pid, None)

            if self._stopping.is_set():
                break

            unready = 0 if served else unready + 1
            own_fault = code >= 0 and (not served or (code > 0 and time.monotonic() - began < _QUICK))

            if own_fault or unready >= _UNREADY:
                self._fail(
                    _reason(answer) or f"worker {process.pid} ended {_how(code)} while it started", serving
                )
                break

            self.replaced += 1
            self._notice(f"worker {process.pid} ended {_how(code)}; a new one takes its place")

        if not serving.done():
            serving.cancel()

    def _fail(self, message: str, serving: asyncio.Future[None]) -> None:
        error = UnavailableError(message)

        if self.failure is None:
            self.failure = error

        self.failed.set()

        if not serving.done():
            serving.set_exception(error)

    async def _spawn(self) -> asyncio.subprocess.Process:
        if self._lifeline is None:  # pragma: no cover - start() opens it before any worker
            raise AssertionError

        return await asyncio.create_subprocess_exec(
            *self._command,
            *map(str, self._sock.getsockname()[:2]),
            stdin=self._lifeline[0],
            stdout=asyncio.subprocess.PIPE,
            env=self._env,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which stops the workers in order
        )

    @staticmethod
    async def _first_line(process: asyncio.subprocess.Process) -> bytes:
        if process.stdout is None:  # pragma: no cover - asked for in _spawn
            raise AssertionError

        return await process.stdout.readline()


def _reason(answer: bytes) -> str:
    return answer.removeprefix(FAILED).decode().strip() if answer.startswith(FAILED) else ""


def _how(code: int) -> str:
    return f"with status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
