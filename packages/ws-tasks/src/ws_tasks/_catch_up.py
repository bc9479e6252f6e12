"""Runs that were missed while no process was there: found at the start, from what a store has noted."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from ws_core.backoff import delay
from ws_core.errors import describe
from ws_tasks._instance import Instance, RunHost, Watched
from ws_tasks.interface import TaskEvent
from ws_tasks.triggers import OnceTrigger

_NOTE = 10.0  # seconds for a run to be noted


async def missed_runs(host: RunHost, instance: Instance) -> list[float]:
    """Return the nominal times between the last run and the start of the task that are to be made up for."""
    task, started = instance.task, instance.timestamp
    options, trigger = task.options, task.trigger
    assert options.run_store is not None and trigger is not None
    last: float | None = -math.inf if isinstance(trigger, OnceTrigger) else None

    try:
        noted = await options.run_store.last_run(task.name)
        last = last if noted is None else noted

        if last is None:
            # The first start of all: what is missed from now on is known.
            await options.run_store.note_run(task.name, started)
            return []
    except Exception as error:  # noqa: BLE001 - the store is foreign code
        detail = f"the last run is not known, asked again: {describe(error, with_type=True)}"
        host.emit(TaskEvent("store_failed", task.name, detail, error=error))
        # Not in a loop here: runs that are due must not wait for the store.
        host.watch(Watched(task, started, purpose="catch_up"), options.retry_max_wait)
        return []

    newest = trigger.last(started)

    if newest is None or newest <= last:
        return []

    found = [newest] if options.catch_up == "latest" else _all_between(instance, last)
    missed = trigger.count(last, started) if math.isfinite(last) else 1
    in_time = [moment for moment in found if not _too_late(host, instance, moment)]
    detail = f"{missed} runs were missed while no process was there, {len(in_time)} of them are made now"
    host.emit(TaskEvent("caught_up", task.name, detail, datetime.fromtimestamp(newest, UTC)))
    task.counters.coalesced += missed - len(found)
    task.counters.late += len(found) - len(in_time)
    return in_time


def _all_between(instance: Instance, last: float) -> list[float]:
    """Return all nominal times after the last run, the oldest first, as many as the queue holds."""
    trigger, most = instance.task.trigger, instance.task.options.max_queued
    assert trigger is not None
    found: list[float] = []
    moment = trigger.after(last)

    while moment is not None and moment <= instance.timestamp and len(found) < most:
        found.append(moment)
        moment = trigger.after(moment)

    return found


def _too_late(host: RunHost, instance: Instance, moment: float) -> bool:
    grace = instance.task.options.misfire_grace
    return grace is not None and host.clock.time() - moment > grace


async def note_run(host: RunHost, instance: Instance) -> None:
    """Note that a run has ended, when it is one for a nominal time."""
    task, options = instance.task, instance.task.options
    trigger = task.trigger

    if options.run_store is None or trigger is None or trigger.last(instance.timestamp) != instance.timestamp:
        return

    deadline = host.clock.monotonic() + _NOTE
    failures = 0

    while True:
        try:
            await options.run_store.note_run(task.name, instance.timestamp)
        except Exception as error:  # noqa: BLE001 - the store is foreign code
            failures += 1
            wait = delay(failures, options.retry_wait, options.retry_max_wait)

            if host.clock.monotonic() + wait >= deadline:
                detail = (
                    f"a run is not noted, a new start may make it again: {describe(error, with_type=True)}"
                )
                event = TaskEvent("store_failed", task.name, detail, instance.run.scheduled_at, error)
                host.emit(event)
                return

            await host.clock.sleep(wait)
        else:
            return
