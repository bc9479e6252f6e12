"""Interval and crontab tasks as in 1.x, over `ws_tasks`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, NoReturn

import ws_tasks
from wintersweet._gone import explain as _explain
from ws_tasks import OnceTask as OnceTask
from ws_tasks import TaskInterface as TaskInterface
from ws_tasks import TaskOptions

__all__ = ("CrontabTask", "IntervalTask", "OnceTask", "TaskInterface")

# Any below: the function's arguments and result.

_OURS: Final = frozenset(TaskOptions.__annotations__)


def _split(func: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the library's task: what the function takes by name is the function's."""
    taken = inspect.signature(func).parameters
    ours = {key: value for key, value in kwargs.items() if key in _OURS and key not in taken}
    own = {key: value for key, value in kwargs.items() if key not in ours}
    return {**ours, "kwargs": {**ours.get("kwargs", {}), **own}}


class IntervalTask(ws_tasks.IntervalTask):
    """
    Runs a function every ``interval`` seconds; what follows the tag is the function's.

    Keywords that the function does not take and that are options of the library's tasks
    (`ws_tasks.TaskOptions`) are those.
    """

    __slots__ = ()

    def __init__(
        self,
        interval: float,
        func: Callable[..., Any],
        tag: str = "IntervalTask",
        *args: object,
        immediate: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(interval, func, *args, immediate=immediate, tag=tag, **_split(func, kwargs))

    def start(self, scheduler: ws_tasks.Scheduler | None = None) -> IntervalTask:  # type: ignore[override]
        """Start; a task that runs is left alone. Returns the task."""
        if not self.running:
            super().start(scheduler)

        return self

    def stop(self, *, cancel: bool = False) -> bool:  # type: ignore[override]
        """Stop; True when that is done. To wait for a run under way, use the task of `ws_tasks`."""
        super().stop(cancel=cancel)
        return True


class CrontabTask(ws_tasks.CrontabTask):
    """Runs a function at the times of a crontab; what follows the tag is the function's, as above."""

    __slots__ = ()

    def __init__(
        self,
        crontab: str,
        func: Callable[..., Any],
        tag: str = "CrontabTask",
        *args: object,
        tz: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(crontab, func, *args, tz=tz, tag=tag, **_split(func, kwargs))

    def start(self, scheduler: ws_tasks.Scheduler | None = None) -> CrontabTask:  # type: ignore[override]
        """Start; a task that runs is left alone. Returns the task."""
        if not self.running:
            super().start(scheduler)

        return self

    def stop(self, *, cancel: bool = False) -> bool:  # type: ignore[override]
        """Stop; True when that is done. To wait for a run under way, use the task of `ws_tasks`."""
        super().stop(cancel=cancel)
        return True


__getattr__: Callable[[str], NoReturn] = _explain(__name__)
