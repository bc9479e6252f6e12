"""The errors of ws-tasks, all below the tree of `ws_core.errors`.

Drawn::

ConfigError
└── ScheduleError        an interval, expression, zone or option is wrong; nothing was started
UsageError
└── NotStartedError      stop(), pause(), ... of a task that was never started
WsError
├── RunTimeout           a run took longer than its timeout; also a TimeoutError
├── JobCancelled         a job was cancelled before it ended
└── JobFailed            a job failed in another process
"""

from __future__ import annotations

from ws_core.errors import ConfigError, NotReadyError, WsError, describe

__all__ = ("JobCancelled", "JobFailed", "NotStartedError", "RunTimeout", "ScheduleError")


class ScheduleError(ConfigError):
    """An interval, a crontab expression, a time zone or an option of a task is wrong."""

    default_code = "schedule"


class NotStartedError(NotReadyError):
    """A task was stopped, paused, resumed or run before it was started."""

    default_code = "task_not_started"


class RunTimeout(WsError, TimeoutError):
    """A run took longer than its task's timeout. Also a `TimeoutError`."""

    default_code = "run_timeout"


class JobCancelled(WsError):
    """A job was cancelled before it ended, such as by its engine's end."""

    default_code = "job_cancelled"


class JobFailed(WsError):
    """
    A job failed in another process, or with SystemExit or its like; what it raised cannot be raised here.

    Attributes:
        error_type: The name of the class of the error.
    """

    default_code = "job_failed"

    def __init__(
        self, message: str, *, error_type: str = "JobFailed", code: str | None = None, **context: object
    ) -> None:
        super().__init__(message, code=code, error_type=error_type, **context)
        self.error_type: str = error_type

    @classmethod
    def of(cls, error: BaseException) -> JobFailed:
        """Return an error as one that crosses a process."""
        if isinstance(error, JobFailed):
            return error

        return cls(describe(error, with_type=True), error_type=type(error).__name__)
