"""What becomes of runs that fail, take too long, or are cancelled."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.tasks._support import Calls, VirtualClock, Watcher, on_both_loops, scheduler, settle
from ws_tasks import IntervalTask, Run, RunTimeout, Scheduler


class TestRunFailures:
    @staticmethod
    @on_both_loops
    async def test_an_error_stops_nothing() -> None:
        """A failing run is handed to on_error, and the task goes on."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.fail = ValueError("no")
        seen: list[tuple[BaseException, Run]] = []

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, on_error=lambda error, run: seen.append((error, run))))
            await clock.advance(25)

        assert [str(error) for error, _ in seen] == ["no", "no"]
        assert [run.attempt for _, run in seen] == [1, 1]
        assert task.statistics().failed == 2
        assert task.statistics().last_error == "ValueError: no"

    @staticmethod
    @on_both_loops
    async def test_without_on_error_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
        """Nobody asked for the error, so the log has it, with its traceback."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.fail = ValueError("no")

        async with scheduler(clock) as s:
            s.add(IntervalTask(10, calls, name="sweep"))
            await clock.advance(10)

        [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert record.getMessage() == "run sweep@2026-01-01T00:00:10+00:00 failed"
        assert record.exc_info is not None

    @staticmethod
    @on_both_loops
    async def test_a_failing_on_error_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
        """Both the handler's error and the run's are logged."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.fail = ValueError("no")

        async def handler(error: BaseException, run: Run) -> None:
            await checkpoint()
            raise RuntimeError("handler")

        async with scheduler(clock) as s:
            s.add(IntervalTask(10, calls, on_error=handler))
            await clock.advance(20)

        assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 4

    @staticmethod
    @on_both_loops
    async def test_strange_exceptions_are_failures() -> None:
        """An exception outside of Exception is kept from ending the scheduler."""

        class Odd(BaseException):
            pass

        clock = VirtualClock()
        calls = Calls(clock)
        calls.fail = Odd()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, on_error=lambda *_: None))
            await clock.advance(25)

        assert task.statistics().failed == 2

    async def test_a_cancellation_nobody_asked_for_is_a_failure(self) -> None:
        """A function that lets the CancelledError of a future out has failed, not vanished."""
        clock = VirtualClock()

        async def waits_for_the_dead() -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, waits_for_the_dead, on_error=lambda *_: None))
            await clock.advance(25)

        assert task.statistics().failed == 2
        assert task.statistics().cancelled == 0

    @staticmethod
    @on_both_loops
    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
    @pytest.mark.parametrize("limit", [None, 60.0])
    async def test_exit_ends_the_run_only(*, error: BaseException, limit: float | None) -> None:
        """SystemExit and KeyboardInterrupt of a function end its run, in the loop and in threads."""
        seen: list[BaseException] = []

        def plainly() -> None:
            raise error

        async with Scheduler() as s:
            for func in (functools.partial(_raise, error), plainly):
                task = s.add(IntervalTask(10, func, timeout=limit, on_error=lambda e, _: seen.append(e)))
                await task.run_now()
                assert task.statistics().failed == 1
                assert task.running

        assert [type(e) for e in seen] == [type(error)] * 2

    @staticmethod
    @on_both_loops
    async def test_exit_in_on_error(caplog: pytest.LogCaptureFixture) -> None:
        """A handler that calls sys.exit() does not end the application either."""

        def handler(error: BaseException, run: Run) -> None:
            sys.exit(4)

        async with Scheduler() as s:
            await s.add(IntervalTask(10, functools.partial(_raise, ValueError()), on_error=handler)).run_now()

        assert "on_error of task" in caplog.text

    @staticmethod
    @on_both_loops
    async def test_retries() -> None:
        """A failing attempt is made again after a wait, with its number in current_run()."""
        clock, watcher = VirtualClock(), Watcher()
        calls = Calls(clock)
        calls.fail = ValueError("no")

        async with scheduler(clock, on_event=watcher.append) as s:
            options = {"retry_wait": 1.0, "retries": 2, "on_error": lambda *_: None}
            task = s.add(IntervalTask(100, calls, **options))  # type: ignore[arg-type]
            await clock.advance(110)

        assert [run.attempt for run in calls.runs] == [1, 2, 3]
        assert len({run.id for run in calls.runs}) == 1
        assert 0.5 <= calls.at[1] - calls.at[0] <= 1
        assert 1 <= calls.at[2] - calls.at[1] <= 2
        statistics = task.statistics()
        assert (statistics.started, statistics.failed, statistics.retried) == (1, 1, 2)
        assert watcher.kinds() == ["failed"] * 3

    @staticmethod
    @on_both_loops
    async def test_retries_only_retry_on() -> None:
        """An exception outside of retry_on ends the run at once."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.fail = ValueError("no")

        async with scheduler(clock) as s:
            s.add(IntervalTask(100, calls, retries=5, retry_on=(OSError,), on_error=lambda *_: None))
            await clock.advance(110)

        assert calls.at == [100]

    @staticmethod
    @on_both_loops
    async def test_timeout_of_a_coroutine() -> None:
        """A coroutine over its time is cancelled, which is a failure; a fast one is not touched."""
        seen: list[BaseException] = []

        async with Scheduler() as s:
            slow = s.add(
                IntervalTask(100, anyio.sleep_forever, timeout=0.01, on_error=lambda e, _: seen.append(e))
            )
            fast = s.add(IntervalTask(100, checkpoint, timeout=60))
            await slow.run_now()
            await fast.run_now()

        assert isinstance(seen[0], RunTimeout)
        assert isinstance(seen[0], TimeoutError)
        assert (slow.statistics().timed_out, slow.statistics().failed) == (1, 1)
        assert fast.statistics().succeeded == 1

    @staticmethod
    @on_both_loops
    async def test_a_broken_trigger_ends_its_task() -> None:
        """A trigger that raises ends its own task, loudly; the others go on."""
        clock, watcher = VirtualClock(), Watcher()
        calls = Calls(clock)

        class Broken(IntervalTask):
            def _make_trigger(self, clock: Any) -> Any:
                trigger = super()._make_trigger(clock)

                class Bad(type(trigger)):  # type: ignore[misc]
                    def after(self, moment: float) -> float:
                        if moment > 1000:
                            raise ZeroDivisionError

                        return float(super().after(moment))

                return Bad(self.interval, origin=clock.monotonic())

        async with scheduler(clock, on_event=watcher.append) as s:
            broken = s.add(Broken(10, calls, name="broken"))
            good = s.add(IntervalTask(10, calls, name="good"))
            await clock.advance(25)
            assert (broken.running, good.running) == (False, True)

        assert "broken" in watcher.kinds()
        assert {run.name for run in calls.runs} == {"good"}

    @staticmethod
    @on_both_loops
    async def test_a_failing_watcher_harms_nobody() -> None:
        """An on_event that raises is logged."""
        clock = VirtualClock()
        calls = Calls(clock)

        def watch(event: object) -> None:
            raise RuntimeError("watcher")

        async with scheduler(clock, on_event=watch) as s:
            s.add(IntervalTask(10, calls, misfire_grace=1))
            await settle()
            clock.stall(14)
            await clock.advance(10)

        assert calls.at == [20]


async def _raise(error: BaseException) -> None:
    raise error
