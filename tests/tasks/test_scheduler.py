"""Tasks and the scheduler on a virtual clock: when runs happen, and what becomes of each."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.tasks._support import START, VirtualClock, Watcher, on_both_loops, settle
from ws_core.errors import ClosedError, NotReadyError, UsageError
from ws_tasks import (
    CrontabTask,
    Guard,
    IntervalTask,
    NotStartedError,
    OnceTask,
    Run,
    RunTimeout,
    ScheduleError,
    Scheduler,
    TaskInterface,
    current_run,
)
from ws_tasks._timeline import Timeline


class Calls:
    """An async function that notes when it was called, and for which nominal time."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.at: list[float] = []
        self.runs: list[Run] = []
        self.hold: anyio.Event | None = None
        self.fail: BaseException | None = None

    async def __call__(self) -> None:
        """Note the call."""
        self.at.append(self.clock.monotonic() - 1000)
        self.runs.append(current_run())

        if self.hold is not None:
            await self.hold.wait()

        if self.fail is not None:
            raise self.fail


def scheduler(clock: VirtualClock, **options: Any) -> Scheduler:  # any option of the class
    """Make a scheduler on a virtual clock."""
    return Scheduler(clock=clock, **options)


class TestTiming:
    @staticmethod
    @on_both_loops
    async def test_interval_keeps_its_pace() -> None:
        """Runs happen one interval apart, from one interval after the start."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls))
            assert task.next_run_time == datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
            await clock.advance(35)

        assert calls.at == [10, 20, 30]
        assert [run.scheduled_at.second for run in calls.runs] == [10, 20, 30]
        assert task.statistics().succeeded == 3

    @staticmethod
    @on_both_loops
    async def test_immediate_runs_at_the_start_too() -> None:
        """The first run is made at once, the pace counted from the start."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(IntervalTask(0.1, calls, immediate=True))
            await clock.advance(0.25)

        assert calls.at == pytest.approx([0, 0.1, 0.2])

    @staticmethod
    @on_both_loops
    async def test_jitter_moves_the_waking_only() -> None:
        """Each run is late by up to the jitter, and the nominal times stay on the grid."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(IntervalTask(10, calls, jitter=9.5))
            await clock.advance(2009.9)

        assert len(calls.at) == 200
        assert [run.scheduled_at.timestamp() - START for run in calls.runs] == [
            10.0 * n for n in range(1, 201)
        ]
        lateness = [at - 10 * n for n, at in enumerate(calls.at, 1)]
        assert min(lateness) >= 0
        assert 8 < max(lateness) <= 9.5

    @staticmethod
    @on_both_loops
    async def test_crontab_follows_the_wall_clock() -> None:
        """A crontab task runs at the named minutes."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            task = s.add(CrontabTask("*/5 * * * *", calls, tz="UTC"))
            assert task.next_run_time == datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
            await clock.advance(600)

        assert calls.at == [300, 600]

    @staticmethod
    @on_both_loops
    async def test_once() -> None:
        """A one-shot task runs once, then it has ended and left its scheduler."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            tasks = [
                s.add(OnceTask(5, calls)),
                s.add(OnceTask(timedelta(seconds=6), calls)),
                s.add(OnceTask(datetime.fromtimestamp(START + 7, UTC), calls)),
                s.add(OnceTask(datetime(2026, 1, 1, 2, 0, 8), calls, tz="Europe/Riga")),  # noqa: DTZ001
                s.add(OnceTask(datetime(2020, 1, 1, tzinfo=UTC), calls)),
            ]
            await clock.advance(20)
            assert not any(task.running for task in tasks)
            assert s.tasks() == []

        assert calls.at == [0, 5, 6, 7, 8]

    @staticmethod
    @on_both_loops
    async def test_misfire_grace_drops_what_is_too_late() -> None:
        """A run later than its grace is skipped, counted and told; without one it is made late."""
        clock, watcher = VirtualClock(), Watcher()
        strict, lenient = Calls(clock), Calls(clock)

        async with scheduler(clock, on_event=watcher.append) as s:
            task = s.add(IntervalTask(10, strict, misfire_grace=1))
            s.add(IntervalTask(10, lenient))
            await settle()
            clock.stall(14)
            await clock.advance(7)

        assert strict.at == [20]
        assert lenient.at == [14, 20]
        assert task.statistics().skipped == {"overlap": 0, "late": 1, "coalesced": 0}
        assert watcher.kinds() == ["skipped_late"]

    @staticmethod
    @on_both_loops
    async def test_coalesce_latest() -> None:
        """After a stall one run is made, for the latest nominal time; the others are counted."""
        clock, watcher = VirtualClock(), Watcher()
        calls = Calls(clock)

        async with scheduler(clock, on_event=watcher.append) as s:
            task = s.add(IntervalTask(10, calls))
            await settle()
            clock.stall(35)
            await clock.advance(6)

        assert calls.at == [35, 40]
        assert [run.scheduled_at.second for run in calls.runs] == [30, 40]
        assert task.statistics().skipped["coalesced"] == 2
        assert watcher.kinds() == ["coalesced"]

    @staticmethod
    @on_both_loops
    async def test_coalesce_all() -> None:
        """After a stall each missed run is made, one after the other."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(IntervalTask(10, calls, coalesce="all", overlap="queue"))
            await settle()
            clock.stall(35)
            await clock.advance(6)

        assert [run.scheduled_at.second for run in calls.runs] == [10, 20, 30, 40]

    @staticmethod
    @on_both_loops
    async def test_a_large_batch_lets_others_run() -> None:
        """More due runs than one batch are made all the same, with turns for others in between."""
        clock = VirtualClock()
        turns = made = 0

        async def count() -> None:
            nonlocal made
            made += 1

        async def other() -> None:
            nonlocal turns

            while made < 2000:
                turns += 1
                await checkpoint()

        async with scheduler(clock) as s, anyio.create_task_group() as group:
            for _ in range(2000):
                s.add(IntervalTask(10, count))

            await settle()
            clock.stall(10)
            group.start_soon(other)
            await clock.advance(0)

        assert made == 2000
        assert turns >= 3

    @staticmethod
    @on_both_loops
    async def test_a_clock_set_forward() -> None:
        """What became due by the step is noticed within half a minute and runs once, late."""
        clock, watcher = VirtualClock(), Watcher()
        calls = Calls(clock)

        async with scheduler(clock, on_event=watcher.append) as s:
            s.add(CrontabTask("0 * * * *", calls, tz="UTC"))
            await clock.advance(10)
            clock.step(3600)
            await clock.advance(30)

        assert len(calls.at) == 1
        assert calls.at[0] <= 40
        assert "clock_step" in watcher.kinds()

    @staticmethod
    @on_both_loops
    async def test_a_clock_set_back() -> None:
        """Elapsed-time tasks go on from the new time, fixed times do not run again, intervals do not care."""
        clock = VirtualClock(START - 60)
        every, fixed, interval = Calls(clock), Calls(clock), Calls(clock)

        async with scheduler(clock) as s:
            s.add(CrontabTask("* * * * *", every, tz="UTC"))
            s.add(CrontabTask("0 0 * * *", fixed, tz="UTC"))
            s.add(IntervalTask(60, interval))
            await clock.advance(61)
            assert (len(every.at), len(fixed.at), len(interval.at)) == (1, 1, 1)
            clock.step(-3600)
            await clock.advance(600)
            assert len(every.at) == 11
            assert len(interval.at) == 11
            await clock.advance(3600)
            assert len(fixed.at) == 1

    @staticmethod
    @on_both_loops
    async def test_a_wrong_date_is_corrected() -> None:
        """After a step back of more than three hours also fixed times start anew."""
        clock = VirtualClock(START + 86400 * 365)
        calls = Calls(clock)

        async with scheduler(clock) as s:
            task = s.add(CrontabTask("0 12 * * *", calls, tz="UTC"))
            await clock.advance(1)
            clock.step(-86400 * 365)
            await clock.advance(31)
            assert task.next_run_time == datetime(2026, 1, 1, 12, tzinfo=UTC)


class TestOverlap:
    @staticmethod
    @on_both_loops
    async def test_skip() -> None:
        """A run due while another is under way is not made, but counted and told."""
        clock, watcher = VirtualClock(), Watcher()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock, on_event=watcher.append) as s:
            task = s.add(IntervalTask(10, calls))
            await clock.advance(35)
            assert (len(calls.at), task.statistics().running) == (1, 1)
            assert task.statistics().skipped["overlap"] == 2
            calls.hold.set()
            await clock.advance(5)

        assert calls.at == [10, 40]
        assert watcher.kinds() == ["skipped_overlap"] * 2

    @staticmethod
    @on_both_loops
    async def test_queue_has_a_bound() -> None:
        """Runs wait for the one before, as many as the queue may hold."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, overlap="queue", max_queued=2))
            await clock.advance(45)
            assert task.statistics().queued == 2
            assert task.statistics().skipped["overlap"] == 1
            calls.hold.set()
            await settle()

        assert calls.at == [10, 45, 45]
        assert [run.scheduled_at.second for run in calls.runs] == [10, 20, 30]

    @staticmethod
    @on_both_loops
    async def test_cancel_previous() -> None:
        """The run under way is cancelled, and the new one begins when it has ended."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, overlap="cancel_previous"))
            await clock.advance(25)
            assert task.statistics().cancelled == 1
            task.run_now()
            task.run_now()
            await settle()
            assert task.statistics().cancelled == 3
            calls.hold.set()
            await settle()

        assert task.statistics().succeeded == 1
        assert calls.at == [10, 20, 25]

    @staticmethod
    @on_both_loops
    async def test_max_instances() -> None:
        """So many runs may be under way at once."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, max_instances=2))
            await clock.advance(35)
            assert task.statistics().running == 2
            calls.hold.set()


class TestFailures:
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

    def test_exit_is_no_failure(self) -> None:
        """A function that ends the program does so."""

        async def main() -> None:
            async with scheduler(VirtualClock()) as s:
                await s.add(IntervalTask(10, functools.partial(_raise, SystemExit(3)))).run_now()

        with pytest.raises(BaseException) as caught:
            anyio.run(main, backend="trio")

        leaf: BaseException = caught.value

        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]

        assert isinstance(leaf, SystemExit)

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
        assert 1 <= calls.at[1] - calls.at[0] <= 2
        assert 2 <= calls.at[2] - calls.at[1] <= 3
        statistics = task.statistics()
        assert (statistics.started, statistics.failed, statistics.retried) == (1, 1, 2)
        assert watcher.kinds() == ["failed"] * 3

    @staticmethod
    @on_both_loops
    async def test_retries_only_what_is_told() -> None:
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


class TestThreads:
    @staticmethod
    @on_both_loops
    async def test_plain_functions_run_in_threads() -> None:
        """A plain function gets its arguments, and current_run(), in a thread of its own."""
        seen: list[tuple[object, ...]] = []

        def work(*args: object, **kwargs: object) -> None:
            seen.append(
                (args, kwargs, current_run().name, threading.current_thread() is threading.main_thread())
            )

        async with Scheduler() as s:
            await s.add(IntervalTask(100, work, 1, kwargs={"b": 2}, name="work")).run_now()
            await s.add(IntervalTask(100, work, name="timed", timeout=60)).run_now()

        assert seen == [((1,), {"b": 2}, "work", False), ((), {}, "timed", False)]

    @staticmethod
    @on_both_loops
    async def test_a_lambda_may_make_a_coroutine() -> None:
        """What a plain function returns is awaited when it can be."""
        seen: list[int] = []

        async def note(value: int) -> None:
            seen.append(value)

        async with Scheduler() as s:
            await s.add(IntervalTask(100, lambda: note(1))).run_now()
            await s.add(IntervalTask(100, functools.partial(note, 2))).run_now()

        assert seen == [1, 2]

    @staticmethod
    @on_both_loops
    async def test_timeout_of_a_thread() -> None:
        """It is announced when due, and the run ends as timed out when the function returns."""
        gate = threading.Event()
        watcher = Watcher()

        def watch(event: Any) -> None:
            watcher.append(event)

            if event.kind == "overdue":
                gate.set()

        async with Scheduler(on_event=watch) as s:
            task = s.add(IntervalTask(100, gate.wait, timeout=0.01, on_error=lambda *_: None))
            await task.run_now()

        assert watcher.kinds() == ["overdue", "timed_out"]
        assert task.statistics().timed_out == 1

    @staticmethod
    @on_both_loops
    async def test_errors_in_threads() -> None:
        """An exception comes out the same, with and without a timeout."""
        seen: list[BaseException] = []

        def work() -> None:
            raise ValueError("no")

        async with Scheduler() as s:
            for timeout in (None, 60.0):
                task = IntervalTask(100, work, timeout=timeout, on_error=lambda e, _: seen.append(e))
                await s.add(task).run_now()

        assert [repr(error) for error in seen] == ["ValueError('no')"] * 2


class TestControl:
    @staticmethod
    @on_both_loops
    async def test_stop_waits_only_when_awaited() -> None:
        """stop() makes no more runs; its result waits for the run under way."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, overlap="queue"))
            await clock.advance(25)
            end = task.stop()
            assert (task.running, task.next_run_time) == (False, None)
            assert task.statistics().running == 1
            calls.hold.set()
            await end
            await end
            assert task.statistics().running == 0
            await clock.advance(50)
            await task.stop()

        assert calls.at == [10]
        assert task.statistics().cancelled == 1, "the queued run"
        assert repr(task).endswith("stopped>")

    @staticmethod
    @on_both_loops
    async def test_stop_can_cancel() -> None:
        """stop(cancel=True) cancels the run under way."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls))
            await clock.advance(15)
            await task.stop(cancel=True)

        assert task.statistics().cancelled == 1

    @staticmethod
    @on_both_loops
    async def test_pause_and_resume_keep_the_grid() -> None:
        """Nothing happens while paused, and afterwards the old nominal times go on."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls))
            await clock.advance(15)
            task.pause()
            task.pause()
            assert (task.running, task.next_run_time) == (True, None)
            await clock.advance(28)
            task.resume()
            task.resume()
            await clock.advance(10)
            task.pause()
            await task.stop()

        assert calls.at == [10, 50]

    @staticmethod
    @on_both_loops
    async def test_a_single_run_survives_a_pause() -> None:
        """A one-shot task whose time passed while paused runs when it is resumed."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            task = s.add(OnceTask(10, calls))
            task.pause()
            await clock.advance(20)
            task.resume()
            await clock.advance(1)

        assert calls.at == [20]

    @staticmethod
    @on_both_loops
    async def test_run_now() -> None:
        """A run beside the schedule can be waited for, and obeys the overlap rule."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls))
            first = task.run_now()
            await task.run_now()
            assert task.statistics().skipped["overlap"] == 1
            calls.hold.set()
            await first
            task.stop()

            with pytest.raises(NotStartedError, match="was stopped"):
                task.run_now()

        assert calls.at == [0]

    @staticmethod
    @on_both_loops
    async def test_restart() -> None:
        """A stopped task can be started again, its counters going on."""
        clock = VirtualClock()
        calls = Calls(clock)

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls))
            await clock.advance(15)
            task.stop()
            task.start(s)
            await clock.advance(10)

        assert calls.at == [10, 25]
        assert task.statistics().succeeded == 2

    @staticmethod
    @on_both_loops
    async def test_tags() -> None:
        """Tasks can be listed, paused, resumed and stopped by tag."""
        clock = VirtualClock()
        a, b = Calls(clock), Calls(clock)

        async with scheduler(clock) as s:
            one, two = s.add(IntervalTask(10, a, tag="a")), s.add(IntervalTask(10, b, tag="b"))
            assert (s.tasks("a"), s.tasks()) == ([one], [one, two])
            s.pause("a")
            await clock.advance(10)
            s.resume("a")
            s.stop("b")
            await clock.advance(10)
            assert s.statistics() == {"tasks": 1, "running": 0, "threads": 0}
            assert repr(s) == "<Scheduler 'default' open, 1 tasks>"

        assert (a.at, b.at) == ([20], [10])

    @staticmethod
    @on_both_loops
    async def test_misuse() -> None:
        """Each wrong call is refused with what to do."""
        clock = VirtualClock()
        calls = Calls(clock)
        task = IntervalTask(10, calls)
        assert isinstance(task, TaskInterface)

        for call in (task.stop, task.pause, task.resume, task.run_now):
            with pytest.raises(NotStartedError, match="before it is started"):
                call()

        s = scheduler(clock)
        assert repr(s) == "<Scheduler 'default' new, 0 tasks>"

        with pytest.raises(UsageError, match="async with"):
            task.start(s)

        async with s:
            task.start(s)

            with pytest.raises(UsageError, match="started already"):
                task.start(s)

            with pytest.raises(UsageError, match="open already"):
                await s.__aenter__()

        with pytest.raises(ClosedError):
            task.start(s)

        with pytest.raises(ClosedError, match="make a new one"):
            async with s:
                pass

        with pytest.raises(NotReadyError):
            current_run()

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"jitter": -1}, "jitter=-1"),
            ({"jitter": 11}, "longer than interval"),
            ({"timeout": 0}, "timeout=0"),
            ({"misfire_grace": -1}, "misfire_grace=-1"),
            ({"overlap": "drop"}, "overlap='drop'"),
            ({"coalesce": "none"}, "coalesce='none'"),
            ({"coalesce": "all"}, 'overlap="queue"'),
            ({"max_instances": 0}, "max_instances=0"),
            ({"overlap": "cancel_previous", "max_instances": 2}, "max_instances=1"),
            ({"retries": 1.5}, "retries=1.5"),
            ({"retry_on": "ValueError"}, "retry_on='ValueError'"),
            ({"retry_on": (KeyboardInterrupt,)}, "retry_on="),
            ({"on_error": 5}, "on_error=5"),
            ({"guard": object()}, "claim"),
            ({"colour": "red"}, "unknown options: colour"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], part: str) -> None:
        """An option that is wrong is named when the task is made."""
        with pytest.raises(ScheduleError) as caught:
            IntervalTask(10, checkpoint, **options)

        assert part in str(caught.value)

    def test_bad_functions(self) -> None:
        """What cannot be called, or not cancelled, is refused."""
        with pytest.raises(ScheduleError, match="not 5"):
            IntervalTask(10, 5)  # type: ignore[arg-type]

        with pytest.raises(ScheduleError, match="async function"):
            IntervalTask(10, print, overlap="cancel_previous")

        with pytest.raises(ScheduleError, match="needs a date"):
            OnceTask(10, print, guard=Claims())

        with pytest.raises(ScheduleError, match="when=-1"):
            OnceTask(-1, print)

    def test_names(self) -> None:
        """A task is named after its function, whatever kind that is."""
        assert IntervalTask(1, checkpoint).name == "anyio.lowlevel.checkpoint"
        assert IntervalTask(1, functools.partial(print)).name == "builtins.print"
        assert IntervalTask(1, Claims()).name.endswith("Claims")
        assert IntervalTask(1, print, name="x").name == "x"

    def test_options_that_cannot_be_shared(self) -> None:
        """Options holding something unhashable work too."""

        class Handler(list[object]):
            def __call__(self, *args: object) -> None:
                self.append(args)

        assert IntervalTask(1, print, on_error=Handler()).options.on_error is not None
        assert IntervalTask(1, print, retries=2).options is IntervalTask(1, print, retries=2).options


class TestClosing:
    @staticmethod
    @on_both_loops
    async def test_drains() -> None:
        """Leaving the block waits for the run under way."""
        clock = VirtualClock()
        calls = Calls(clock)
        calls.hold = anyio.Event()

        async with scheduler(clock) as s, anyio.create_task_group() as group:
            task = s.add(IntervalTask(10, calls))
            await clock.advance(15)

            async def release() -> None:
                await settle()
                assert calls.hold is not None
                calls.hold.set()

            group.start_soon(release)
            assert await s.close() == ()

        assert task.statistics().succeeded == 1
        assert not task.running

    @staticmethod
    @on_both_loops
    async def test_cancels_after_the_deadline() -> None:
        """A run that goes on too long is cancelled; it can clean up under a shield."""
        cleaned = False

        async def stubborn() -> None:
            nonlocal cleaned

            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await settle()

                cleaned = True

        async with Scheduler(drain_timeout=0) as s:
            task = s.add(IntervalTask(10, stubborn))
            task.run_now()
            await settle()

        assert cleaned
        assert task.statistics().cancelled == 1

    @staticmethod
    @on_both_loops
    async def test_names_threads_that_go_on(caplog: pytest.LogCaptureFixture) -> None:
        """A thread cannot be interrupted; closing does not hang but says which run goes on."""
        gate, entered = threading.Event(), threading.Event()

        def work() -> None:
            entered.set()
            gate.wait()

        async with Scheduler() as s:
            task = s.add(IntervalTask(10, work, name="slow"))
            task.run_now()
            await anyio.to_thread.run_sync(entered.wait)
            [left] = await s.close(timeout=0)

        assert left.startswith("slow@")
        assert "these runs go on: slow@" in caplog.text
        gate.set()

    @staticmethod
    @on_both_loops
    async def test_the_body_error_comes_out_as_it_is() -> None:
        """An exception of the block is not wrapped into a group."""
        with pytest.raises(KeyError):
            async with scheduler(VirtualClock()):
                raise KeyError

    @staticmethod
    @on_both_loops
    async def test_cancelling_the_block() -> None:
        """A cancelled block drains all the same, and the cancellation goes on outwards."""
        clock = VirtualClock()
        calls = Calls(clock)

        with anyio.CancelScope() as scope:
            async with scheduler(clock) as s:
                task = s.add(IntervalTask(10, calls))
                task.run_now()
                scope.cancel()
                await anyio.sleep_forever()

        assert scope.cancelled_caught
        assert task.statistics().succeeded == 1

    @staticmethod
    @on_both_loops
    async def test_without_a_block() -> None:
        """start() opens in the background, for those whose start and close are far apart."""
        s = Scheduler()
        s.start()
        task = s.add(IntervalTask(3600, checkpoint))
        await task.run_now()

        with pytest.raises(UsageError, match="open already"):
            s.start()

        with pytest.raises(UsageError, match="open already"):
            await s.__aenter__()

        assert await s.close() == ()
        assert not task.running

        with pytest.raises(ClosedError):
            s.start()

    def test_needs_a_loop(self) -> None:
        """Without a running event loop a scheduler cannot be started."""
        with pytest.raises(UsageError, match="no event loop"):
            Scheduler().start()

    @staticmethod
    @on_both_loops
    async def test_closing_twice_or_unopened() -> None:
        """close() may be called again, and without opening."""
        s = scheduler(VirtualClock())
        assert await s.close() == ()

        async with scheduler(VirtualClock()) as s:
            await s.close()
            assert await s.close() == ()
            assert s.closed


class TestDefaultScheduler:
    @staticmethod
    @on_both_loops
    async def test_starts_by_itself() -> None:
        """A task started on its own runs in the loop's scheduler, one for all."""
        seen: list[int] = []

        async def note(value: int) -> None:
            seen.append(value)

        one, two = IntervalTask(3600, note, 1), IntervalTask(3600, note, 2)
        one.start()
        first = one.run_now()
        two.start()
        assert one.scheduler is two.scheduler
        await first
        await two.run_now()
        assert seen == [1, 2]
        await one.stop()
        assert one.scheduler is not None
        await one.scheduler.close()
        one.start()
        assert one.scheduler is not two.scheduler
        await one.run_now()
        await one.stop()

    @staticmethod
    @on_both_loops
    async def test_an_open_scheduler_is_found() -> None:
        """Inside of a scheduler's block, tasks start there."""
        async with Scheduler() as s:
            task = IntervalTask(3600, checkpoint)
            task.start()
            assert task.scheduler is s

    @staticmethod
    @on_both_loops
    async def test_ends_with_the_loop() -> None:
        """Nobody has to close the default scheduler: a running loop takes it along."""
        task = IntervalTask(3600, anyio.sleep_forever)
        task.start()
        task.run_now()
        await settle()

    async def test_the_death_of_the_scheduler_is_loud(self, caplog: pytest.LogCaptureFixture) -> None:
        """A bug of the scheduler itself does not end all tasks in silence."""
        task = IntervalTask(3600, checkpoint)
        task.start()
        await settle()
        assert task.scheduler is not None

        task.scheduler.clock = None  # type: ignore[assignment]
        assert task.scheduler._wake is not None
        assert task.scheduler._host is not None
        task.scheduler._wake.set()
        await asyncio.wait([task.scheduler._host])
        assert "has died" in caplog.text

    def test_needs_a_loop(self) -> None:
        """Without a running event loop a task cannot be started."""
        with pytest.raises(UsageError, match="no event loop"):
            IntervalTask(1, print).start()

    async def test_another_loop_is_refused(self) -> None:
        """A task started in one loop cannot be used from another loop or thread."""
        task = IntervalTask(3600, checkpoint)
        task.start()
        errors: list[BaseException] = []

        def use(call: Callable[[], object]) -> None:
            try:
                call()
            except UsageError as error:
                errors.append(error)

        async def elsewhere() -> None:
            task.stop()

        await anyio.to_thread.run_sync(use, task.stop)
        await anyio.to_thread.run_sync(use, lambda: asyncio.run(elsewhere()))
        assert ["another event loop" in str(error) for error in errors] == [True, True]
        await task.stop()


class Claims:
    """A guard that several schedulers share, like a set of keys on a server."""

    def __init__(self, claimed: set[str] | None = None) -> None:
        self.claimed = set() if claimed is None else claimed
        self.fail: Exception | None = None

    async def claim(self, run_id: str, ttl: float) -> bool:
        """Claim a run once."""
        await checkpoint()
        assert ttl == 3600

        if self.fail is not None:
            raise self.fail

        if run_id in self.claimed:
            return False

        self.claimed.add(run_id)
        return True

    def __call__(self) -> None:
        """Be a function as well, for test_names."""


class TestGuard:
    @staticmethod
    @on_both_loops
    async def test_each_run_is_made_once() -> None:
        """Of several schedulers with one guard, exactly one makes each nominal run."""
        await _guarded(Claims)

    @staticmethod
    @on_both_loops
    async def test_a_guard_that_lets_everybody_in_is_caught() -> None:
        """The test above fails with a guard that is none."""

        class Open(Claims):
            async def claim(self, run_id: str, ttl: float) -> bool:
                return True

        with pytest.raises(AssertionError):
            await _guarded(Open)

    @staticmethod
    @on_both_loops
    async def test_a_failing_guard_makes_no_run() -> None:
        """Without an answer the run is not made, but reported."""
        clock = VirtualClock()
        calls, guard = Calls(clock), Claims()
        guard.fail = ConnectionError("gone")
        seen: list[BaseException] = []

        async with scheduler(clock) as s:
            task = s.add(IntervalTask(10, calls, guard=guard, on_error=lambda e, _: seen.append(e)))
            await clock.advance(10)

        assert calls.at == []
        assert [str(error) for error in seen] == ["gone"]
        assert task.statistics().last_error == "guard: ConnectionError: gone"

    @staticmethod
    @on_both_loops
    async def test_guarded_intervals_lie_on_a_common_grid() -> None:
        """With a guard the nominal times are multiples of the interval, whenever the task started."""
        clock = VirtualClock(START + 3)
        calls = Calls(clock)

        async with scheduler(clock) as s:
            s.add(IntervalTask(10, calls, guard=Claims(), immediate=True))
            await clock.advance(10)

        assert [run.id[-14:] for run in calls.runs] == ["00:00:00+00:00", "00:00:10+00:00"]
        assert isinstance(Claims(), Guard)


async def _guarded(make: Callable[[set[str]], Claims]) -> None:
    clock = VirtualClock()
    claimed: set[str] = set()
    workers = [Calls(clock) for _ in range(5)]
    tasks: list[IntervalTask | CrontabTask] = []

    async with scheduler(clock) as s:
        for calls in workers:
            tasks.append(s.add(IntervalTask(10, calls, name="shared", guard=make(claimed))))
            tasks.append(s.add(CrontabTask("* * * * *", calls, name="cron", tz="UTC", guard=make(claimed))))

        await clock.advance(125)

    runs = sorted(run.id for calls in workers for run in calls.runs)
    assert len(runs) == len(set(runs)) == 12 + 2
    assert sum(task.statistics().claimed_elsewhere for task in tasks) == 4 * 14


def test_timeline_forgets_the_stale() -> None:
    """Starting and stopping for ever does not grow the heap."""
    timeline = Timeline()
    task = IntervalTask(1, print)
    other = IntervalTask(1, print)
    timeline.push(0, other)

    for round_ in range(10_000):
        timeline.push(round_, task)
        timeline.discard(task)
        timeline.discard(task)

    assert len(timeline) == 1
    assert len(timeline._heap) < 200
    assert list(timeline) == [other]
    assert timeline.first() == 0
    assert timeline.pop() is other
    assert timeline.first() is None


async def _raise(error: BaseException) -> None:
    raise error
