"""The timer of a scheduler: which tasks are due when, and whether a clock was set."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint

from ws_core.backoff import spread
from ws_tasks._due_runs import decide
from ws_tasks._heap import TaskHeap
from ws_tasks._instance import ManagedTask, RunHost, Watched
from ws_tasks.interface import EventKind, TaskEvent
from ws_tasks.triggers import Trigger

logger = logging.getLogger("ws_tasks")

_LONGEST_SLEEP = 30.0  # seconds, see Timer._delay
_BATCH = 500  # tasks that are fired before others on the loop get a turn
_STEP = 1.0  # seconds by which the wall clock must jump to count as set
_CORRECTION = 3 * 3600.0  # Debian's cron: a larger step is a correction, all times start anew


class TimerHost(RunHost, Protocol):
    """The scheduler as its timer sees it."""

    def launch(self, task: ManagedTask, timestamp: float) -> object:
        """Make a run for a nominal time."""
        ...

    def look_again(self, watched: Watched) -> None:
        """Take over a run that another process has claimed, if its claim has ended."""
        ...


class Timer:
    """
    All due times in two heaps, one per clock.

    Intervals follow the monotonic clock, crontabs and dates the wall clock.
    """

    __slots__ = ("_host", "_monotonic", "_offset", "_wake", "_wall", "_watched")

    def __init__(self, host: TimerHost) -> None:
        self._host = host
        self._monotonic: TaskHeap[ManagedTask] = TaskHeap()
        self._wall: TaskHeap[ManagedTask] = TaskHeap()
        self._watched: TaskHeap[Watched] = TaskHeap()
        self._wake = anyio.Event()
        self._offset: float | None = None

    def now(self, trigger: Trigger) -> float:
        """Return the current moment on the trigger's clock."""
        clock = self._host.clock
        return clock.time() if trigger.wall else clock.monotonic()

    def timestamp(self, trigger: Trigger, nominal: float) -> float:
        """Return a nominal time in seconds since the epoch."""
        clock = self._host.clock
        return nominal if trigger.wall else nominal + clock.time() - clock.monotonic()

    def schedule(self, task: ManagedTask, nominal: float | None) -> None:
        """Wait for a task's next nominal time; without one the task ends."""
        task.nominal = nominal

        if nominal is None:
            self._host.remove_if_finished(task)
            return

        jitter = task.options.jitter
        task.shift = spread(jitter, 0.0, 1.0) if jitter else 0.0

        if self._heap_of(task).push(nominal + task.shift if jitter else nominal, task):
            self._wake.set()

    def unschedule(self, task: ManagedTask) -> None:
        """Stop waiting for a task's next nominal time."""
        self._heap_of(task).discard(task)

    def watch(self, watched: Watched, seconds: float) -> None:
        """Look again after some seconds whether a run that another process has claimed was made."""
        if self._watched.push(self._host.clock.monotonic() + seconds, watched):
            self._wake.set()

    def wake(self) -> None:
        """Let `turn` return early."""
        self._wake.set()

    async def turn(self) -> None:
        """Fire what is due, or sleep until the next task is due."""
        self._wake = anyio.Event()
        self._detect_clock_step()

        if self._fire_due(_BATCH):
            # More is due than fits into one batch: others on the loop come first.
            await checkpoint()
        else:
            await self._host.clock.wait(self._wake, self._delay())

    def _delay(self) -> float:
        # Never long, so that a suspended machine or a clock that was set is noticed soon.
        clock, delay = self._host.clock, _LONGEST_SLEEP

        if (due := self._monotonic.first()) is not None:
            delay = min(delay, due - clock.monotonic())

        if (due := self._watched.first()) is not None:
            delay = min(delay, due - clock.monotonic())

        if (due := self._wall.first()) is not None:
            delay = min(delay, due - clock.time())

        return max(delay, 0.0)

    def _fire_due(self, budget: int) -> bool:
        """Fire what is due, within a budget; return whether something is left."""
        clock = self._host.clock

        while budget and (due := self._watched.first()) is not None and due <= clock.monotonic():
            budget -= 1
            self._host.look_again(self._watched.pop())

        for heap, read in ((self._monotonic, clock.monotonic), (self._wall, clock.time)):
            now = read()

            while (due := heap.first()) is not None and due <= now:
                if not budget:
                    return True

                budget -= 1
                task = heap.pop()

                try:
                    self._fire(task, now)
                except Exception as error:
                    # A trigger of the user's own. It would fail again at once: the task ends.
                    logger.exception("the trigger of task %r failed, the task has ended", task.name)
                    self._host.emit(TaskEvent("broken", task.name, repr(error), error=error))
                    task.state = "stopped"
                    task.nominal = None
                    self._host.remove_if_finished(task)

        return False

    def _fire(self, task: ManagedTask, now: float) -> None:
        trigger, nominal, options = task.trigger, task.nominal, task.options
        assert trigger is not None and nominal is not None  # only such tasks are in a heap

        latest, grace = options.coalesce == "latest", options.misfire_grace
        decision = decide(trigger, nominal, now - task.shift, latest=latest, grace=grace)
        timestamp = self.timestamp(trigger, nominal if decision.nominal is None else decision.nominal)

        if decision.coalesced:
            task.counters.coalesced += decision.coalesced
            detail = f"{decision.coalesced} earlier runs were due too and are passed over"
            self._emit("coalesced", task, detail, timestamp)

        if decision.nominal is None:
            task.counters.late += 1
            detail = f"{decision.late:.3g} s late, more than misfire_grace={options.misfire_grace}"
            self._emit("skipped_late", task, detail, timestamp)
        else:
            task.lateness += decision.late
            self._host.launch(task, timestamp)

        self.schedule(task, decision.following)

    def _emit(self, kind: EventKind, task: ManagedTask, detail: str, timestamp: float) -> None:
        self._host.emit(TaskEvent(kind, task.name, detail, datetime.fromtimestamp(timestamp, UTC)))

    def _detect_clock_step(self) -> None:
        """Notice when the wall clock was set."""
        clock = self._host.clock
        offset = clock.time() - clock.monotonic()
        step = 0.0 if self._offset is None else offset - self._offset
        self._offset = offset

        if abs(step) < _STEP:
            return

        self._host.emit(TaskEvent("clock_step", "", f"the wall clock went {step:+.3f} s"))

        # Set forward, what became due is late and runs like any late run.
        if step > 0:
            return

        # Set back, tasks that follow elapsed time go on from the new time, while fixed times that
        # ran already do not run again, unless the step is so large that it corrects a wrong date.
        now = clock.time()

        for task in list(self._wall):
            trigger = task.trigger

            if trigger is not None and (trigger.elapsed or step <= -_CORRECTION):
                self._wall.discard(task)
                # A nominal time that is right now counts too: the sleep ended for the old one.
                self.schedule(task, trigger.after(math.nextafter(now, -math.inf)))

    def _heap_of(self, task: ManagedTask) -> TaskHeap[ManagedTask]:
        return self._wall if task.trigger is not None and task.trigger.wall else self._monotonic
