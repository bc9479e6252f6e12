"""ws-tasks against APScheduler 3, and its jobs against taskiq-redis, arq and SAQ."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger as TheirCronTrigger

from tools.bench._job_queues import JobQueue
from tools.bench.harness import Candidate, Case, Round, Suite, Target, main
from ws_tasks import IntervalTask, Scheduler
from ws_tasks._due_runs import decide
from ws_tasks.triggers import CronTrigger

ABOUT = """\
"3,000 tasks of 1 s" counts the processor time of one fire, with a coroutine that does nothing, while
3,000 interval tasks run for some seconds. "add" is making a task and handing it to a running
scheduler. "30 days" is deciding what to do about a minutely crontab whose process slept for a month:
APScheduler walks through all 43,200 missed minutes, and blocks the loop meanwhile. "100,000 tasks"
has the share of a core, the 99th percentile of lateness and the memory after each has fired. "empty
jobs" goes from one enqueuing process through Redis to two worker processes, 100 at once in each; ours,
arq and SAQ save results, taskiq-redis with its defaults does not, nor does it delete what is done. All
of them parse replies with hiredis."""

TASKS = 3_000
MANY = 100_000
SECONDS = 10.0
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


class Many:
    """100,000 tasks of a minute, after each has fired."""

    async def run(self) -> Round:
        """Let them fire for some seconds."""
        late: list[float] = []
        scheduler = Scheduler(drain_timeout=0)
        scheduler.start()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [scheduler.add(IntervalTask(60, _nothing)) for _ in range(MANY)]

        for start in range(0, MANY, 5000):
            for task in tasks[start : start + 5000]:
                await task.run_now()

        gc.collect()
        memory = (tracemalloc.get_traced_memory()[0] - before) / 1e6
        tracemalloc.stop()
        scheduler.stop()
        del tasks

        # Spread over the minute, as tasks that are added one after the other are.
        spread = [IntervalTask(60, self._note, late, number / MANY * 60) for number in range(MANY)]

        for number, task in enumerate(spread):
            scheduler.add(task)
            scheduler.timer.unschedule(task)
            assert task.nominal is not None
            scheduler.timer.schedule(task, task.nominal - 60 + number / MANY * 60)

        self._began = time.monotonic()
        busy = time.process_time()
        await asyncio.sleep(SECONDS)
        busy = (time.process_time() - busy) / SECONDS
        await scheduler.close()
        late.sort()
        p99 = late[int(len(late) * 0.99)] if late else 0.0
        return Round(len(late), metrics={"core": busy, "late_p99": p99, "memory_mb": memory})

    async def _note(self, late: list[float], due: float) -> None:
        late.append(max(0.0, time.monotonic() - self._began - due))


async def _nothing() -> None:
    """Do nothing."""


def job_case(quick: bool) -> Case:
    """Jobs through two worker processes."""
    jobs = 500 if quick else 2_000
    names = {"ours": "ws-tasks on taskiq", "taskiq": "taskiq-redis", "arq": "arq", "saq": "SAQ"}
    queues = {kind: JobQueue(kind, jobs) for kind in names}
    return Case(
        "empty jobs, 2 workers",
        operations=jobs,
        candidates=[
            Candidate(names[kind], run=queue.run, setup=queue.open, teardown=queue.close)
            for kind, queue in queues.items()
        ],
        targets=[Target(names["ours"], peer=names[kind], at_least=1.0) for kind in ("taskiq", "arq", "saq")],
        rounds=3 if quick else 7,
        warmup=1,
    )


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
            Case(
                "100,000 tasks of 60 s",
                candidates=(Candidate("ws-tasks", run=Many().run),),
                targets=(
                    Target("ws-tasks", at_most=0.10, metric="core"),
                    Target("ws-tasks", at_most=0.010, metric="late_p99"),
                    Target("ws-tasks", at_most=60, metric="memory_mb"),
                ),
                rounds=1,
                warmup=0,
                show="core",
            ),
            job_case(quick),
        ),
    )


if __name__ == "__main__":
    main(suite)
