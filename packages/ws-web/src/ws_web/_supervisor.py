"""Keep worker processes alive: start, watch, replace, stop. The parent never serves by itself.

Each worker is a fresh interpreter (``python -m ws_web._worker``) that opens its own socket on the port which
the parent holds, and gets two pipes as open descriptors. Through one it reports ready or failed; the
other ends when the parent dies, upon which the worker stops, so that no orphan goes on serving.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ws_core.errors import UsageError, WsError

__all__ = ("STARTUP_FAILED", "Supervisor", "WorkerCommand", "check_options", "restart_delay")

STARTUP_FAILED = 3
"""Exit code of a worker whose application did not start."""

_TICK = 0.1  # seconds between two looks at the workers
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0  # seconds before a worker is replaced again
_SETTLED = 10.0  # seconds after which a worker counts as sound


class WorkersFailed(WsError):  # noqa: N818 - a condition
    """No worker could start; the message is what the first one said."""

    default_code = "startup"


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """
    How to start a worker.

    Args:
        app: Where the application is.
        address: Host and port to join, which the parent holds.
        options: Options of `uvicorn.Config`, of JSON types.
    """

    app: str
    address: tuple[str, int]
    options: Mapping[str, Any]  # Any: uvicorn's own

    def start(self, report: int, parent: int) -> subprocess.Popen[bytes]:
        """Start a worker that has these pipe ends."""
        told = {
            "app": self.app,
            "address": self.address,
            "report": report,
            "parent": parent,
            "options": self.options,
            "path": sys.path,
        }
        arguments = [sys.executable, "-m", "ws_web._worker", json.dumps(told)]
        # A group of its own: Ctrl-C reaches only the parent, which stops the workers in order.
        return subprocess.Popen(arguments, pass_fds=(report, parent), process_group=0)  # noqa: S603 - ours


def check_options(options: Mapping[str, Any]) -> None:
    """
    Check that the options can be handed to another process.

    Args:
        options: Options of `uvicorn.Config`.

    Raises:
        UsageError: An option is of no JSON type.
    """
    for name, value in options.items():
        try:
            json.dumps(value)
        except TypeError:
            message = (
                f"with several workers the option {name} must be of a JSON type, not {type(value).__name__}"
            )
            raise UsageError(message, option=name) from None


def restart_delay(quick_deaths: int) -> float:
    """
    Return how long to wait before a worker is replaced.

    Args:
        quick_deaths: How many workers in a row died in this place soon after their start.

    Returns:
        Seconds: none at first, so that a killed worker is replaced at once, then doubling.

    Example:
        >>> [restart_delay(n) for n in (0, 1, 2, 3, 4, 20)]
        [0.0, 0.0, 0.1, 0.2, 0.4, 10.0]
    """
    if quick_deaths <= 1:
        return 0.0

    return float(min(_FIRST_DELAY * 2 ** (quick_deaths - 2), _LONGEST_DELAY))


@dataclass(slots=True)
class _Place:
    """A place for one worker, and what is known of the worker in it."""

    process: subprocess.Popen[bytes] | None = None
    report: int = -1
    said: bytes = b""
    started_at: float = 0.0
    ready: bool = False
    quick_deaths: int = 0
    not_before: float = field(default=0.0)


class Supervisor:
    """
    Run a number of workers until SIGINT or SIGTERM.

    Args:
        command: How to start a worker.
        count: How many there shall be.
        grace: Seconds that workers get to stop before they are killed.
        say: Tells people one line.
        ready: Called once, when the first worker serves.
        clock: Returns monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - options, by keyword
        self,
        command: WorkerCommand,
        count: int,
        *,
        grace: float,
        say: Callable[[str], None],
        ready: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._places = [_Place() for _ in range(count)]
        self._grace = grace
        self._say = say
        self._ready = ready
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._served = False  # whether any worker was ever ready
        self._alive_read, self._alive_write = os.pipe()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that are running."""
        return [place.process.pid for place in self._places if place.process is not None]

    def run(self) -> None:
        """
        Start the workers and keep them alive; return when they have stopped.

        Raises:
            WorkersFailed: No worker ever became ready, and one could not start.
        """
        before = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }

        try:
            while not self._stopping:
                self._tend()
                self._listen(_TICK)
        finally:
            self._stop()
            self._selector.close()

            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, *_: object) -> None:
        self._stopping = True

    def _tend(self) -> None:
        """Look at every place: notice the dead, fill the empty."""
        for place in self._places:
            if place.process is not None and place.process.poll() is not None:
                self._bury(place)

            if place.process is None and self._clock() >= place.not_before and not self._stopping:
                self._fill(place)

    def _fill(self, place: _Place) -> None:
        report_read, report_write = os.pipe()

        try:
            place.process = self._command.start(report_write, self._alive_read)
        finally:
            os.close(report_write)

        place.report, place.said, place.ready = report_read, b"", False
        place.started_at = self._clock()
        self._selector.register(report_read, selectors.EVENT_READ, place)

    def _bury(self, place: _Place) -> None:
        """Take note of a dead worker, and when it may be replaced."""
        assert place.process is not None  # noqa: S101 - for type checkers; the caller looked
        self._hear(place)
        code, pid = place.process.returncode, place.process.pid
        self._forget(place)

        if not self._served and not self._stopping:
            raise WorkersFailed(_failure(place.said, code))

        settled = place.ready and self._clock() - place.started_at >= _SETTLED
        place.quick_deaths = 0 if settled else place.quick_deaths + 1
        delay = restart_delay(place.quick_deaths)
        place.not_before = self._clock() + delay
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        cause = f": {_failure(place.said, code)}" if code == STARTUP_FAILED else ""
        when = f"in {delay:g} s" if delay else "now"
        self._say(f"worker {pid} {how}{cause}; replacing it {when}")

    def _listen(self, timeout: float) -> None:
        """Wait for reports of workers."""
        for key, _ in self._selector.select(timeout):
            self._hear(key.data)

    def _hear(self, place: _Place) -> None:
        """Read what a worker has reported so far."""
        if place.report < 0:
            return

        os.set_blocking(place.report, False)

        try:
            while chunk := os.read(place.report, 65536):
                place.said += chunk
        except BlockingIOError:
            pass
        else:
            self._close_report(place)  # the worker closed its end

        if not place.ready and place.said.startswith(b'{"ready"'):
            place.ready = True

            if not self._served:
                self._served = True
                self._ready()

    def _close_report(self, place: _Place) -> None:
        if place.report >= 0:
            self._selector.unregister(place.report)
            os.close(place.report)
            place.report = -1

    def _forget(self, place: _Place) -> None:
        self._close_report(place)
        place.process = None

    def _stop(self) -> None:
        """Ask the workers to stop, wait, and kill those that do not."""
        self._stopping = True
        running = [place.process for place in self._places if place.process is not None]

        for process in running:
            process.terminate()

        deadline = self._clock() + self._grace

        for process in running:
            try:
                process.wait(max(0.0, deadline - self._clock()))
            except subprocess.TimeoutExpired:
                self._say(f"worker {process.pid} did not stop within {self._grace:g} s: killed")
                process.kill()
                process.wait()

        for place in self._places:
            self._forget(place)

        os.close(self._alive_write)
        os.close(self._alive_read)


def _failure(said: bytes, code: int) -> str:
    """Return what a worker reported as the reason that it could not start."""
    try:
        return str(json.loads(said)["failed"])
    except (ValueError, KeyError, TypeError):
        return f"the application did not start: its worker process ended with code {code}"
