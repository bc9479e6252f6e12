"""Keep worker processes alive: start, watch, replace, restart one after the other, stop.

Each worker is a fresh interpreter (``python -m ws_web._worker``) that accepts from the socket of the
parent, see `_acceptor`, and has two pipes. Through one it reports that it serves, or why it cannot; the
other ends when the parent dies, upon which the worker stops, so that no orphan goes on serving.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ws_core.backoff import delay
from ws_core.errors import UnavailableError, UsageError
from ws_web._acceptor import Board
from ws_web._worker_group import forget_workers

STARTUP_FAILED = 3
"""Exit code of a worker whose application did not start."""

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0  # seconds before a worker is replaced again
_SETTLED = 10.0  # seconds after which a worker counts as sound
_HOPELESS = 5  # quick deaths in a row in every place


class WorkersFailed(UnavailableError):
    """No worker could start, or none lives long enough to serve; the message is what the last one said."""

    default_code = "startup"


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """
    How to start a worker.

    Args:
        app: The application's place.
        options: Options of `uvicorn.Config`; of another program, what it understands.
        env: Further environment variables.
        directory: Where it runs.
        program: The module that is run; another one than ours calls `ws_web.server.run_worker_process`.
    """

    app: str
    options: Mapping[str, Any]  # Any: uvicorn's own, of JSON types
    env: Mapping[str, str] = field(default_factory=dict)
    directory: str = field(default_factory=lambda: str(Path.cwd()))
    program: str = "ws_web._worker"

    async def start(self, place: int, size: int, **descriptors: int) -> asyncio.subprocess.Process:
        """Start a worker in one of so many places; it inherits the descriptors."""
        order = {"app": self.app, "place": place, "size": size, "options": self.options, "path": sys.path}
        order |= descriptors
        arguments = (sys.executable, "-m", self.program, json.dumps(order))
        # A session of its own: Ctrl-C reaches only the parent, which stops the workers in order.
        return await asyncio.create_subprocess_exec(
            *arguments,
            pass_fds=tuple(descriptors.values()),
            env={**os.environ, **self.env},
            cwd=self._directory(),
            start_new_session=True,
        )

    def _directory(self) -> str | None:
        """Return the directory by name: a deployment may have put a new one into the place of the old."""
        return self.directory if Path(self.directory).is_dir() else None


def check_options(options: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an option that cannot be handed to another process."""
    for name, value in options.items():
        try:
            json.dumps(value)
        except TypeError:
            kind = type(value).__name__
            message = f"with several workers the option {name} must be of a JSON type, not {kind}"
            raise UsageError(message, option=name) from None


def restart_delay(quick_deaths: int) -> float:
    """
    Return the seconds before a worker is replaced, after so many quick deaths in a row in its place.

    Example:
        >>> [restart_delay(n) for n in (0, 1, 2, 3, 4, 20)]
        [0.0, 0.0, 0.1, 0.2, 0.4, 10.0]
    """
    if quick_deaths <= 1:
        return 0.0  # a worker that was killed is replaced at once

    return delay(quick_deaths - 1, _FIRST_DELAY, _LONGEST_DELAY, jitter=0.0)


class _Worker:
    """One process, and what it has reported."""

    def __init__(self, process: asyncio.subprocess.Process, report: int, started_at: float) -> None:
        self.process = process
        self.started_at = started_at
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.failure: str | None = None
        self._listening = asyncio.create_task(self._listen(report), name=f"report of {process.pid}")

    @property
    def is_ready(self) -> bool:
        """Whether it serves, or did before it ended."""
        return self.ready.done() and self.ready.result()

    async def wait(self) -> int:
        """Return the exit code when the process has ended and all that it reported is read."""
        code = await self.process.wait()
        await self._listening
        return code

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended; one that does not serve yet is simply ended."""
        if number == signal.SIGINT and not self.is_ready:
            number = signal.SIGTERM

        # Not `send_signal`: that looks whether the process has ended, and takes its exit code from asyncio's
        # thread, which then logs "Unknown child process" and reports 255.
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def _listen(self, report: int) -> None:
        """Read the one line of the report; the pipe ends when the process does."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=2**20)
        pipe = os.fdopen(report, "rb")
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)

        try:
            line = json.loads(await reader.readline() or b"{}")
        finally:
            transport.close()

        self.failure = line.get("failed")
        self.ready.set_result("ready" in line)


@dataclass(slots=True, eq=False)
class _Place:
    """A place for one worker, and who is in it."""

    number: int
    worker: _Worker | None = None
    quick_deaths: int = 0


class Supervisor:
    """
    Run a number of workers, on one socket if they serve; whichever ends is replaced.

    Args:
        command: How to start a worker.
        listener: A listening socket, see `ws_web.server.bind`, which the caller closes; None for workers
            that serve nothing.
        count: How many workers, 1 or more.
        stop_timeout: Seconds that workers have to stop before they are killed.
        say: Gets one line for people at each event.
        on_ready: Called once, when the first worker serves.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        command: WorkerCommand,
        listener: socket.socket | None,
        count: int,
        *,
        stop_timeout: float = 10.0,
        say: Callable[[str], None] = lambda _: None,
        on_ready: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replaced: int = 0
        self.failure: WorkersFailed | None = None
        self.failed: asyncio.Event = asyncio.Event()
        self._command = command
        self._listener = listener
        self._places = [_Place(number) for number in range(count)]
        self._board: Board | None = None
        self._stop_timeout = stop_timeout
        self._say = say
        self._on_ready = on_ready
        self._clock = clock
        self._stopping = asyncio.Event()
        self._served = False  # whether any worker was ever ready
        self._lifeline: tuple[int, int] | None = None
        self._running: set[_Worker] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._restarting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that are running."""
        return sorted(worker.process.pid for worker in self._running)

    @property
    def serving(self) -> int:
        """How many of them have started, and accept requests."""
        return sum(worker.is_ready for worker in self._running)

    async def start(self) -> None:
        """
        Start the workers and wait until each place has one that serves.

        Raises:
            WorkersFailed: No worker has ever served, and one could not start. Nothing is left behind.
        """
        self._lifeline = os.pipe()
        self._board = Board.create(len(self._places))
        serving = [asyncio.get_running_loop().create_future() for _ in self._places]
        self._keepers = [
            asyncio.create_task(self._keep(place, first), name=f"worker {place.number}")
            for place, first in zip(self._places, serving, strict=True)
        ]

        try:
            # A keeper that ends by an exception has found a bug of ours, which must be seen.
            await _first_error(asyncio.gather(*serving), *self._keepers)
        except BaseException:
            await self.stop()
            raise

    def restart(self) -> None:
        """Begin to replace the workers one after the other; a restart that is under way goes on instead."""
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(self._restart(), name="rolling restart")

    async def stop(self, number: int = signal.SIGINT) -> None:
        """
        Stop all workers, kill those that do not stop in time, and return when none is left.

        Args:
            number: What the workers get: SIGINT stops at once, SIGTERM after their DRAIN_DELAY.
        """
        self._stopping.set()

        if self._restarting is not None:
            self._restarting.cancel()

        for worker in self._running:
            worker.send(number)

        if self._keepers:
            await asyncio.wait(self._keepers, timeout=self._stop_timeout)

        for worker in list(self._running):
            self._say(f"worker {worker.process.pid} did not stop within {self._stop_timeout:g} s: killed")
            worker.send(signal.SIGKILL)

        await asyncio.gather(*self._keepers, *filter(None, [self._restarting]), return_exceptions=True)

        if self._lifeline is not None:
            for end in self._lifeline:
                os.close(end)

            self._lifeline = None

        if self._board is not None:
            self._board.close()
            self._board = None

        forget_workers()

    async def _keep(self, place: _Place, first: asyncio.Future[None]) -> None:
        """Run one worker after another in a place, until the supervisor stops or has failed."""
        while not self._stopping.is_set() and self.failure is None:
            if place.worker is None:
                place.worker = await self._spawn(place)

            worker = place.worker

            if await worker.ready and not first.done():
                first.set_result(None)

            code = await worker.wait()
            self._running.discard(worker)

            # A rolling restart has put another worker into the place, and then stopped this one.
            if worker is not place.worker:
                continue

            place.worker = None

            if self._board is not None:
                self._board.clear(place.number)

            if not self._stopping.is_set():
                await self._pause(self._judge(place, worker, code))

        if first.done():
            return

        if self.failure is not None:
            first.set_exception(self.failure)
        else:
            first.cancel()

    def _judge(self, place: _Place, worker: _Worker, code: int) -> float:
        """Take note of a worker that has ended, and return the seconds until it may be replaced."""
        reason = worker.failure or f"a worker process ended {_how(code)} while it started"

        if not self._served:
            self._fail(reason)
            return 0.0

        # Exit code 0 is a worker that somebody has asked to stop; all others count as deaths.
        settled = worker.is_ready and (code == 0 or self._clock() - worker.started_at >= _SETTLED)
        place.quick_deaths = 0 if settled else place.quick_deaths + 1

        if all(each.quick_deaths >= _HOPELESS for each in self._places):
            self.failure = self.failure or WorkersFailed(reason)
            self.failed.set()

        pause = restart_delay(place.quick_deaths)
        ended = f"{'was killed' if code < 0 else 'ended'} {_how(code)}"
        cause = f": {worker.failure}" if worker.failure else ""
        when = f"in {pause:g} s" if pause else "now"
        self.replaced += 1
        self._say(f"worker {worker.process.pid} {ended}{cause}; replacing it {when}")
        return pause

    def _fail(self, reason: str) -> None:
        """Note that no worker can start; the first reason counts, others are mostly its consequence."""
        if self.failure is None:
            self.failure = WorkersFailed(reason)

        self.failed.set()

        for worker in self._running:
            worker.send(signal.SIGINT)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the supervisor stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _spawn(self, place: _Place) -> _Worker:
        """Start a worker for a place."""
        assert self._lifeline is not None and self._board is not None  # start() has made them
        serving = {"board": self._board.descriptor}

        if self._listener is not None:
            serving["listener"] = self._listener.fileno()

        report_read, report_write = os.pipe()

        try:
            process = await self._command.start(
                place.number, len(self._places), report=report_write, parent=self._lifeline[0], **serving
            )
        except BaseException:
            os.close(report_read)
            raise
        finally:
            os.close(report_write)

        worker = _Worker(process, report_read, self._clock())
        worker.ready.add_done_callback(self._on_report)
        self._running.add(worker)

        if self._stopping.is_set() or self.failure is not None:  # meanwhile
            worker.send(signal.SIGTERM)

        return worker

    def _on_report(self, ready: asyncio.Future[bool]) -> None:
        if not self._served and not ready.cancelled() and ready.result():
            self._served = True
            self._on_ready()

    async def _restart(self) -> None:
        """Replace each worker: the new one serves before the old one stops accepting."""
        for place in self._places:
            old, new = place.worker, await self._spawn(place)

            if not await new.ready:
                code = await new.wait()
                self._running.discard(new)
                reason = new.failure or f"the new worker ended {_how(code)}"
                self._say(f"the restart is given up, the old workers go on: {reason}")
                return

            place.worker = new

            if old is not None:
                old.send(signal.SIGINT)
                await old.wait()

        self._say("all workers are restarted")


async def _first_error(wanted: asyncio.Future[Any], *others: asyncio.Task[None]) -> None:
    """Wait for what is wanted; raise the error of whatever fails before."""
    pending: set[asyncio.Future[Any]] = {wanted, *others}

    try:
        while not wanted.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

            for future in done - {wanted}:
                future.result()

        await wanted
    finally:
        wanted.cancel()


def _how(code: int) -> str:
    return f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
