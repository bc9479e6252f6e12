"""Tasks, loops in time, and NTP."""

import asyncio
import os
import time

from ._setup import HOST, behaviour


@behaviour
async def interval_task_runs():
    """An interval task starts, runs and stops."""
    from wintersweet.asyncs.task.tasks import IntervalTask

    runs = []

    async def tick():
        runs.append(1)

    task = IntervalTask(0.1, tick)
    before = task.running
    started = bool(task.start())
    during = task.running
    await asyncio.sleep(0.55)
    stopped = task.stop()
    count = len(runs)
    await asyncio.sleep(0.25)
    return [before, started, during, stopped, task.running, 3 <= count <= 6, len(runs) == count]


@behaviour
async def interval_task_with_arguments():
    """Keyword arguments are the function's."""
    from wintersweet.asyncs.task.tasks import IntervalTask

    seen = []

    async def tick(name, number=0):
        seen.append([name, number])

    task = IntervalTask(0.1, tick, "mine", name="ann", number=3)
    task.start()
    await asyncio.sleep(0.25)
    task.stop()
    return seen[0]


@behaviour
async def crontab_task_with_arguments():
    """A crontab task takes a tag and then arguments of the function, and seconds are not there."""
    from wintersweet.asyncs.task.tasks import CrontabTask

    async def tick(name):
        pass

    task = CrontabTask("* * * * *", tick, "tag", "ann")
    started = bool(task.start())
    running = task.running
    return [started, running, task.stop(), task.running]


@behaviour
async def crontab_task_refuses_nonsense():
    """A crontab that cannot be is an error at the latest when it starts."""
    from wintersweet.asyncs.task.tasks import CrontabTask

    async def tick():
        pass

    try:
        CrontabTask("nonsense", tick).start()
    except Exception:
        return "refused"
    return "taken"


@behaviour
async def task_stop_before_start():
    """`stop` before `start` is an error."""
    from wintersweet.asyncs.task.tasks import IntervalTask

    async def tick():
        pass

    try:
        IntervalTask(1, tick).stop()
    except Exception:
        return "refused"
    return "stopped"


@behaviour
async def task_start_twice():
    """A second `start` does nothing."""
    from wintersweet.asyncs.task.tasks import IntervalTask

    runs = []

    async def tick():
        runs.append(1)

    task = IntervalTask(0.2, tick)
    task.start()
    task.start()
    await asyncio.sleep(0.5)
    task.stop()
    return len(runs) <= 3


@behaviour
async def task_interface():
    """Tasks are of `TaskInterface`."""
    from wintersweet.asyncs.task.tasks import CrontabTask, IntervalTask
    from wintersweet.asyncs.task.interfaces import TaskInterface

    async def tick():
        pass

    return [
        isinstance(IntervalTask(1, tick), TaskInterface),
        isinstance(CrontabTask("* * * * *", tick), TaskInterface),
    ]


@behaviour
async def circular_for_second():
    """Counts from 0 to the number of times."""
    from wintersweet.asyncs.tools.circular import AsyncCircularForSecond

    return [index async for index in AsyncCircularForSecond(max_times=3, interval=0.01)]


@behaviour
async def circular_for_frame():
    """Counts from 0, one run in some frames."""
    from wintersweet.asyncs.tools.circular import AsyncCircularForFrame

    return [index async for index in AsyncCircularForFrame(3, 2)]


@behaviour
async def circular_for_timeout():
    """Ends about when the time is over, and runs at least once."""
    from wintersweet.asyncs.tools.circular import AsyncCircularForTimeout

    began = time.monotonic()
    count = 0
    async for _ in AsyncCircularForTimeout(3, interval=10):  # longer than a busy machine stalls
        count += 1
    once = [index async for index in AsyncCircularForTimeout(timeout=0)]
    return [count > 1, 2.9 < time.monotonic() - began < 60, once[:1]]


@behaviour
async def ntp_client():
    """`IntervalNTPClient(interval, host, version, port, timeout)` knows its offset."""
    from wintersweet.asyncs.ntp import IntervalNTPClient

    client = IntervalNTPClient(60, HOST, version=3, port=int(os.environ["LEGACY_NTP_PORT"]), timeout=2)
    before = [client.offset, client.usability, client.running]
    await client.run_task()
    client.start()
    during = [round(client.offset), client.usability, client.running, round(client.timestamp - time.time())]
    client.stop()
    return [before, during, client.running]


@behaviour
async def ntp_manager():
    """`IntervalNTPClientManager(interval, hosts)` has the median of its servers."""
    from wintersweet.asyncs.ntp import IntervalNTPClientManager

    manager = IntervalNTPClientManager(60, [HOST, HOST], port=int(os.environ["LEGACY_NTP_PORT"]), timeout=2)
    before = round(manager.timestamp - time.time())
    await manager.initialize()
    after = round(manager.timestamp - time.time())
    await manager.stop()
    return [before, after]
