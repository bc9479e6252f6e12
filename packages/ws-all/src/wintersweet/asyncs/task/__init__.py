"""Interval, crontab and one-shot tasks: `ws_tasks`."""

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
