"""A lock that its task may take again: what lets the users of a shared client wait for each other."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from typing import Any


class TaskLock:
    """An `asyncio.Lock` that does not stop the task that holds it."""

    __slots__ = ("_depth", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None
        self._depth = 0

    async def __aenter__(self) -> None:
        task = current_task()

        if self._owner is not task:
            await self._lock.acquire()
            self._owner = task

        self._depth += 1

    async def __aexit__(self, *_: object) -> None:
        self._depth -= 1

        if not self._depth:
            self._owner = None
            self._lock.release()
