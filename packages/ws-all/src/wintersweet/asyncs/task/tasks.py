"""Interval and crontab tasks: `ws_tasks`."""

from collections.abc import Callable
from typing import NoReturn

from wintersweet._gone import explain as _explain
from ws_tasks import CrontabTask as CrontabTask
from ws_tasks import IntervalTask as IntervalTask
from ws_tasks import OnceTask as OnceTask
from ws_tasks import TaskInterface as TaskInterface

__all__ = (
    "CrontabTask",
    "IntervalTask",
    "OnceTask",
    "TaskInterface",
)

__getattr__: Callable[[str], NoReturn] = _explain(__name__)
