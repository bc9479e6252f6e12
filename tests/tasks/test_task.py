"""What a user may do to a task: stop, pause, run now, tag; and what is refused."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.tasks._support import Calls, PlainClaims, VirtualClock, on_both_loops, scheduler
from ws_core.errors import ClosedError, NotReadyError, UsageError
from ws_tasks import IntervalTask, NotStartedError, OnceTask, ScheduleError, TaskInterface, current_run


def take_none() -> None:
    """Take nothing."""


def take_one(a: object) -> None:
    """Take one argument."""


def take_two(a: object, b: object = 1) -> None:
    """Take one or two arguments."""


class Methods:
    """Functions that are given their object, or class, first."""

    def take_one(self, a: int) -> None:
        """Take one argument."""

    @classmethod
    def take_two(cls, a: int, b: int = 2) -> None:
        """Take one argument or two."""


def take_named(*, a: object) -> None:
    """Take an argument by name."""


def take_all(*args: object, **kwargs: object) -> None:
    """Take all arguments."""


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
            ({"guard": PlainClaims()}, "needs a name"),
            ({"guard": PlainClaims(), "name": ""}, "name='' is wrong"),
            ({"guard": PlainClaims(), "name": "x", "claim_ttl": 0}, "claim_ttl=0"),
            ({"guard": PlainClaims(), "name": "x", "at_least_once": True}, "claim_run"),
            ({"at_least_once": True}, "claim_run"),
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
            OnceTask(10, print, name="x", guard=PlainClaims())

        with pytest.raises(ScheduleError, match="when=-1"):
            OnceTask(-1, print)

    def test_generator_functions(self) -> None:
        """A generator function is refused when the task is made: its call would run nothing."""

        def generate() -> Iterator[int]:
            yield 1

        async def generate_later() -> AsyncIterator[int]:
            yield 1

        class Generating:
            def __call__(self) -> Iterator[int]:
                yield 1

            method = __call__

        for func in (
            generate,
            generate_later,
            functools.partial(generate),
            Generating(),
            Generating().method,
            functools.partial(Generating()),
        ):
            with pytest.raises(ScheduleError, match="generator function"):
                IntervalTask(10, func)

    @pytest.mark.parametrize(
        ("func", "args", "kwargs"),
        [
            (take_none, (1,), {}),
            (take_one, (), {}),
            (take_two, (1, 2, 3), {}),
            (take_named, (), {}),
            (take_one, (), {"b": 1}),
            (functools.partial(take_one, 1), (2,), {}),
            (checkpoint, (1,), {}),
            (Calls(VirtualClock()), (1,), {}),
            (Methods().take_one, (), {}),
            (Methods().take_one, (1, 2), {}),
            (Methods.take_two, (1, 2, 3), {}),
        ],
    )
    def test_wrong_arguments(self, func: Any, args: tuple[int, ...], kwargs: dict[str, int]) -> None:
        """Arguments that do not fit are refused when the task is made, not at each run."""
        with pytest.raises(ScheduleError, match="the arguments do not fit the function"):
            IntervalTask(10, func, *args, kwargs=kwargs)

    def test_right_arguments(self) -> None:
        """What fits is accepted: defaults, variable arguments, wrappers, builtins without a signature."""

        def add(func: Any) -> Any:
            @functools.wraps(func)
            def wrapper(*args: object) -> object:
                return func("session", *args)

            return wrapper

        IntervalTask(10, take_two, 1)
        IntervalTask(10, Methods().take_one, 1)
        IntervalTask(10, Methods.take_two, 1)
        IntervalTask(10, take_all, 1, 2, kwargs={"c": 3})
        IntervalTask(10, take_named, kwargs={"a": 3})
        IntervalTask(10, add(take_one))
        IntervalTask(10, print, 1)
        IntervalTask(10, dict, {})
        IntervalTask(10, int, "1")

    def test_names(self) -> None:
        """A task is named after its function, whatever kind that is."""
        assert IntervalTask(1, checkpoint).name == "anyio.lowlevel.checkpoint"
        assert IntervalTask(1, functools.partial(print)).name == "builtins.print"
        assert IntervalTask(1, PlainClaims()).name.endswith("PlainClaims")
        assert IntervalTask(1, print, name="x").name == "x"

    def test_options_that_cannot_be_shared(self) -> None:
        """Options holding something unhashable work too."""

        class Handler(list[object]):
            def __call__(self, *args: object) -> None:
                self.append(args)

        assert IntervalTask(1, print, on_error=Handler()).options.on_error is not None
        assert IntervalTask(1, print, retries=2).options is IntervalTask(1, print, retries=2).options
