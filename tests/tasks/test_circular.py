"""Loops in time: the pace, the deadline, the turns of the loop."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.tasks._support import on_both_loops
from ws_tasks import AsyncCircularForFrame, AsyncCircularForSecond, AsyncCircularForTimeout, ScheduleError


class Time:
    """A clock on which sleeping takes no real time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(anyio, "sleep", self.sleep)

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Move the time."""
        await checkpoint()
        self.now += seconds


class TestForSecond:
    @staticmethod
    @on_both_loops
    async def test_keeps_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
        """Rounds start one interval apart, whatever each takes."""
        clock = Time(monkeypatch)
        starts = []

        async for index in AsyncCircularForSecond(4, 10, clock=clock):
            starts.append((index, clock.now))
            clock.now += 3

        assert starts == [(0, 100), (1, 110), (2, 120), (3, 130)]

    @staticmethod
    @on_both_loops
    async def test_a_long_round_does_not_cause_a_rush(monkeypatch: pytest.MonkeyPatch) -> None:
        """After a round over its time the next begins at once, and the pace starts anew."""
        clock = Time(monkeypatch)
        starts = []

        async for index in AsyncCircularForSecond(4, 10, clock=clock):
            starts.append(clock.now)
            clock.now += 25 if index == 0 else 0

        assert starts == [100, 125, 135, 145]

    @staticmethod
    @on_both_loops
    async def test_endless_until_left() -> None:
        """Without a number of rounds it goes on, and lets others run each time."""
        others = 0

        async def other() -> None:
            nonlocal others

            while True:
                others += 1
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(other)

            async for index in AsyncCircularForSecond(interval=0):
                if index == 50:
                    break

            group.cancel_scope.cancel()

        assert others >= 25

    async def test_no_rounds(self) -> None:
        """Zero rounds are zero rounds."""
        assert [index async for index in AsyncCircularForSecond(0)] == []


class TestForTimeout:
    @staticmethod
    @on_both_loops
    async def test_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
        """The last pause is shortened, and no round begins at or after the deadline."""
        clock = Time(monkeypatch)
        starts = [clock.now async for _ in AsyncCircularForTimeout(25, 10, clock=clock)]
        assert starts == [100, 110, 120]
        assert clock.now == 125

    @staticmethod
    @on_both_loops
    async def test_a_round_over_the_deadline_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
        """When a round itself goes beyond the deadline there is no further pause."""
        clock = Time(monkeypatch)
        starts = []

        async for _ in AsyncCircularForTimeout(25, 10, clock=clock):
            starts.append(clock.now)
            clock.now += 30

        assert (starts, clock.now) == ([100], 130)

    async def test_at_least_one_round(self) -> None:
        """Without any time there is one round, to look once."""
        assert [index async for index in AsyncCircularForTimeout(0)] == [0]


class TestForFrame:
    @staticmethod
    @on_both_loops
    async def test_counts_turns_of_the_loop() -> None:
        """Without a pause, a round begins every so many turns."""
        turn = 0

        async def count() -> None:
            nonlocal turn

            while True:
                turn += 1
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(count)

            turns = [turn async for _ in AsyncCircularForFrame(20, 5, pause=0)]
            group.cancel_scope.cancel()

        assert turns[-1] - turns[0] == pytest.approx(19 * 5, abs=19)

    async def test_the_default_does_not_burn_a_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each of a hundred frames sleeps for a millisecond."""
        clock = Time(monkeypatch)
        assert [index async for index in AsyncCircularForFrame(100)] == list(range(100))
        assert clock.now - 100 == pytest.approx(0.1, abs=0.001)

    async def test_several_frames_and_a_pause(self) -> None:
        """The pause counts as one of the turns."""
        assert [index async for index in AsyncCircularForFrame(3, 3)] == [0, 1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: AsyncCircularForSecond(-1),
        lambda: AsyncCircularForSecond(1.5),  # type: ignore[arg-type]
        lambda: AsyncCircularForSecond(1, -1),
        lambda: AsyncCircularForTimeout(-1),
        lambda: AsyncCircularForTimeout(1, float("nan")),
        lambda: AsyncCircularForTimeout(10**400),
        lambda: AsyncCircularForFrame(1, 0),
        lambda: AsyncCircularForFrame(1, pause=-1),
    ],
)
def test_bad_arguments(make: object) -> None:
    """An argument out of range is refused by name."""
    assert callable(make)

    with pytest.raises(ScheduleError, match="is wrong: use"):
        make()
