"""One of N processes: a run is claimed, kept alive, and marked done or given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NamedTuple

import anyio

from ws_core.backoff import delay
from ws_core.errors import describe
from ws_tasks._instance import Instance, ManagedTask, RunHost, Watched
from ws_tasks._run import execute, report
from ws_tasks.interface import EventKind, Guard, LeaseGuard, RunClaim, TaskEvent

_GIVE_BACK = 5.0  # seconds for a claim to be given back when its run was cancelled
_SLACK = 5.0  # seconds by which the run of another process may be late


async def execute_guarded(host: RunHost, instance: Instance) -> None:
    """Make a run if the guard allows it, and report to the guard how it ended."""
    guard = instance.task.options.guard
    assert guard is not None

    if instance.purpose == "adopt":
        await _adopt(host, instance.task, guard)
        return

    claim = await _claim(host, instance, guard)
    instance.claiming = False

    if claim is None:
        instance.claimed_elsewhere = True
        return

    if instance.purpose == "take_over":
        # Only now is it a run; until here it was a look at somebody else's.
        instance.purpose = "run"
        instance.task.started += 1
        instance.task.counters.taken_over += 1
        _emit(host, instance, "taken_over", "the process that had claimed the run is gone")

    if isinstance(claim, _Kept):
        await execute(host, instance)
    else:
        instance.fence = claim.fence
        await _execute_leased(host, instance, claim)


class _Kept(NamedTuple):
    """A claim that is kept for its time, whatever becomes of the run."""

    claimed: bool
    done: bool = False


async def _claim(host: RunHost, instance: Instance, guard: Guard) -> RunClaim | _Kept | None:
    """Return the claim of a run, or None when the run is not to be made here."""
    while True:
        answer = await _ask(host, instance, guard)

        if answer is None or answer.claimed:
            return answer

        # There are three cases. Another process has claimed the run and may die with it: look again
        # when its claim ends. Or it is done: usually another process has been faster. But if nobody
        # has made a run of this task for longer than its period, the clock was set back, and
        # "another process makes it" would leave the task silent until the clock has caught up. Then
        # the run is made for this nominal time once more, by one process again.
        if not isinstance(answer, _Kept) and answer.done and _is_silent(instance, answer):
            instance.repeat += 1
            continue

        if instance.repeat > 1:
            _emit(host, instance, "repeated", "another process makes it, after a clock was set back")

        if instance.purpose == "run":
            instance.task.counters.claimed_elsewhere += 1
            _emit(host, instance, "claimed_elsewhere", "another process makes it")

        if not isinstance(answer, _Kept) and not answer.done and instance.task.options.leased:
            host.watch(Watched(instance.task, instance.timestamp, instance.repeat), answer.retry_after)

        return None


async def _ask(host: RunHost, instance: Instance, guard: Guard) -> RunClaim | _Kept | None:
    """Claim a run from the guard, with retries within the run's time; None when it did not answer."""
    task, options = instance.task, instance.task.options
    deadline = host.clock.monotonic() + _time_left(host, instance)
    failures = 0

    while True:
        try:
            if not isinstance(guard, LeaseGuard):
                return _Kept(await guard.claim(instance.run.id, options.guard_ttl))

            return await guard.claim_run(
                instance.run.id,
                options.claim_ttl if options.leased else options.guard_ttl,
                task=task.name,
                keep=options.guard_ttl,
                # A run that is taken over or made by hand does not show that this process is on time.
                claimer=host.claimer_of(task) if _is_due(instance) else "",
            )
        except Exception as error:  # noqa: BLE001 - the guard is foreign code
            failures += 1
            wait = delay(failures, options.retry_wait, options.retry_max_wait)
            task.counters.last_error = f"guard: {describe(error, with_type=True)}"

            if failures > options.retries and host.clock.monotonic() + wait >= deadline:
                if instance.purpose == "take_over":
                    # The run is not lost: it stays open, and is looked at again.
                    host.watch(Watched(task, instance.timestamp, instance.repeat), options.claim_ttl)
                else:
                    task.counters.failed += 1
                    await report(host, instance, error)

                return None

            if failures == 1:
                detail = f"the guard raised {describe(error, with_type=True)}; it is asked again"
                _emit(host, instance, "claim_failed", detail, error)

            await host.clock.sleep(wait)


def _time_left(host: RunHost, instance: Instance) -> float:
    """Return for how many seconds a run may still be claimed: until the next one is due, at least."""
    options = instance.task.options
    period = _period(instance)
    window = options.guard_ttl if period is None else max(period, options.claim_ttl)

    if options.misfire_grace is not None:
        window = min(window, options.misfire_grace)

    return instance.timestamp + window - host.clock.time()


def _period(instance: Instance) -> float | None:
    """Return the seconds from a run's nominal time to the next one."""
    trigger = instance.task.trigger
    following = None if trigger is None else trigger.after(instance.timestamp)
    return None if following is None else following - instance.timestamp


def _is_due(instance: Instance) -> bool:
    """Return whether a run is made for a nominal time of its task, here and on time."""
    trigger = instance.task.trigger
    on_time = trigger is not None and trigger.last(instance.timestamp) == instance.timestamp
    return instance.purpose == "run" and on_time


def _is_silent(instance: Instance, answer: RunClaim) -> bool:
    """Return whether a done run shows a clock that was set back, rather than a faster process."""
    trigger = instance.task.trigger

    # Fixed times of day are not made again, as in Debian's cron, and neither is a single date.
    if trigger is None or not trigger.elapsed or not _is_due(instance):
        return False

    period = _period(instance)
    slack = instance.task.options.jitter + min(_SLACK, (period or 0.0) / 2)
    return period is not None and answer.idle > period + slack


async def _execute_leased(host: RunHost, instance: Instance, claim: RunClaim) -> None:
    """Make a claimed run, renew its claim meanwhile, and mark it done or give it back."""
    made = False

    try:
        async with anyio.create_task_group() as group:
            if instance.task.options.leased:
                group.start_soon(_renew, host, instance, claim)

            await execute(host, instance)
            instance.settling = True
            group.cancel_scope.cancel()

        made = True
    finally:
        if not made:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_GIVE_BACK):
                await _abandon(host, instance, claim)

    try:
        await _finish(host, instance, claim)
    except anyio.get_cancelled_exc_class():
        # The run is made all the same; unless that is noted, another process makes it again.
        with anyio.CancelScope(shield=True), anyio.move_on_after(_GIVE_BACK):
            await _finish(host, instance, claim)

        raise


async def _renew(host: RunHost, instance: Instance, claim: RunClaim) -> None:
    """Keep a claim alive; another process that has it meanwhile is reported."""
    ttl = instance.task.options.claim_ttl
    pause = ttl / 3

    while True:
        await host.clock.sleep(pause)

        try:
            if not await claim.renew(ttl):
                detail = "this process was stopped for longer than claim_ttl, and another makes the run too"
                _emit(host, instance, "claim_lost", detail)
                return

            pause = ttl / 3
        except Exception as error:  # noqa: BLE001 - the guard is foreign code
            _emit(host, instance, "claim_failed", f"not renewed, tried again: {error!r}", error)
            pause = min(1.0, ttl / 10)


async def _finish(host: RunHost, instance: Instance, claim: RunClaim) -> None:
    """Mark a run as done; a run that was made twice is reported."""
    options = instance.task.options

    if await _settle(host, instance, lambda: claim.finish(options.guard_ttl)) is False:
        instance.task.counters.doubled += 1
        _emit(host, instance, "doubled", "another process has made this run too")


async def _abandon(host: RunHost, instance: Instance, claim: RunClaim) -> None:
    """Decide what becomes of the claim of a run that was cancelled."""
    if instance.superseded:
        # A newer run has taken its place: nobody is to make this one.
        await _finish(host, instance, claim)
    elif instance not in host.threads and instance.task.options.leased:
        await _settle(host, instance, claim.give_back)

    # A function that goes on in its thread may still do all of its work. Its claim is not given back,
    # but expires: until then nobody begins the run beside it.


async def _settle(host: RunHost, instance: Instance, call: Callable[[], Awaitable[bool]]) -> bool | None:
    """Report to the guard how a run ended, until the claim's time is over; None without an answer."""
    options = instance.task.options
    deadline = host.clock.monotonic() + options.claim_ttl
    failures = 0

    while True:
        try:
            return await call()
        except Exception as error:  # noqa: BLE001 - the guard is foreign code
            failures += 1
            wait = delay(failures, options.retry_wait, options.retry_max_wait)

            if host.clock.monotonic() + wait >= deadline:
                detail = f"the run's end could not be noted, another process may make it: {error!r}"
                _emit(host, instance, "claim_failed", detail, error)
                return None

            await host.clock.sleep(wait)


async def _adopt(host: RunHost, task: ManagedTask, guard: Guard) -> None:
    """Look after the runs that were left when no other process was there to see it."""
    if not isinstance(guard, LeaseGuard):
        return

    try:
        found = await guard.open_runs(task.name)
    except Exception as error:  # noqa: BLE001 - the guard is foreign code
        detail = f"unfinished runs could not be listed, tried again: {error!r}"
        host.emit(TaskEvent("claim_failed", task.name, detail, error=error))
        # Not in a loop here: runs that are due must not wait for the search.
        host.watch(Watched(task, None), task.options.retry_max_wait)
        return

    for run_id in found:
        nominal, _, repeat = run_id.rpartition("@")[2].partition("~")

        try:
            timestamp = datetime.fromisoformat(nominal).astimezone(UTC).timestamp()
            host.watch(Watched(task, timestamp, int(repeat or 1)), 0.0)
        except ValueError:
            host.emit(TaskEvent("claim_failed", task.name, f"{run_id!r} is not a run of this version"))


def _emit(
    host: RunHost, instance: Instance, kind: EventKind, detail: str, error: BaseException | None = None
) -> None:
    run = instance.run
    host.emit(TaskEvent(kind, run.name, detail, run.scheduled_at, error))
