"""What threads have in the place of tasks and of a loop's timers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.redislock._threads import unreachable, until
from ws_redislock.sync._concurrency import Job, Loop, Timer, current_task


def _do_not_wait(timeout: float | None = None) -> bool:
    """Stand in for a wait of a condition whose time has passed."""
    del timeout
    return False


def _fail() -> None:
    """Raise what a job may raise."""
    unreachable()


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Yield timers whose thread ends with the test."""
    loop = Loop()
    yield loop

    with loop._condition:
        loop._heap.clear()
        loop._condition.wait = _do_not_wait  # type: ignore[method-assign]
        loop._condition.notify()

    until(lambda: not loop._running)


class TestJob:
    """Work in a thread."""

    def test_one_that_raises(self, caplog: pytest.LogCaptureFixture):
        """It ends like any other, and what it has raised is in the log."""
        done: list[Job] = []
        job = Job(_fail)
        job.add_done_callback(done.append)
        job.start()
        until(lambda: done)
        job.wait(30)
        assert job.done()
        assert "a background job failed" in caplog.text
        job.add_done_callback(done.append)  # at once, for it has ended
        job.cancel()
        assert done == [job, job]

    def test_each_thread_has_its_own(self):
        """What stands for a thread is the same each time, and another in another thread."""
        other: list[Job | None] = []
        thread = threading.Thread(target=lambda: other.append(current_task()))
        thread.start()
        thread.join()
        assert current_task() is current_task()
        assert other != [current_task()]


class TestTimers:
    """One thread for all timers."""

    def test_one_that_raises(self, loop: Loop, caplog: pytest.LogCaptureFixture):
        """It is logged, and later ones fire all the same."""
        fired: list[float] = []
        loop.call_later(0.0, lambda: fired[1])
        loop.call_later(0.01, lambda: fired.append(loop.time()))
        until(lambda: fired)
        assert "failed" in caplog.text
        assert fired[0] <= time.monotonic()

    def test_cancelled_ones(self, loop: Loop):
        """They do not fire, whether they were due already or not."""
        fired: list[str] = []
        first, second = (loop.call_later(60, lambda: fired.append("cancelled")) for _ in range(2))
        loop.cancel(first)
        loop.cancel(second)
        loop.call_later(0.0, lambda: fired.append("fired"))
        until(lambda: fired)
        assert fired == ["fired"]
        assert first.function is None

    def test_cancelled_at_the_last_moment(self, monkeypatch: pytest.MonkeyPatch):
        """A timer that was cancelled between its turn and its call is not called."""
        loop = Loop()
        cancelled = Timer(lambda: pytest.fail("it was cancelled"))
        loop.cancel(cancelled)
        turns = iter([cancelled, None])
        monkeypatch.setattr(loop, "_next", lambda: next(turns))
        loop._run()
        assert next(turns, "all") == "all"

    def test_a_thread_without_timers_ends(self, monkeypatch: pytest.MonkeyPatch):
        """After some time without any; the next timer begins another."""
        loop = Loop()
        monkeypatch.setattr(loop._condition, "wait", lambda _=None: False)  # as after those 10 s
        loop._running = True
        assert loop._next() is None
        assert not loop._running
        fired: list[int] = []
        loop.call_later(0.0, lambda: fired.append(1))
        until(lambda: fired)
        until(lambda: not loop._running)
