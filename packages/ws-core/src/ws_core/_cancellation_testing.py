"""Cancellation at every await of a coroutine. Published by `ws_core.testing`."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

R = TypeVar("R")


def leftover_tasks() -> set[asyncio.Task[Any]]:  # Any: tasks of anyone
    """
    Return the tasks of the running loop that have not ended, except the current one.

    Example:
        ```python
        import asyncio
        from ws_core.testing import leftover_tasks

        task = asyncio.create_task(asyncio.sleep(0))
        assert leftover_tasks() == {task}
        await task
        assert leftover_tasks() == set()
        ```
    """
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()}


async def cancel_at_every_await(
    make: Callable[[], Awaitable[object]],
    *,
    check: Callable[[], object] | None = None,
    twice: bool = False,
    may_finish: bool = False,
) -> int:
    """
    Cancel a coroutine at its first suspension, then a new one at its second, and so on to the end.

    Args:
        make: Makes a fresh coroutine; it is run in a task of its own.
        check: Called after each run, and awaited if it is asynchronous: looks for what has leaked.
        twice: Also cancel a second time, at each suspension of the clean-up.
        may_finish: Allow a cancelled coroutine to return as if nothing had been.

    Returns:
        At how many suspensions it was cancelled.

    Raises:
        AssertionError: A cancellation was swallowed, or turned into another error.

    Example:
        >>> from ws_core.testing import run_virtual
        >>> async def job() -> None:
        ...     await asyncio.sleep(1)
        ...     await asyncio.sleep(1)
        >>> run_virtual(cancel_at_every_await(job))
        2
    """
    point = 0

    while True:
        point += 1
        reached = await _cancelled(make, (point,), may_finish=may_finish)
        await _checked(check)

        if reached < point:
            return point - 1

        for second in range(point + 1, reached + 1) if twice else ():
            await _cancelled(make, (point, second), may_finish=may_finish)
            await _checked(check)


async def _checked(check: Callable[[], object] | None) -> None:
    if check is not None and inspect.isawaitable(result := check()):
        await result


async def _cancelled(
    make: Callable[[], Awaitable[object]], points: tuple[int, ...], *, may_finish: bool
) -> int:
    """Run one coroutine, cancelled at these suspensions; return how many there were."""
    count = 0

    def suspended() -> None:
        nonlocal count
        count += 1

        if count in points:
            cast("asyncio.Task[object]", asyncio.current_task()).cancel()

    async def run() -> object:
        return await _watched(make(), suspended)

    task = asyncio.create_task(run(), name=f"cancelled at await {' and '.join(map(str, points))}")

    try:
        await asyncio.wait([task])
    finally:
        task.cancel()  # ourselves cancelled, leave nothing behind

    hit = count >= points[0]

    if task.cancelled():
        return count

    if hit and (error := task.exception()) is not None:
        raise AssertionError(f"{task.get_name()}: the cancellation became {error!r}") from error

    if hit and not may_finish:
        raise AssertionError(f"{task.get_name()}: the cancellation was swallowed")

    task.result()  # not reached: an error is the coroutine's own
    return count


@types.coroutine
def _watched(awaitable: Awaitable[R], suspended: Callable[[], None]) -> Generator[Any, Any, R]:
    """Pass everything on, as ``yield from`` does, and report each suspension."""
    inner = awaitable.__await__()
    error: BaseException | None = None

    while True:
        try:
            waits_for = inner.send(None) if error is None else inner.throw(error)
        except StopIteration as stop:
            return cast("R", stop.value)

        suspended()
        error = None

        try:
            yield waits_for
        except BaseException as thrown:  # noqa: BLE001 - passed on at the next turn
            error = thrown
