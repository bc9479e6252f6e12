"""The tasks in which a pool does its I/O, and which connection is in whose hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Generic, TypeVar

from ws_pool._ledger import Slot
from ws_pool._timers import Timers

__all__ = ("Crew",)

T = TypeVar("T")


class Crew(Generic[T]):
    """
    The tasks of one pool. No context of a user is theirs.

    Args:
        timers: Knows the loop.
        lost: Called with the connection of a task that was cancelled before it began.
    """

    __slots__ = ("_connects", "_in_hand", "_lost", "_tasks", "_timers")

    def __init__(self, timers: Timers, lost: Callable[[Slot[T]], None]) -> None:
        self._timers = timers
        self._lost = lost
        self._tasks: set[asyncio.Task[None]] = set()
        self._connects: set[asyncio.Task[None]] = set()  # those of them that open a connection
        self._in_hand: dict[Slot[T], object] = {}  # connections whose task has not begun yet

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[object, object, None], slot: Slot[T] | None = None) -> None:
        """
        Begin a task.

        Args:
            work: What it does; the first of which is to tell `begun`.
            slot: The connection that it works on; None when it opens one.
        """
        mark = object()

        if slot is not None:
            self._in_hand[slot] = mark  # before there is a task: an eager one begins at once

        task = self._timers.loop.create_task(work, context=Context())
        self._tasks.add(task)

        if slot is None:
            self._connects.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._connects.discard(task)

            if slot is not None and self._in_hand.get(slot) is mark:  # cancelled before its first step
                del self._in_hand[slot]
                self._lost(slot)

        task.add_done_callback(done)

    def begun(self, slot: Slot[T]) -> None:
        """
        Note that a connection's task has begun, and takes care of it from now on.

        Args:
            slot: The connection.
        """
        self._in_hand.pop(slot, None)

    def give_up_connects(self) -> None:
        """Cancel those who open a connection."""
        self._cancel(self._connects)

    def disband(self) -> list[asyncio.Task[None]]:
        """
        Cancel all.

        Returns:
            The tasks; they end within a few turns of the loop.
        """
        tasks = list(self._tasks)
        self._cancel(self._tasks)
        return tasks

    def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        if not self._timers.loop.is_closed():
            for task in tasks:
                self._timers.loop.call_soon(task.cancel)  # each has begun by then, and cleans up
