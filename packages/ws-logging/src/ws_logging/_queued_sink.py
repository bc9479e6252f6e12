"""The queue in front of a file or an endpoint: callers append to memory, one thread writes batches.

The caller pays for a queue entry, never for the disk. Nothing is lost silently: each message is
written, or counted as dropped and reported in the log itself. The queue is drained at normal exit
and on SIGTERM; what a SIGKILL can take is the queue and one batch.

The queue itself is `ws_logging._line_queue.LineQueue`; callers and the writer share no lock. A signal
handler may therefore interrupt a caller at any point and still wait for the writer to finish.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from ws_core.backoff import delay
from ws_core.errors import describe
from ws_logging import _exit_hooks
from ws_logging._line_queue import LineQueue
from ws_logging._sink_options import Overflow

BATCH: Final = 256 * 1024  # bytes written at once, at most
EARLY: Final = 192 * 1024  # bytes waiting from which the writer does not wait for more
GATHER: Final = 0.02  # seconds that the writer waits for more
URGENT: Final = 40  # loguru's level number of ERROR: written at once, and dropped last
FIRST_BACKOFF: Final = 0.05  # seconds before the first attempt after the disk failed, then doubling
LONGEST_BACKOFF: Final = 2.0
COMPLAIN_EVERY: Final = 60.0  # seconds between two complaints on stderr
TIDY_EVERY: Final = 3600.0  # seconds between two looks at the rotated files, beside those after a rotation
POLL: Final = 0.002  # seconds between two looks of somebody who waits for the writer


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """
    A snapshot of a sink; ``accepted`` is always ``written + dropped + pending``.

    Args:
        accepted: Messages that were handed to the sink.
        written: Messages that are in the file.
        dropped: Messages that were given up: the queue was full, or the disk failed to the end.
        pending: Messages that wait for the writer.
        pending_bytes: Their size.
        rotations: How often this process rotated the file.
        errors: How often writing failed; what failed was tried again.
        last_error: The last failure, or "".
        failing: Whether the latest attempt to write failed.
    """

    accepted: int
    written: int
    dropped: int
    pending: int
    pending_bytes: int
    rotations: int
    errors: int
    last_error: str
    failing: bool


class Destination(Protocol):
    """Where lines are written to, by one thread at a time."""

    rotations: int
    refused: OSError | None  # why something was not done that did not keep lines out; taken once seen
    rejected: int  # how many lines will never be taken, of those that `append` said are done

    @property
    def name(self) -> str:
        """What it is called on stderr."""
        ...

    @property
    def has_limits(self) -> bool:
        """Whether there is something to tidy now and then."""
        ...

    def append(self, lines: list[bytes]) -> tuple[int, OSError | None, list[Path]]:
        """Write lines; return how many are done with, what kept the others out, and what is to be tidied."""

    def tidy(self, rotated: list[Path]) -> None:
        """Do what may take long, in a thread of its own."""

    def close(self) -> None:
        """Let go of descriptors; `append` takes them up again."""


class QueuedSink:
    """A queue with a writer, in front of a destination; subclasses make that."""

    def __init__(
        self,
        destination: Destination,
        *,
        max_bytes: int,
        max_records: int,
        overflow: Overflow,
        block_timeout: float,
        stop_timeout: float,
        notice: Callable[[int], str] | None,
    ) -> None:
        self._destination = destination
        self._limits = (max_bytes, max_records)
        self._overflow = overflow
        self._block_timeout = block_timeout
        self._stop_timeout = stop_timeout
        self._notice = notice or _plain_notice
        self._begin()

    def _begin(self) -> None:
        """Begin empty: at first, and in a forked child, which must not write its parent's lines."""
        self._lines = LineQueue(*self._limits)
        self._unwritten: list[bytes] = []  # what the writer has taken, and not yet written
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._putting = threading.RLock()  # keeps callers apart
        self._io = threading.RLock()  # keeps users of the file apart
        self._starting = threading.Lock()
        self._worker: threading.Thread | None = None
        self._tidying: threading.Thread | None = None
        self._sleeping = False  # the writer waits for a first line
        self._gathering = False  # the writer has lines and waits a moment for more
        self._enough = 0  # bytes that were ever appended when it need not wait for more
        self._hurry = False  # an urgent line has come
        self._gave_up = False  # a caller has waited in vain, and the writer has not moved since
        self._stopping = self._stopped = False
        self._reported = 0  # how many dropped lines the file has a notice of
        self._errors = 0
        # A file that grows too old does so without a rotation.
        self._tidy_at = float("-inf") if self._destination.has_limits else float("inf")
        self._last_error = ""
        self._complained_at = float("-inf")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._destination.name!r})"

    def write(self, message: str) -> None:
        """Take a rendered line with its end, and with the ``record`` that loguru attaches for the level."""
        record: Any = getattr(message, "record", None)  # Any: loguru's record
        urgent = record is not None and record["level"].no >= URGENT
        self.put(message.encode("utf-8", "backslashreplace"), urgent=urgent)

    def put(self, line: bytes, *, urgent: bool = False) -> None:
        """Take an encoded line with its end; an urgent one is written at once, and dropped last."""
        lines = self._lines

        if not self._try_put(line, urgent=urgent) and not self._wait_for_room(line, urgent=urgent):
            return

        if self._worker is None:
            self._start()

        # Most callers find the writer at work, which looks again before it sleeps, or waiting for more.
        if urgent or self._sleeping or (self._gathering and lines.appended_bytes > self._enough):
            self._call_writer(urgent=urgent)

    def _try_put(self, line: bytes, *, urgent: bool, evict: bool = False) -> bool:
        """Append a line if there is room for it; after `stop`, write it. Return whether it is taken."""
        lines = self._lines

        with self._putting:
            if self._stopped:
                self._write_now(line)
                return True

            while not lines.offer(line, urgent=urgent):
                if not ((evict or self._overflow == "drop_oldest") and lines.evict(urgent=urgent)):
                    return False  # all that waits is in the writer's hands, or more important

            if self._stopping and self._has_stopped():  # by a signal handler that interrupted this very call
                self._sweep(time.monotonic() + self._stop_timeout)

            return True

    def _wait_for_room(self, line: bytes, *, urgent: bool) -> bool:
        """
        Wait for room in a full queue, as long as that is allowed; return whether the line was taken.

        The lock is free meanwhile: threads of event loops must not wait for those that may wait for room.
        """
        deadline = time.monotonic() + (self._block_timeout if self._may_wait() else 0.0)

        while time.monotonic() < deadline:
            self._call_writer(urgent=True)
            time.sleep(POLL)

            if self._try_put(line, urgent=urgent):
                return True

        # The next callers do not wait again until the writer has made progress.
        self._gave_up = True

        if self._try_put(line, urgent=urgent, evict=urgent):
            return True

        with self._putting:
            self._lines.refused += 1

        return False

    def drain(self, timeout: float | None = None) -> bool:
        """
        Wait until everything that was handed in before this call has been written; return whether it has.

        Waits for ``timeout`` seconds at most, or for as long as it takes.
        """
        goal = self._lines.appended
        deadline = float("inf") if timeout is None else time.monotonic() + timeout

        while self._lines.gone < goal:
            if self._stopped or time.monotonic() >= deadline:
                return False

            self._call_writer(urgent=True)
            time.sleep(POLL)

        return True

    def stop(self) -> None:
        """
        Write what waits, within ``stop_timeout`` seconds, and close the file.

        May be called again, by several threads, and after it was interrupted: it goes on from there.
        Signals that would end the process wait for it. Later messages are written at once by their
        callers. What could not be written is counted as dropped and reported on stderr.
        """
        with _exit_hooks.deferred_signals():
            self._stopping = True
            deadline = time.monotonic() + self._stop_timeout
            worker = self._worker

            while worker is not None and worker.is_alive() and time.monotonic() < deadline:
                self._wake.put(None)
                time.sleep(POLL)

            with self._putting:
                self._stopped = True
                self._sweep(deadline)

            if self._tidying is not None:
                self._tidying.join(max(0.0, deadline - time.monotonic()))

        _exit_hooks.unwatch(self)

    def _has_stopped(self) -> bool:
        """Look anew: type checkers take it for settled that nothing changes within a function."""
        return self._stopped

    # Callers --------------------------------------------------------------------------------

    def _may_wait(self) -> bool:
        """Return whether a caller may wait for room: never on the thread of an event loop."""
        return self._overflow == "block" and not self._gave_up and not _in_event_loop()

    def _call_writer(self, *, urgent: bool) -> None:
        """Wake the writer if it sleeps, or waits for more."""
        if urgent:
            self._hurry = True

        if self._sleeping or self._gathering:
            self._sleeping = self._gathering = False
            self._wake.put(None)

    def _start(self) -> None:
        """Start the writer; the first caller does it, so that a forked child gets one too."""
        with self._starting:
            if self._worker is None and not self._stopping:
                name = f"log writer {self._short_name}"
                worker = threading.Thread(target=self._work, daemon=True, name=name)

                if _begun(worker):
                    self._worker = worker
                else:
                    self._sweep(time.monotonic() + self._stop_timeout)

    def _write_now(self, line: bytes) -> None:
        """Write without the writer, after `stop`."""
        self._lines.offer(line, force=True)
        self._sweep(time.monotonic() + 1.0)

    def _sweep(self, deadline: float) -> None:
        """Write what is left in this thread; give up and count what cannot be written by then."""
        lines = self._lines

        # A writer that is stuck in the system holds the file; it cannot be waited for forever.
        if not self._io.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._give_up(lines.discard())
            return

        try:
            while batch := self._unwritten or lines.take(BATCH):
                if not self._write_batch(batch) and time.monotonic() >= deadline:
                    self._give_up(lines.discard())
                    self._unwritten = []
                    break

                if self._unwritten:
                    time.sleep(POLL)

            self._destination.close()
        finally:
            self._io.release()

    def _give_up(self, count: int) -> None:
        if count:
            reason = self._last_error or "the disk did not answer in time"
            complain(f"{count} log lines could not be written to {self._destination.name}: {reason}")

    # The writer -----------------------------------------------------------------------------

    def _work(self) -> None:
        """Write batches until the queue is empty and `stop` was called."""
        failures = 0

        while True:
            batch = self._unwritten or self._lines.take(BATCH)

            if not batch:
                if self._stopping:
                    return

                self._wait()
                continue

            with self._io:
                written = self._write_batch(batch)

            if written:
                failures = 0
                self._gave_up = False
            elif self._stopped:
                return
            else:
                failures += 1
                longest = FIRST_BACKOFF if self._stopping else LONGEST_BACKOFF
                self._nap(delay(failures, FIRST_BACKOFF, longest, jitter=0.0))

    def _write_batch(self, batch: list[bytes]) -> bool:
        """Write a batch and what is to be said of dropped messages; keep what could not be written."""
        self._unwritten = batch
        done, error, rotated = self._destination.append(batch)
        rejected, self._destination.rejected = self._destination.rejected, 0
        self._lines.written(batch[:done], rejected)
        self._unwritten = batch[done:]

        if rotated or time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + TIDY_EVERY
            self._tidy(rotated)

        if self._destination.refused is not None:
            self._note_error(self._destination.refused)
            self._destination.refused = None

        if error is None:
            error = self._report_drops()

        if error is not None:
            self._note_error(error)

        return not self._unwritten

    def _report_drops(self) -> OSError | None:
        """Write one line about the messages that were dropped since the last such line."""
        dropped = self._lines.dropped

        if dropped == self._reported:
            return None

        line = self._notice(dropped - self._reported).encode("utf-8", "backslashreplace")
        done, error, _ = self._destination.append([line])

        if done:
            self._reported = dropped

        return error

    def _wait(self) -> None:
        """Sleep until there is a message, then a moment for more of them, unless it is urgent."""
        self._sleeping = True

        if self._lines or self._stopping:  # looked at after the flag was set: no call is missed
            self._sleeping = False
            return

        self._nap(None)
        self._sleeping = False

        if not self._lines:
            return

        if not (self._hurry or self._has_stopped()) and self._lines.waiting_bytes < EARLY:
            self._enough = self._lines.appended_bytes - self._lines.waiting_bytes + EARLY
            self._gathering = True
            self._nap(GATHER)
            self._gathering = False

        self._hurry = False

    def _nap(self, seconds: float | None) -> None:
        """Wait to be called."""
        with suppress(queue.Empty):
            self._wake.get(timeout=seconds)

    def _tidy(self, rotated: list[Path]) -> None:
        """Compress and delete old files in a thread of its own: the writer must not wait for it."""
        before = self._tidying

        def work() -> None:
            if before is not None and not sys.is_finalizing():  # no other thread runs then
                before.join()

            try:
                self._destination.tidy(rotated)
            except OSError as error:
                self._note_error(error)

        name = f"log tidier {self._short_name}"
        tidier = threading.Thread(target=work, daemon=True, name=name)

        if _begun(tidier):
            self._tidying = tidier
        else:
            work()

    def _note_error(self, error: OSError) -> None:
        self._errors += 1
        self._last_error = describe(error, with_type=True)
        now = time.monotonic()

        if now - self._complained_at >= COMPLAIN_EVERY:
            self._complained_at = now
            waiting = self._lines.waiting
            complain(
                f"trouble with the log {self._destination.name}: {error}; {waiting} lines wait in memory"
            )

    # Life -----------------------------------------------------------------------------------

    @property
    def _short_name(self) -> str:
        """The name for threads."""
        return self._destination.name.rstrip("/").rpartition("/")[2]

    def after_fork(self) -> None:
        """Begin anew in a forked child, with its own descriptors; called by the interpreter."""
        was_stopped = self._stopping
        self._destination.close()
        self._begin()
        self._stopping = self._stopped = was_stopped

    def statistics(self) -> SinkStatistics:
        """Return a snapshot."""
        lines = self._lines
        return SinkStatistics(
            accepted=lines.appended + lines.refused,
            written=lines.done - lines.rejected,
            dropped=lines.dropped,
            pending=lines.waiting,
            pending_bytes=lines.waiting_bytes,
            rotations=self._destination.rotations,
            errors=self._errors,
            last_error=self._last_error,
            failing=bool(self._unwritten) and self._errors > 0,
        )


def _in_event_loop() -> bool:
    """Return whether this thread runs an event loop, of asyncio or trio."""
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented, and the fast way to ask
        return True

    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def _begun(thread: threading.Thread) -> bool:
    """Start a thread; return whether that was possible, as it is not while the interpreter ends."""
    if sys.is_finalizing():  # Python 3.11 would wait for ever for the thread to begin
        return False

    try:
        thread.start()
    except RuntimeError:
        return False

    return True


def _plain_notice(count: int) -> str:
    return f"{count} log messages were dropped\n"


def complain(text: str) -> None:
    """Report on stderr; logging itself is what has failed."""
    # No stderr, or a closed one, or a signal handler that has interrupted a print.
    with suppress(OSError, ValueError, AttributeError, RuntimeError):
        print(f"ws-logging: {text}", file=sys.__stderr__, flush=True)
