"""What is bound to a task."""

from __future__ import annotations

import asyncio

from ws_pool.context import TaskBinding


async def test_a_binding_belongs_to_one_task():
    """What is bound to a task is not seen by its children, and is only unbound by its owner."""
    binding: TaskBinding[str] = TaskBinding()
    assert binding.current() is None
    task = binding.bind("mine")
    assert binding.current() == "mine"
    assert await asyncio.create_task(_look(binding)) is None
    binding.unbind("another's")
    assert binding.current() == "mine"
    await asyncio.create_task(_unbind(binding, task))
    assert binding == {}


async def _look(binding: TaskBinding[str]) -> str | None:
    return binding.current()


async def _unbind(binding: TaskBinding[str], task: asyncio.Task[object] | None) -> None:
    binding.unbind("mine", task)
