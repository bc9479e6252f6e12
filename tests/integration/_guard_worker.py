"""A process with one guarded task, for test_guarded_processes; not a test module.

python _guard_worker.py URL LOG CLOCK MODE

It appends a line to LOG when a run begins and ends and for each event. SIGUSR1 has it read from the
file CLOCK by how many seconds its wall clock is set; SIGTERM ends it in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from ws_redislock import RunClaims
from ws_tasks import IntervalTask, Scheduler, TaskEvent, current_run

INTERVAL = 0.5
BODY = 0.2
CLAIM_TTL = 2.0


class SetClock:
    """The machine's clocks, of which the test sets the one on the wall."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.ahead = 0.0
        self.read()

    def read(self) -> None:
        """Take over what the file says."""
        self.ahead = float(self.file.read_text() or 0)

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time() + self.ahead

    async def wait(self, event: anyio.Event, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await event.wait()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class Open:
    """The twin that must fail: every process makes every run."""

    async def claim(self, run_id: str, ttl: float) -> bool:
        return True


async def main(url: str, log: str, clock_file: str, mode: str) -> None:
    """Make runs until SIGTERM comes."""
    clock = SetClock(Path(clock_file))
    file = os.open(log, os.O_WRONLY | os.O_APPEND)

    def say(*words: object) -> None:
        # One write, which O_APPEND makes whole, whatever else kills this process.
        os.write(file, (" ".join(map(str, (os.getpid(), *words))) + "\n").encode())

    async def work() -> None:
        run = current_run()
        say("begin", run.scheduled_at.timestamp(), run.repeat, run.fence)
        await asyncio.sleep(BODY)
        say("end", run.scheduled_at.timestamp(), run.repeat, run.fence)

    def watch(event: TaskEvent) -> None:
        if event.kind not in {"claimed_elsewhere", "clock_step"}:
            say("event", event.kind, event.scheduled_at and event.scheduled_at.timestamp(), event.detail)

    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    loop.add_signal_handler(signal.SIGUSR1, clock.read)

    async with RunClaims(url, timeout=0.5) as claims:
        options: dict[str, Any] = {"guard": Open() if mode == "open" else claims}

        if mode == "once":
            options["at_least_once"] = False

        async with Scheduler(clock=clock, drain_timeout=0.05, on_event=watch) as scheduler:
            scheduler.add(IntervalTask(INTERVAL, work, name="sync", claim_ttl=CLAIM_TTL, **options))
            say("ready")
            await end.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
