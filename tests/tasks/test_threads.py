"""Plain functions, which run in threads."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import anyio.from_thread
import pytest
from anyio import from_thread

from tests.tasks._support import Watcher, on_both_loops
from ws_tasks import IntervalTask, Scheduler, current_run
from ws_tasks._threads import ThreadPool


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
    async def test_functions_reach_the_loop() -> None:
        """anyio.from_thread works in functions, and threads are used again."""
        seen: list[object] = []

        async def in_loop() -> str:
            return current_run().name

        def work() -> None:
            seen.append(anyio.from_thread.run(in_loop))
            from_thread.check_cancelled()
            seen.append(threading.current_thread().daemon)

        def stop() -> None:
            raise StopIteration

        async with Scheduler() as s:
            task = s.add(IntervalTask(100, work, name="work"))
            await task.run_now()
            await task.run_now()
            failing = s.add(IntervalTask(100, stop, name="stop", on_error=lambda *_: None))
            await failing.run_now()

        assert seen == ["work", True] * 2
        assert failing.statistics().failed == 1

    @pytest.mark.parametrize("loop", ["asyncio", "trio"])
    def test_a_thread_keeps_no_process_from_exiting(self, loop: str) -> None:
        """A function that outlives its timeout and the scheduler's end ends with the process."""
        program = f"""
import anyio, time
from ws_tasks import IntervalTask, Scheduler

async def main():
    async with Scheduler(drain_timeout=0.2) as scheduler:
        scheduler.add(IntervalTask(60, time.sleep, 600, timeout=0.1, immediate=True))
        await anyio.sleep(0.5)

anyio.run(main, backend={loop!r})
print("end of the program")
"""
        ran = subprocess.run(
            [sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=True
        )
        assert ran.stdout == "end of the program\n"

    def test_threads_end(self) -> None:
        """Threads that have nothing to do end with the pool, and the others when their function returns."""
        gate = threading.Event()
        pool = ThreadPool(8)

        def own() -> int:
            return sum(thread.name == "ws_tasks" and thread.is_alive() for thread in threading.enumerate())

        async def until(number: int) -> None:
            async with asyncio.timeout(20):
                while own() != number:
                    await asyncio.sleep(0.01)

        async def main() -> None:
            before = own()
            await asyncio.gather(*(pool.run(lambda: time.sleep(0.05)) for _ in range(4)))
            pool._idle = deque((moment - 60, inbox) for moment, inbox in pool._idle)
            await pool.run(int)
            await until(before + 1)  # the others have been idle for long
            busy = asyncio.create_task(pool.run(gate.wait))
            await asyncio.sleep(0.05)
            pool.close()
            gate.set()
            await busy
            await until(before)

        asyncio.run(main())

    def test_a_loop_that_is_gone(self) -> None:
        """A function whose loop has been closed meanwhile harms nobody."""
        gate, done = threading.Event(), threading.Event()

        def work() -> None:
            gate.wait(20)
            done.set()

        async def main() -> None:
            running = asyncio.create_task(ThreadPool(1).run(work))
            await asyncio.sleep(0.05)
            running.cancel()

        asyncio.run(main())
        gate.set()
        assert done.wait(20)

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


def test_a_loop_that_is_closed_before_it_reads_a_result() -> None:
    """The thread ends, though nobody answers it; the fixture that counts threads would see it."""
    loop = asyncio.new_event_loop()
    pool = ThreadPool(1)
    gate, entered = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        gate.wait()

    task = loop.create_task(pool.run(work))

    while not entered.is_set():
        loop.run_until_complete(asyncio.sleep(0.001))

    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    gate.set()

    while not loop._ready:  # type: ignore[attr-defined]  # what waits to be read
        time.sleep(0.001)

    loop.close()
