"""The end of a scheduler: what it waits for, and what it reports."""

from __future__ import annotations

import threading

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.tasks._support import Calls, VirtualClock, on_both_loops, scheduler, settle
from ws_core.errors import ClosedError, UsageError
from ws_tasks import IntervalTask, Scheduler


class TestShutdown:
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
