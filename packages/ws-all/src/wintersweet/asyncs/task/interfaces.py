"""What tasks have in common: `ws_tasks.TaskInterface`."""

from ws_tasks import TaskInterface as TaskInterface

__all__ = ("TaskInterface",)
