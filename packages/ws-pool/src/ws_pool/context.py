"""Which connection belongs to which task: nested blocks of a task share one, child tasks get another.

The binding is keyed by the task itself. A context variable would be inherited by child tasks, so
that two tasks would interleave on one connection in the middle of a transaction.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

__all__ = ("TaskBinding",)

T = TypeVar("T")


class TaskBinding(dict["asyncio.Task[object] | None", T]):
    """
    At most one object per task: a dict from tasks to what is bound to them.

    Example:
        ```python
        import asyncio
        from ws_pool.context import TaskBinding

        binding = TaskBinding()
        binding.bind("mine")

        async def child():
            return binding.current()

        print(binding.current(), await asyncio.create_task(child()))
        binding.unbind("mine")
        ```
    """

    __slots__ = ()

    def current(self) -> T | None:
        """Return the running task's object, if it has one."""
        return self.get(asyncio.current_task()) if self else None

    def bind(self, value: T) -> asyncio.Task[object] | None:
        """
        Bind an object to the running task.

        Args:
            value: The object.

        Returns:
            The task, which `unbind` needs when the block ends in another one.
        """
        task = asyncio.current_task()
        self[task] = value
        return task

    def drop_ended(self) -> None:
        """
        Forget what is bound to tasks that have ended: their blocks were never left.

        What is still in use elsewhere stays alive; anything else is collected, and warns then.
        """
        for task in [task for task in self if task is not None and task.done()]:
            del self[task]

    def unbind(self, value: T, task: asyncio.Task[object] | None = None, outer: T | None = None) -> None:
        """
        Unbind an object; nothing happens when another one is bound.

        Args:
            value: The object.
            task: The task it was bound to; the running one by default.
            outer: What is bound again in its place.
        """
        key = task or asyncio.current_task()

        if self.get(key) is not value:
            return

        if outer is None:
            del self[key]
        else:
            self[key] = outer
