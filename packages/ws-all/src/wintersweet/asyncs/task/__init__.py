"""Interval, crontab and one-shot tasks: `ws_tasks`, with the arguments of 1.x."""

from wintersweet.asyncs.task.tasks import CrontabTask as CrontabTask
from wintersweet.asyncs.task.tasks import IntervalTask as IntervalTask
from wintersweet.asyncs.task.tasks import OnceTask as OnceTask
from wintersweet.asyncs.task.tasks import TaskInterface as TaskInterface

__all__ = (
    "CrontabTask",
    "IntervalTask",
    "OnceTask",
    "TaskInterface",
)
