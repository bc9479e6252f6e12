"""To which event loop something belongs."""

from __future__ import annotations

import asyncio

from anyio.lowlevel import RunVar

_marker: RunVar[object] = RunVar("ws_tasks_loop_marker")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running asyncio loop, which may have a trio as a guest."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running asyncio loop, or None on trio, also on a trio that is a guest in asyncio."""
    loop = running_loop()
    return loop if loop is not None and asyncio.current_task() is not None else None


def loop_marker() -> object:
    """Return an object that stands for the running event loop, or None when none is running."""
    loop = asyncio_loop()

    if loop is not None:
        return loop

    try:
        return _marker.get()
    except LookupError:
        marker = object()
        _marker.set(marker)
        return marker
    except RuntimeError:
        return None
