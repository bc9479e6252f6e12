"""Interval, crontab and one-shot tasks for asyncio and trio that never drop a late run silently."""

from ws_tasks._options import TaskOptions as TaskOptions
from ws_tasks.circular import AsyncCircularForFrame as AsyncCircularForFrame
from ws_tasks.circular import AsyncCircularForSecond as AsyncCircularForSecond
from ws_tasks.circular import AsyncCircularForTimeout as AsyncCircularForTimeout
from ws_tasks.engine import Call as Call
from ws_tasks.engine import Engine as Engine
from ws_tasks.engine import Group as Group
from ws_tasks.engine import Job as Job
from ws_tasks.engine import JobGroup as JobGroup
from ws_tasks.engine import LocalEngine as LocalEngine
from ws_tasks.engine import TaskDefinition as TaskDefinition
from ws_tasks.engine import group as group
from ws_tasks.engine import task as task
from ws_tasks.errors import JobCancelled as JobCancelled
from ws_tasks.errors import JobFailed as JobFailed
from ws_tasks.errors import NotStartedError as NotStartedError
from ws_tasks.errors import RunTimeout as RunTimeout
from ws_tasks.errors import ScheduleError as ScheduleError
from ws_tasks.interface import Guard as Guard
from ws_tasks.interface import Run as Run
from ws_tasks.interface import RunStore as RunStore
from ws_tasks.interface import TaskEvent as TaskEvent
from ws_tasks.interface import TaskInterface as TaskInterface
from ws_tasks.interface import TaskStatistics as TaskStatistics
from ws_tasks.scheduler import Scheduler as Scheduler
from ws_tasks.tasks import CrontabTask as CrontabTask
from ws_tasks.tasks import IntervalTask as IntervalTask
from ws_tasks.tasks import OnceTask as OnceTask
from ws_tasks.tasks import current_run as current_run

__all__ = (
    "AsyncCircularForFrame",
    "AsyncCircularForSecond",
    "AsyncCircularForTimeout",
    "Call",
    "CrontabTask",
    "Engine",
    "Group",
    "Guard",
    "IntervalTask",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobGroup",
    "LocalEngine",
    "NotStartedError",
    "OnceTask",
    "Run",
    "RunStore",
    "RunTimeout",
    "ScheduleError",
    "Scheduler",
    "TaskDefinition",
    "TaskEvent",
    "TaskInterface",
    "TaskOptions",
    "TaskStatistics",
    "current_run",
    "group",
    "task",
)
