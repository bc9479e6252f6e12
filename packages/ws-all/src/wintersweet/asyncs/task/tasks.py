"""Interval and crontab tasks as in 1.x, over `ws_tasks`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, NoReturn, Self

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


class _StartAndStop:
    """What 1.x returned from ``start`` and ``stop``; mixed into the library's tasks."""

    __slots__ = ()

    def start(self, scheduler: ws_tasks.Scheduler | None = None) -> Self:
        """Start; a task that runs is left alone. Returns the task."""
        if not self.running:  # type: ignore[attr-defined]  # the library's, as below
            super().start(scheduler)  # type: ignore[misc]

        return self

    def stop(self, *, cancel: bool = False) -> bool:
        """Stop; True when that is done. To wait for a run under way, use the task of `ws_tasks`."""
        super().stop(cancel=cancel)  # type: ignore[misc]
        return True


class IntervalTask(_StartAndStop, ws_tasks.IntervalTask):  # type: ignore[misc]  # other results than the library's
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


class CrontabTask(_StartAndStop, ws_tasks.CrontabTask):  # type: ignore[misc]  # as above
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


__getattr__: Callable[[str], NoReturn] = _explain(__name__)
