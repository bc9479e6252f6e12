"""What interval, crontab and one-shot tasks have in common."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping
from datetime import UTC, datetime
from types import FunctionType
from typing import Any

from ws_core.errors import UsageError
from ws_tasks._clock import Clock
from ws_tasks._instance import Counters, Instance, State
from ws_tasks._options import Options, TaskOptions, make_options
from ws_tasks._validation import check_arguments, check_function, check_name, unwrap_partial
from ws_tasks.errors import NotStartedError, ScheduleError
from ws_tasks.interface import TaskInterface, TaskStatistics
from ws_tasks.scheduler import Scheduler, current_scheduler
from ws_tasks.triggers import Trigger

_NO_KWARGS: Mapping[str, object] = {}
_NO_COUNTERS = Counters()


class ScheduledTask(TaskInterface):
    """A function, when it is due, and how its runs are made. See the public classes."""

    __slots__ = (
        "_counters", "_name", "active", "args", "func", "is_async", "kwargs", "last_duration", "lateness",
        "nominal", "options", "queue", "scheduler", "shift", "started", "state", "succeeded", "tag", "ticket",
        "trigger",
    )  # fmt: skip

    def __init__(
        self,
        func: Callable[..., Any],  # any function: its result is not used
        args: tuple[object, ...],
        options: TaskOptions,
    ) -> None:
        check_function(func, options.get("name"))
        self.func: Callable[..., Any] = func  # any function: its result is not used
        self.args: tuple[object, ...] = args
        kwargs = options.get("kwargs")
        given: object = kwargs

        if given is not None and not isinstance(given, Mapping):
            message = f"kwargs={given!r} is wrong: use a mapping of names to values"
            raise ScheduleError(message, option="kwargs")

        self.kwargs: dict[str, object] | Mapping[str, object] = dict(kwargs) if kwargs else _NO_KWARGS
        self.is_async: bool = _is_async(func)
        self._name = options.get("name")
        self._check_arguments()
        self.tag: str = options.get("tag", "default")

        if self._name is not None:
            check_name("name", self._name)

        check_name("tag", self.tag)
        self.options: Options = make_options(options)

        if self.options.guard is not None and not self._name:
            # The function's name would not do: it differs between `python app.py` and `import app`,
            # and two tasks of one function would each take the other's runs for their own.
            message = f"task {self.name!r} has a guard, so it needs a name that is the same in every process"
            raise ScheduleError(f'{message}: name="…"', task=self.name, option="name")

        if self.options.catch_up is not None and not self._name:
            message = (
                f"task {self.name!r} is to catch up, so it needs a name that is the same after a restart"
            )
            raise ScheduleError(f'{message}: name="…"', task=self.name, option="name")

        if self.options.overlap == "cancel_previous" and not self.is_async:
            message = f'task {self.name!r}: overlap="cancel_previous" needs an async function'
            raise ScheduleError(f"{message}: a thread cannot be interrupted", task=self.name)

        self.scheduler: Scheduler | None = None
        self.state: State = "new"
        self.trigger: Trigger | None = None
        self.nominal: float | None = None
        self.shift: float = 0.0
        self.ticket: int = 0
        self.active: tuple[Instance, ...] = ()
        self.queue: deque[Instance] | None = None
        self._counters: Counters | None = None
        self.started: int = 0
        self.succeeded: int = 0
        self.lateness: float = 0.0
        self.last_duration: float | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.state}>"

    @property
    def name(self) -> str:
        """The task's name in messages and run ids."""
        return self._name or _name_of(self.func)

    @property
    def counters(self) -> Counters:
        """What the task has done so far and does rarely; made when needed, to keep many tasks small."""
        if self._counters is None:
            self._counters = Counters()

        return self._counters

    @property
    def running(self) -> bool:
        """Whether the task has been started and has neither been stopped nor come to its end."""
        return self.state == "paused" or (
            self.state == "running"
            and (self.nominal is not None or bool(self.active) or bool(self.queue) or self._watches)
        )

    @property
    def next_run_time(self) -> datetime | None:
        """The next nominal time in UTC, or None when paused, stopped or exhausted."""
        if self.state != "running" or self.nominal is None or self.scheduler is None or self.trigger is None:
            return None

        return datetime.fromtimestamp(self.scheduler.timer.timestamp(self.trigger, self.nominal), UTC)

    def start(self, scheduler: Scheduler | None = None) -> None:
        """Begin to make runs, in a scheduler or in that of the running loop."""
        if self.state != "new" and self.running:
            raise UsageError(f"task {self.name!r} was started already: stop() it first", task=self.name)

        scheduler = current_scheduler() if scheduler is None else scheduler
        scheduler.check_usable(self)
        self.trigger = self._make_trigger(scheduler.clock)
        self.state = "running"
        self.scheduler = scheduler
        scheduler.register(self, self._first(self.trigger, scheduler.timer.now(self.trigger)))

    def stop(self, *, cancel: bool = False) -> Awaitable[None]:
        """Make no more runs; await the result to wait for those under way, which ``cancel`` cancels."""
        scheduler = self._started("stop")

        if self.state != "stopped":
            self.state = "stopped"
            self.nominal = None
            scheduler.remove(self)

        instances = self.active

        if cancel:
            for instance in instances:
                instance.interrupt()

        return _Ended(instances)

    def pause(self) -> None:
        """Make no runs until `resume`; those under way go on."""
        scheduler = self._started("pause")

        if self.state == "running":
            self.state = "paused"
            scheduler.timer.unschedule(self)

    def resume(self) -> None:
        """
        Make runs again, on the same nominal times as before.

        Those that passed meanwhile are not made up for, except that a single last one is made late.
        """
        scheduler = self._started("resume")

        if self.state == "paused" and self.trigger is not None:
            self.state = "running"
            following = self.trigger.after(scheduler.timer.now(self.trigger))
            scheduler.timer.schedule(self, self.nominal if following is None else following)

    def run_now(self) -> Awaitable[None]:
        """Make a run beside the schedule, under the same rules for overlap; await it for its end."""
        scheduler = self._started("run")

        if self.state == "stopped":
            raise NotStartedError(f"task {self.name!r} was stopped: start() it to run it", task=self.name)

        instance = scheduler.launch(self, scheduler.clock.time())
        return _Ended(() if instance is None else (instance,))

    def statistics(self) -> TaskStatistics:
        """Return the counters since the task was created, and its state now."""
        counters = _NO_COUNTERS if self._counters is None else self._counters
        return TaskStatistics(
            started=self.started,
            succeeded=self.succeeded,
            failed=counters.failed,
            retried=counters.retried,
            timed_out=counters.timed_out,
            cancelled=counters.cancelled,
            claimed_elsewhere=counters.claimed_elsewhere,
            running=sum(instance.purpose == "run" for instance in self.active),
            queued=len(self.queue or ()),
            next_run_time=self.next_run_time,
            last_duration=self.last_duration,
            lateness=self.lateness,
            last_error=counters.last_error,
            taken_over=counters.taken_over,
            doubled=counters.doubled,
            skipped={"overlap": counters.overlap, "late": counters.late, "coalesced": counters.coalesced},
        )

    @property
    def _watches(self) -> bool:
        """Whether another process has claimed a run that this one would take over."""
        return self.scheduler is not None and self.scheduler.runs.watches(self)

    def _check_arguments(self) -> None:
        check_arguments(self.func, self.args, self.kwargs, self._name)

    def _make_trigger(self, clock: Clock) -> Trigger:
        raise NotImplementedError

    def _first(self, trigger: Trigger, now: float) -> float | None:
        return trigger.after(now)

    def _started(self, verb: str) -> Scheduler:
        if self.scheduler is None:
            message = f"task {self.name!r} cannot {verb} before it is started: call start()"
            raise NotStartedError(message, task=self.name)

        self.scheduler.check_loop()
        return self.scheduler


class _Ended:
    """Awaitable that waits for runs to end; awaiting it is optional."""

    __slots__ = ("_instances",)

    def __init__(self, instances: tuple[Instance, ...]) -> None:
        self._instances = instances

    def __await__(self) -> Generator[Any, Any, None]:  # what a loop makes of it is the loop's business
        return self._wait().__await__()

    async def _wait(self) -> None:
        for instance in self._instances:
            await instance.wait()


def _is_async(func: Callable[..., object]) -> bool:
    if type(func) is FunctionType:
        return bool(func.__code__.co_flags & inspect.CO_COROUTINE) or inspect.iscoroutinefunction(func)

    func = unwrap_partial(func)
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(
        getattr(type(func), "__call__", None)  # noqa: B004 - the method itself is looked at
    )


def _name_of(func: Callable[..., object]) -> str:
    func = unwrap_partial(func)
    module = getattr(func, "__module__", type(func).__module__)
    return f"{module}.{getattr(func, '__qualname__', type(func).__qualname__)}"
