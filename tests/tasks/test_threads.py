"""Plain functions, which run in threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator
from typing import Any

from tests.tasks._support import Watcher, on_both_loops
from ws_tasks import IntervalTask, Scheduler, current_run


class TestThreads:
    @staticmethod
    @on_both_loops
    async def test_plain_functions_run_in_threads() -> None:
        """A plain function runs in a thread, with its arguments and current_run()."""
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

    @staticmethod
    @on_both_loops
    async def test_a_generator_that_is_returned_never_runs() -> None:
        """A plain function that returns a generator has not done its work: that is a failure."""
        seen: list[str] = []

        async def forever() -> AsyncIterator[int]:
            yield 1

        async with Scheduler() as s:
            for func in (lambda: (number for number in range(3)), lambda: forever()):  # noqa: PLW0108
                task = IntervalTask(100, func, on_error=lambda e, _: seen.append(str(e)))
                await s.add(task).run_now()

        assert ["which never runs" in text for text in seen] == [True, True]
