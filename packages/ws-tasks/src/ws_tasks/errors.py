"""The errors of ws-tasks, all below the tree of `ws_core.errors`.

Drawn::

ConfigError
└── ScheduleError        an interval, expression, zone or option is wrong; nothing was started
UsageError
└── NotStartedError      stop(), pause(), ... of a task that was never started
WsError
└── RunTimeout           a run took longer than its timeout; also a TimeoutError
"""

from __future__ import annotations

from ws_core.errors import ConfigError, NotReadyError, WsError

__all__ = ("JobCancelled", "NotStartedError", "RunTimeout", "ScheduleError")


class ScheduleError(ConfigError):
    """An interval, a crontab expression, a time zone or an option of a task is wrong."""

    default_code = "schedule"


class NotStartedError(NotReadyError):
    """A task was stopped, paused, resumed or run before it was started."""

    default_code = "task_not_started"


class RunTimeout(WsError, TimeoutError):  # noqa: N818 - named like AcquireTimeout
    """A run took longer than its task's timeout. Also a `TimeoutError`."""

    default_code = "run_timeout"


class JobCancelled(WsError):  # noqa: N818 - named after the condition
    """A job was cancelled before it ended, such as by its engine's end."""

    default_code = "job_cancelled"
