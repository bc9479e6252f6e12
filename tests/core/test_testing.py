"""Virtual time, and cancellation at every await."""

from __future__ import annotations

import asyncio
import inspect
import threading
from datetime import timedelta, timezone

import pytest

from ws_core.errors import UsageError
from ws_core.testing import (
    StuckError,
    VirtualClock,
    VirtualLoop,
    cancel_at_every_await,
    leftover_tasks,
    run_virtual,
    settle,
    virtual_clock,
    virtual_time,
)


class TestClock:
    """`VirtualClock`."""

    def test_moves_when_told(self) -> None:
        """Monotonic time and the time of day move together, by hand."""
        clock = VirtualClock(100.0, epoch=0.0)
        clock.advance(1.5)

        assert (clock(), clock.time()) == (101.5, 1.5)
        assert repr(clock) == "<VirtualClock 101.5 s, 1970-01-01T00:00:01.500000+00:00>"

    def test_steps(self) -> None:
        """A step moves the time of day alone."""
        clock = VirtualClock(epoch=0.0)
        clock.step(-3600)

        assert (clock(), clock.time()) == (0.0, -3600.0)
        assert clock.now(timezone(timedelta(hours=2))).hour == 1

    def test_never_goes_back(self) -> None:
        """Monotonic time cannot be moved back."""
        with pytest.raises(ValueError, match="cannot go back by 1 s"):
            VirtualClock().advance(-1)


class TestLoop:
    """`VirtualLoop` and what runs in it."""

    @virtual_time
    async def test_time_jumps_to_each_timer(self) -> None:
        """Sleeps end in the order of their times, exactly at those."""
        clock = virtual_clock()
        seen: list[tuple[str, float]] = []

        async def sleep(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, clock()))

        async with asyncio.TaskGroup() as group:
            for name, seconds in {"day": 86_400.0 * 3, "hour": 3600.0, "moment": 0.25}.items():
                group.create_task(sleep(name, seconds))

        assert seen == [("moment", 0.25), ("hour", 3600.0), ("day", 86_400.0 * 3)]

    @virtual_time
    async def test_timeouts(self) -> None:
        """A timeout that is longer than the work does not fire; a shorter one does, in time."""
        async with asyncio.timeout(3600):
            await asyncio.sleep(3599)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.Event().wait()

        assert virtual_clock()() == 3600.0

    @virtual_time
    async def test_long_times_are_exact(self) -> None:
        """After years of sleeps, timers still fire when they are due."""
        for _ in range(1000):
            await asyncio.sleep(86_400.1)

        assert virtual_clock()() == pytest.approx(86_400_100.0)

    @virtual_time
    async def test_advance_by_hand(self) -> None:
        """Moving the clock makes due timers fire at the next turn, and no others."""
        early, late = (asyncio.create_task(asyncio.sleep(seconds)) for seconds in (1, 100))
        await settle()
        virtual_clock().advance(50)
        await settle()

        assert (early.done(), late.done()) == (True, False)
        assert virtual_clock()() == 50
        await late

    @virtual_time
    async def test_settle(self) -> None:
        """Settling lets chains of ready tasks run to their ends, and moves no time."""
        steps = 0

        async def chain(left: int) -> None:
            nonlocal steps
            steps += 1

            if left:
                await asyncio.create_task(chain(left - 1))

        task = asyncio.create_task(chain(50))
        await asyncio.gather(settle(), settle())

        assert (steps, task.done(), virtual_clock()()) == (51, True, 0.0)

    @virtual_time
    async def test_a_cancelled_settle(self) -> None:
        """A settle that was cancelled wakes nobody."""
        waits = asyncio.create_task(settle())
        await asyncio.sleep(0)
        waits.cancel()
        await settle()

        assert waits.cancelled()

    def test_stuck(self) -> None:
        """When nothing would ever happen again, the error names the tasks that wait."""

        async def main() -> None:
            asyncio.current_task().set_name("main")  # type: ignore[union-attr]  # there is one
            waits = asyncio.create_task(asyncio.Event().wait(), name="other")
            await waits

        with pytest.raises(StuckError, match="would hang for ever: main, other"):
            run_virtual(main())

    @virtual_time
    async def test_threads_take_no_time(self) -> None:
        """A thread is waited for in real time, and meanwhile no timer fires."""
        go = threading.Event()
        asyncio.get_running_loop().call_soon(go.set)

        async with asyncio.timeout(0.001):
            assert await asyncio.to_thread(go.wait, 20)

        assert virtual_clock()() == 0.0

    @virtual_time
    async def test_no_sockets(self) -> None:
        """Real connections are refused with an error that says what to do."""
        with pytest.raises(UsageError, match="use a fake here"):
            await asyncio.open_connection("127.0.0.1", 9)

    @pytest.mark.parametrize("value", [5])
    @virtual_time
    async def test_parameters_pass(self, value: int) -> None:
        """The decorator keeps parameters, so that test runners give fixtures."""
        assert value == 5

    def test_decorated_tests_are_plain_functions(self) -> None:
        """A decorated test is not a coroutine function; its result is returned."""

        @virtual_time
        async def test(value: int) -> float:
            await asyncio.sleep(value)
            return virtual_clock()()

        assert not inspect.iscoroutinefunction(test)
        assert list(inspect.signature(test).parameters) == ["value"]
        assert test(3) == 3.0

    def test_a_given_clock(self) -> None:
        """The loop reads and sets the clock that it is given."""
        clock = VirtualClock(10.0)
        run_virtual(asyncio.sleep(5), clock=clock)

        assert clock() == 15.0

    async def test_in_real_time(self) -> None:
        """What needs virtual time says so elsewhere."""
        with pytest.raises(UsageError, match="is not in virtual time"):
            virtual_clock()

        with pytest.raises(UsageError, match="is not in virtual time"):
            await settle()

    def test_a_loop_by_itself(self) -> None:
        """The loop can be used like any other."""
        loop = VirtualLoop()

        try:
            loop.run_until_complete(asyncio.sleep(7))
            assert loop.clock() == loop.time() == 7.0
        finally:
            loop.close()


class TestCancelling:
    """`cancel_at_every_await` and `leftover_tasks`."""

    @virtual_time
    async def test_each_await_once(self) -> None:
        """A coroutine is cancelled at each of its awaits, nested ones included, and run to its end once."""
        reached: list[int] = []
        checks = 0

        async def inner() -> None:
            await asyncio.sleep(1)
            reached.append(2)
            await asyncio.sleep(0)
            reached.append(3)

        async def job() -> None:
            await asyncio.sleep(1)
            reached.append(1)
            await inner()

        async def check() -> None:
            nonlocal checks
            checks += 1

        assert await cancel_at_every_await(job, check=check) == 3
        assert reached == [1, 1, 2, 1, 2, 3]
        assert checks == 4

    @virtual_time
    async def test_twice(self) -> None:
        """With "twice", the clean-up of a cancelled run is cancelled at each of its awaits as well."""
        log: list[str] = []

        async def job() -> None:
            try:
                await asyncio.sleep(1)
            finally:
                log.append("clean")
                await asyncio.sleep(1)
                log.append("half")
                await asyncio.sleep(1)
                log.append("whole")

        assert await cancel_at_every_await(job, twice=True, check=lambda: log.append("/")) == 3
        assert " ".join(log).split(" / ")[:3] == ["clean half whole", "clean", "clean half"]

    @virtual_time
    async def test_finds_leaks(self) -> None:
        """A resource that is lost when cancelled between two awaits is found, and the good twin passes."""
        free = 1

        async def leaky() -> None:
            nonlocal free
            free -= 1
            await asyncio.sleep(1)
            free += 1

        async def tight() -> None:
            nonlocal free
            free -= 1

            try:
                await asyncio.sleep(1)
            finally:
                free += 1

        def check() -> None:
            assert free == 1

        assert await cancel_at_every_await(tight, check=check) == 1

        with pytest.raises(AssertionError):
            await cancel_at_every_await(leaky, check=check)

    @virtual_time
    async def test_swallowed(self) -> None:
        """A coroutine that swallows its cancellation is reported, unless it may."""

        async def deaf() -> None:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                await asyncio.sleep(1)

        with pytest.raises(AssertionError, match="at await 1: the cancellation was swallowed"):
            await cancel_at_every_await(deaf)

        assert await cancel_at_every_await(deaf, may_finish=True) == 1

    @virtual_time
    async def test_turned_into_another_error(self) -> None:
        """A cancellation that becomes another error is reported, with that error as the cause."""

        async def turned() -> None:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                raise OSError("x") from None

        with pytest.raises(AssertionError, match=r"became OSError\('x'\)") as caught:
            await cancel_at_every_await(turned)

        assert isinstance(caught.value.__cause__, OSError)

    @virtual_time
    async def test_own_errors_pass(self) -> None:
        """An error that has nothing to do with the cancellation is the coroutine's own."""

        async def fails() -> None:
            raise ValueError("own")

        with pytest.raises(ValueError, match=r"^own$"):
            await cancel_at_every_await(fails)

    async def test_in_real_time(self) -> None:
        """It serves in real time too, where tasks and futures are awaited."""

        async def job() -> None:
            await asyncio.create_task(asyncio.sleep(0))
            await asyncio.wait_for(asyncio.sleep(0), 20)

        assert await cancel_at_every_await(job, check=settle_tasks) >= 2
        assert leftover_tasks() == set()

    @virtual_time
    async def test_cancelled_itself(self) -> None:
        """When it is cancelled itself, it leaves no task behind."""
        task = asyncio.create_task(cancel_at_every_await(lambda: asyncio.Event().wait(), may_finish=True))
        waits = asyncio.create_task(cancel_at_every_await(hang))
        await settle()
        waits.cancel()
        task.cancel()
        await asyncio.wait([task, waits])
        await settle()

        assert leftover_tasks() == set()


async def hang() -> None:
    """Take no notice of one cancellation."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


async def settle_tasks() -> None:
    """Let cancelled tasks end."""
    if tasks := leftover_tasks():
        await asyncio.wait(tasks)
