"""One run of a task, and what the parts of a scheduler know of tasks and of each other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import anyio

from ws_tasks._clock import Clock
from ws_tasks._options import Options
from ws_tasks._threads import ThreadPool
from ws_tasks.interface import Run, TaskEvent
from ws_tasks.triggers import Trigger

_NO_HEADERS: Mapping[str, str] = {}

State = Literal["new", "running", "paused", "stopped"]
Purpose = Literal["run", "take_over", "adopt", "catch_up"]
"""A run that is due; one that another process may have left; the search for such runs at the start; the
search for those that were missed while no process was there."""

current_instance: ContextVar[Instance] = ContextVar("ws_tasks_current_run")
"""The run that the running code is part of."""


@dataclass(slots=True, eq=False)
class Counters:
    """What a task has done so far and does rarely: most of many tasks need none."""

    failed: int = 0
    retried: int = 0
    timed_out: int = 0
    cancelled: int = 0
    claimed_elsewhere: int = 0
    coalesced: int = 0
    late: int = 0
    overlap: int = 0
    taken_over: int = 0
    doubled: int = 0
    last_error: str | None = None


class ManagedTask(Protocol):
    """A task as its scheduler and its runs see it."""

    func: Callable[..., Any]  # any function of the user's
    args: tuple[object, ...]
    kwargs: dict[str, object] | Mapping[str, object]
    is_async: bool
    options: Options
    tag: str
    state: State
    trigger: Trigger | None
    nominal: float | None
    """The nominal time that the task waits for, on the trigger's clock."""
    shift: float
    """The jitter added to that time."""
    ticket: int
    """The task's valid entry in a heap; 0 when it is in none."""
    active: tuple[Instance, ...]
    queue: deque[Instance] | None
    started: int
    succeeded: int
    lateness: float
    last_duration: float | None

    @property
    def name(self) -> str:
        """The task's name in messages and run ids."""
        ...

    @property
    def counters(self) -> Counters:
        """What the task has done so far, but for what stands in the task itself."""
        ...


class RunHost(Protocol):
    """The scheduler as its runs see it."""

    clock: Clock
    pool: ThreadPool
    threads: set[Instance]

    def emit(self, event: TaskEvent) -> None:
        """Report an event."""
        ...

    def remove_if_finished(self, task: ManagedTask) -> None:
        """Remove a task that has nothing left to do."""
        ...

    def claimer_of(self, task: ManagedTask) -> str:
        """Return the name under which a guarded task claims its runs since it was started."""
        ...

    def watch(self, watched: Watched, seconds: float) -> None:
        """Look again after a while whether a run that another process has claimed was made."""
        ...


@dataclass(slots=True, eq=False)
class Watched:
    """
    A run that another process has claimed, and that is made here when that process is gone.

    Without a nominal time it stands for the search for such runs, which is to be repeated; so does one
    for the purpose of catching up, for the search for runs that were missed.
    """

    task: ManagedTask
    timestamp: float | None
    repeat: int = 1
    purpose: Purpose = "take_over"
    ticket: int = field(default=0, init=False)  # its place in the timer's heap

    def __post_init__(self) -> None:
        if self.timestamp is None:
            self.purpose = "adopt"


class Instance:
    """A run that has begun or waits in its task's queue."""

    __slots__ = (
        "_done", "attempt", "cancel_called", "cancelled", "claimed_elsewhere", "claiming", "ended", "failure",
        "fence", "handle", "headers", "purpose", "repeat", "scope", "settling", "superseded", "task",
        "timestamp", "value",
    )  # fmt: skip

    def __init__(
        self, task: ManagedTask, timestamp: float, purpose: Purpose = "run", repeat: int = 1
    ) -> None:
        self.task: ManagedTask = task
        self.timestamp: float = timestamp  # the nominal time, in seconds since the epoch
        self.purpose: Purpose = purpose
        self.repeat: int = repeat
        # Whether the guard, or the store of last runs, has not answered yet.
        self.claiming: bool = task.options.guard is not None or purpose == "catch_up"
        self.claimed_elsewhere: bool = False
        self.settling: bool = False  # the function has returned, and that is being reported to the guard
        self.superseded: bool = False  # a newer run has cancelled this one
        self.fence: int | None = None
        self.attempt: int = 1
        self.ended: bool = False
        self.cancelled: bool = False
        self.cancel_called: bool = False
        self.headers: Mapping[str, str] = _NO_HEADERS  # what came with a job, for its context
        self.handle: asyncio.Task[None] | None = None  # on asyncio, once begun
        self.scope: anyio.CancelScope | None = None  # on trio, once begun
        self.value: object = None
        self.failure: BaseException | None = None
        self._done: anyio.Event | None = None

    @property
    def run(self) -> Run:
        """The run as the running function sees it."""
        nominal = datetime.fromtimestamp(self.timestamp, UTC)
        return Run(self.task.name, nominal, self.attempt, self.fence, self.repeat)

    def interrupt(self) -> None:
        """Cancel the run; one that has not taken its first step will not take it."""
        if self.settling:
            return

        self.cancel_called = True

        if self.scope is not None:
            self.scope.cancel()
        elif self.handle is not None:
            # Not at once: the run may be the caller, which first finishes what it is doing.
            self.handle.get_loop().call_soon(self.handle.cancel)

    def call(self) -> Any:  # whatever the function returns
        """Call the function."""
        return self.task.func(*self.task.args, **self.task.kwargs)

    def accept(self, value: object) -> None:
        """Take what the function returned."""
        self.value = value

    def finish(self) -> None:
        """Mark the run as ended and wake those that wait for it."""
        self.ended = True

        if self._done is not None:
            self._done.set()

    async def wait(self) -> None:
        """Wait until the run has ended."""
        if self.ended:
            return

        if self._done is None:
            self._done = anyio.Event()

        await self._done.wait()
