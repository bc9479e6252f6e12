"""Tasks in the background, and how they end."""

from __future__ import annotations

import asyncio

from ws_pool._core.background import cancel_and_wait


async def test_a_task_that_misses_its_cancellation_is_cancelled_again() -> None:
    """A task that swallows a cancellation ends at the next; its error is taken note of."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed

        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1

                if swallowed == 2:
                    raise RuntimeError("ended badly") from None

    task = asyncio.ensure_future(stubborn())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert (swallowed, task.done()) == (2, True)
