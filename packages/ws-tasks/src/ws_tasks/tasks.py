"""The tasks: every so many seconds, by crontab, or once."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any, Unpack

from ws_core.errors import NotReadyError
from ws_tasks._clock import Clock
from ws_tasks._instance import current_instance
from ws_tasks._options import TaskOptions
from ws_tasks._task import ScheduledTask
from ws_tasks._timezones import resolve_zone
from ws_tasks._validation import check_seconds
from ws_tasks.errors import ScheduleError
from ws_tasks.interface import Run
from ws_tasks.triggers import CronTrigger, IntervalTrigger, OnceTrigger, Trigger

__all__ = ("CrontabTask", "IntervalTask", "OnceTask", "TaskOptions", "current_run")

TaskOptions.__module__ = __name__


class IntervalTask(ScheduledTask):
    """
    Runs a function every ``interval`` seconds, first one interval after the start.

    The nominal times are start + n·interval, so that the pace never drifts. With a ``guard`` they
    are the multiples of the interval since 1970 instead, the same in every process.

    Args:
        interval: Seconds between runs; more than 0.
        func: What to call. Coroutine functions run in the loop, all others in threads.
        *args: Passed to the function.
        immediate: Whether to run at the start too.
        **options: See `TaskOptions`: tag, name, kwargs, jitter, overlap, coalesce, misfire_grace,
            timeout, retries, on_error, guard and more.

    Raises:
        ScheduleError: An argument is wrong; the message names it.

    Example:
        ```python
        from ws_tasks import IntervalTask

        async def refresh() -> None:
            print("refreshed")

        task = IntervalTask(30, refresh, jitter=2, timeout=10, retries=3)
        task.start()
        await task.run_now()
        await task.stop()
        ```
    """

    __slots__ = ("_immediate", "interval")

    def __init__(
        self,
        interval: float,
        func: Callable[..., Any],  # any function: its result is not used
        *args: object,
        immediate: bool = False,
        **options: Unpack[TaskOptions],
    ) -> None:
        self.interval: float = check_seconds("interval", interval)

        if (jitter := check_seconds("jitter", options.get("jitter", 0.0), zero=True)) > self.interval:
            message = f"jitter={jitter!r} is longer than interval={interval!r}: runs would change places"
            raise ScheduleError(message, option="jitter")

        if not isinstance(immediate, bool):
            raise ScheduleError(f"immediate={immediate!r} is wrong: use True or False", option="immediate")

        super().__init__(func, args, options)
        self._immediate = immediate

    def _make_trigger(self, clock: Clock) -> Trigger:
        if self.options.guard is not None or self.options.catch_up is not None:
            return IntervalTrigger(self.interval, wall=True)

        origin = clock.monotonic()
        return IntervalTrigger(self.interval, origin=origin - self.interval if self._immediate else origin)

    def _first(self, trigger: Trigger, now: float) -> float | None:
        if trigger.wall:
            return trigger.last(now) if self._immediate else trigger.after(now)

        return now if self._immediate else now + self.interval


class CrontabTask(ScheduledTask):
    """
    Runs a function at the times of a crontab expression.

    Weekday 0 and 7 are Sunday. `ws_tasks.triggers.CronTrigger` describes how days, skipped and
    repeated hours are understood.

    Args:
        crontab: Five fields, or six with the seconds first, or a name such as ``@daily``.
        func: What to call. Coroutine functions run in the loop, all others in threads.
        *args: Passed to the function.
        tz: The time zone or its name; by default that of the environment variables
            ``WS_TIMEZONE`` or ``_TIMEZONE``, then UTC.
        **options: See `TaskOptions`.

    Raises:
        ScheduleError: An argument is wrong; of an expression the message names the field.

    Example:
        ```python
        from ws_tasks import CrontabTask

        async def report() -> None:
            print("report")

        task = CrontabTask("0 9 * * MON-FRI", report, tz="Europe/Riga")
        task.start()
        assert task.next_run_time is not None
        await task.stop()
        ```
    """

    __slots__ = ("crontab",)

    def __init__(
        self,
        crontab: str,
        func: Callable[..., Any],  # any function: its result is not used
        *args: object,
        tz: str | tzinfo | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(func, args, options)
        self.trigger: Trigger | None = CronTrigger(crontab, tz=tz)
        self.crontab: str = crontab

    def _make_trigger(self, clock: Clock) -> Trigger:
        assert self.trigger is not None
        return self.trigger


class OnceTask(ScheduledTask):
    """
    Runs a function once.

    Args:
        when: Seconds (or a `timedelta`) after the start, or a date and time. One without a zone is
            in ``tz``. A moment in the past runs at once, unless ``misfire_grace`` forbids it.
        func: What to call. Coroutine functions run in the loop, all others in threads.
        *args: Passed to the function.
        tz: See `CrontabTask`.
        **options: See `TaskOptions`. A guard needs a date: "in ten seconds" is another time in
            each process.

    Raises:
        ScheduleError: An argument is wrong; the message names it.

    Example:
        ```python
        from datetime import datetime
        from ws_tasks import OnceTask

        task = OnceTask(datetime(2099, 1, 1), print, "happy new year", tz="Asia/Shanghai")
        task.start()
        assert task.next_run_time.isoformat() == "2098-12-31T16:00:00+00:00"
        await task.stop()
        ```
    """

    __slots__ = ("_seconds", "_wall")

    def __init__(
        self,
        when: datetime | timedelta | float,
        func: Callable[..., Any],  # any function: its result is not used
        *args: object,
        tz: str | tzinfo | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        self._wall = isinstance(when, datetime)

        if isinstance(when, datetime):
            zoned = when if when.tzinfo is not None else when.replace(tzinfo=resolve_zone(tz))
            self._seconds = zoned.timestamp()
        elif options.get("guard") is not None or options.get("catch_up") is not None:
            message = f"when={when!r} is another time in each process"
            raise ScheduleError(f"{message}: a guard needs a date, and so does catch_up")
        else:
            seconds = when.total_seconds() if isinstance(when, timedelta) else when
            self._seconds = check_seconds("when", seconds, zero=True)

        super().__init__(func, args, options)

    def _make_trigger(self, clock: Clock) -> Trigger:
        if self._wall:
            return OnceTrigger(self._seconds, wall=True)

        return OnceTrigger(clock.monotonic() + self._seconds)

    def _first(self, trigger: Trigger, now: float) -> float | None:
        # A date that has passed is looked up in the store, whether it had its run.
        return trigger.after(-math.inf if self.options.catch_up is None else now)


def current_run() -> Run:
    """
    Return the run that the calling function is part of, in coroutines and threads alike.

    Raises:
        NotReadyError: The caller is not run by a task.

    Example:
        ```python
        import anyio
        from ws_tasks import OnceTask, Scheduler, current_run

        async def report() -> None:
            print(current_run().name, current_run().attempt)

        async with Scheduler() as scheduler:
            task = scheduler.add(OnceTask(3600, report, name="report"))
            await task.run_now()
        ```
    """
    try:
        return current_instance.get().run
    except LookupError:
        raise NotReadyError("current_run() was called outside of a run of a task") from None
