"""ws-tasks against APScheduler 3: firing, adding, catching up."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger as TheirCronTrigger

from tools.bench.harness import Candidate, Case, Suite, Target, main
from ws_tasks import IntervalTask, Scheduler
from ws_tasks._due_runs import decide
from ws_tasks.triggers import CronTrigger

ABOUT = """\
"3,000 tasks of 1 s" counts the processor time of one fire, with a coroutine that does nothing, while
3,000 interval tasks run for some seconds. "add" is making a task and handing it to a running
scheduler. "30 days" is deciding what to do about a minutely crontab whose process slept for a month:
APScheduler walks through all 43,200 missed minutes, and blocks the loop meanwhile."""

TASKS = 3_000
ZONE = "Europe/Riga"
END = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


class Fires:
    """A coroutine function that counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        """Count."""
        self.count += 1


class Ours:
    """ws-tasks."""

    def __init__(self) -> None:
        self._scheduler = Scheduler(drain_timeout=0)
        self._fires = Fires()

    async def open(self) -> None:
        """Start without tasks."""
        self._scheduler = Scheduler(drain_timeout=0)
        self._scheduler.start()

    async def close(self) -> None:
        """Stop."""
        await self._scheduler.close()

    async def fill(self) -> None:
        """Start with tasks that are due in a second."""
        await self.open()
        await self.add()

    async def add(self) -> None:
        """Add tasks."""
        count, scheduler = self._fires.__call__, self._scheduler

        for _ in range(TASKS):
            scheduler.add(IntervalTask(1, count))

    async def clear(self) -> None:
        """Remove the tasks."""
        self._scheduler.stop()

    async def fire(self, seconds: float) -> int:
        """Let tasks run, and stop."""
        before = self._fires.count
        await asyncio.sleep(seconds)
        await self.close()
        return self._fires.count - before


class Theirs:
    """APScheduler."""

    def __init__(self) -> None:
        self._fires = Fires()
        self._scheduler: Any = None  # APScheduler has no types

    async def open(self) -> None:
        """Start without tasks."""
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._scheduler.start()

    async def close(self) -> None:
        """Stop."""
        self._scheduler.shutdown(wait=False)
        await asyncio.sleep(0)

    async def fill(self) -> None:
        """Start with tasks that are due in a second."""
        await self.open()
        await self.add()

    async def add(self) -> None:
        """Add tasks."""
        count, add_job = self._fires.__call__, self._scheduler.add_job

        for _ in range(TASKS):
            add_job(count, "interval", seconds=1)

    async def clear(self) -> None:
        """Remove the tasks."""
        self._scheduler.remove_all_jobs()

    async def fire(self, seconds: float) -> int:
        """Let tasks run, and stop."""
        before = self._fires.count
        await asyncio.sleep(seconds)
        await self.close()
        return self._fires.count - before


def catch_up() -> None:
    """Decide what to do about a month of missed minutes."""
    now = END.timestamp()
    decision = decide(CronTrigger("* * * * *", tz=ZONE), now - 30 * 86_400 - 30, now, latest=True, grace=None)

    if decision.coalesced != 30 * 24 * 60:
        raise RuntimeError(decision)


def catch_up_theirs() -> None:
    """Walk through a month of missed minutes, as APScheduler's jobs do for their run times."""
    trigger = TheirCronTrigger.from_crontab("* * * * *", timezone=ZONE)
    moment = trigger.get_next_fire_time(None, END - timedelta(days=30))

    while moment is not None and moment <= END:
        moment = trigger.get_next_fire_time(moment, moment)


def suite(quick: bool) -> Suite:
    """Build the suite."""
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    seconds = 1.5 if quick else 3.5
    ours, theirs = Ours(), Theirs()

    async def fire_ours() -> int:
        return await ours.fire(seconds)

    async def fire_theirs() -> int:
        return await theirs.fire(seconds)

    return Suite(
        name="tasks",
        title="Scheduling tasks",
        packages=("ws-tasks", "anyio", "cronsim", "apscheduler"),
        about=ABOUT,
        cases=(
            Case(
                "3,000 tasks of 1 s",
                candidates=(
                    Candidate("ws-tasks", run=fire_ours, prepare=ours.fill),
                    Candidate("APScheduler", run=fire_theirs, prepare=theirs.fill),
                ),
                targets=(Target("ws-tasks", peer="APScheduler", at_most=0.5, metric="cpu"),),
                rounds=3 if quick else 7,
                warmup=1,
                show="cpu",
            ),
            Case(
                "add",
                operations=TASKS,
                candidates=(
                    Candidate(
                        "ws-tasks", run=ours.add, setup=ours.open, prepare=ours.clear, teardown=ours.close
                    ),
                    Candidate(
                        "APScheduler",
                        run=theirs.add,
                        setup=theirs.open,
                        prepare=theirs.clear,
                        teardown=theirs.close,
                    ),
                ),
                targets=(Target("ws-tasks", peer="APScheduler", at_least=10),),
                rounds=5 if quick else 15,
            ),
            Case(
                "30 days of a minutely crontab",
                candidates=(
                    Candidate("ws-tasks", run=catch_up),
                    Candidate("APScheduler", run=catch_up_theirs),
                ),
                targets=(Target("ws-tasks", at_most=0.010, metric="wall"),),
                rounds=3,
                warmup=1,
            ),
        ),
    )


if __name__ == "__main__":
    main(suite)
