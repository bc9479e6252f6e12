"""The event loops that commands run in."""

from __future__ import annotations

import asyncio
import signal


def new_runner() -> asyncio.Runner:
    """Return a runner of coroutines."""
    # Given a factory, the runner leaves the thread's current loop alone, which may be somebody else's.
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)


def stop_event() -> asyncio.Event:
    """Return an event of the running loop that SIGINT and SIGTERM set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    return stop
