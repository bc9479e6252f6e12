"""What tests of asynchronous code need: time that never waits, and cancellation at every await.

`VirtualLoop` is an event loop whose time jumps: when every task waits, the clock is set to the next
timer. A test of an hour's retries runs in a millisecond and always in the same order. `virtual_time`
runs one test that way, `run_virtual` one coroutine::

    @virtual_time
    async def test_gives_up_after_an_hour():
        with pytest.raises(TimeoutError):
            await fetch(timeout=3600)
        assert virtual_clock()() == 3600

`cancel_at_every_await` runs a coroutine again and again and cancels it at its first await, at its
second, and so on.

`FaultProxy` stands between a client and a real server, and does to their connections what networks do,
at a moment that a test chooses::

    async with FaultProxy("127.0.0.1", 6379) as proxy:
        client = connect(proxy.host, proxy.port)
        lost = proxy.drop_reply(2)      # the server acts on the second request; its reply is lost
        ...
        proxy.black_hole()
        ...
        proxy.heal()

`no_leaks` fails a block that leaves tasks, threads, processes, files, connections or pools behind.
Nothing here is for production.
"""

from __future__ import annotations

from ws_core._cancellation_testing import cancel_at_every_await, leftover_tasks
from ws_core._fault_proxy import FaultProxy, Side, Then
from ws_core._leaks import LeakError, no_leaks
from ws_core._virtual_time import (
    StuckError,
    VirtualClock,
    VirtualLoop,
    run_virtual,
    settle,
    virtual_clock,
    virtual_time,
)

__all__ = (
    "FaultProxy",
    "LeakError",
    "Side",
    "StuckError",
    "Then",
    "VirtualClock",
    "VirtualLoop",
    "cancel_at_every_await",
    "leftover_tasks",
    "no_leaks",
    "run_virtual",
    "settle",
    "virtual_clock",
    "virtual_time",
)

for _public in (FaultProxy, LeakError, no_leaks, StuckError, VirtualClock, VirtualLoop):
    _public.__module__ = __name__
