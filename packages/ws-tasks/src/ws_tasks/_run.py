"""The attempts of a run: threads, timeouts, retries and the error boundary."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable

import anyio

from ws_core.backoff import delay
from ws_core.errors import describe
from ws_tasks._instance import Instance, RunHost, current_instance
from ws_tasks.errors import RunTimeout
from ws_tasks.interface import EventKind, TaskEvent
from ws_tasks.observe import is_observed, running

logger = logging.getLogger("ws_tasks")


async def execute(host: RunHost, instance: Instance) -> None:
    """Make all attempts of a run; only cancellation leaves this function."""
    current_instance.set(instance)

    if not instance.headers and not is_observed():
        await _make_attempts(host, instance)
        return

    try:
        with running(instance.run, instance.headers):
            await _make_attempts(host, instance)

            if instance.failure is not None:
                raise instance.failure  # noqa: TRY301 - for the observers; it is reported already
    except BaseException as error:
        if error is not instance.failure:
            raise


async def _make_attempts(host: RunHost, instance: Instance) -> None:
    """Make the first attempt, and others while they fail and are allowed."""
    task = instance.task
    options = task.options

    while (failure := await _attempt(host, instance)) is not None:
        counters = task.counters
        counters.last_error = describe(failure, with_type=True)

        if instance.attempt > options.retries or not isinstance(failure, options.retry_on):
            counters.failed += 1
            instance.failure = failure
            await report(host, instance, failure)
            return

        wait = delay(instance.attempt, options.retry_wait, options.retry_max_wait)
        detail = f"attempt {instance.attempt} of {options.retries + 1} failed, next one in {wait:.3g} s"
        detail = f"{detail}: {failure!r}"
        host.emit(TaskEvent("failed", task.name, detail, instance.run.scheduled_at, failure))
        await host.clock.sleep(wait)
        counters.retried += 1
        instance.attempt += 1

    task.succeeded += 1


async def _attempt(host: RunHost, instance: Instance) -> BaseException | None:
    """Make one attempt; return what it raised."""
    task = instance.task

    try:
        if not task.is_async:
            value = await _call_in_thread(host, instance)
        elif task.options.timeout is None:
            value = await instance.call()
        else:
            value = await _call_in_time(instance, task.options.timeout)

        instance.accept(_checked(value))
    except anyio.get_cancelled_exc_class():
        if instance.cancel_called or _cancelled_from_outside():
            raise

        # The function let a CancelledError out that nobody asked for, such as that of a future
        # it waited for. For asyncio the run would just vanish; it is a failure like any other.
        return RuntimeError("the function raised a cancellation that nobody asked for")
    except GeneratorExit:
        raise  # the loop is gone, and so is this run
    except BaseException as error:  # noqa: BLE001 - the boundary, see below
        # SystemExit and KeyboardInterrupt included: a function that calls sys.exit() has ended its
        # run, not the application that other tasks and requests live in.
        return error

    return None


def _checked(value: object) -> object:
    """Return a result; refuse what the function has made and not run."""
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(f"the function returned {value!r}, which never runs: await it in the function")

    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise TypeError(f"the function returned {value!r}, which never runs: loop over it in the function")

    return value


async def _call_in_time(instance: Instance, timeout: float) -> object:
    value = None

    with anyio.move_on_after(timeout) as scope:
        value = await instance.call()

    if scope.cancelled_caught:
        raise _timed_out(instance, timeout)

    return value


async def _call_in_thread(host: RunHost, instance: Instance) -> object:
    """
    Call a plain function in a thread.

    A thread cannot be interrupted. A timeout is therefore announced when it is due, but the run
    ends, and makes room for the next, only when the function returns.
    """
    call = functools.partial(_tracked, host.threads, instance)
    timeout = instance.task.options.timeout

    if timeout is None:
        [value] = await host.pool.run(call)
    else:
        [value] = await _watch(host, instance, timeout, call)

    # A plain function, such as a lambda, may have made a coroutine.
    return await value if inspect.isawaitable(value) else value


async def _watch(
    host: RunHost, instance: Instance, limit: float, call: Callable[[], list[object]]
) -> list[object]:
    """Call in a thread, and announce when it takes too long."""
    overdue = False
    result: list[object] = []
    failure: BaseException | None = None

    async def announce() -> None:
        nonlocal overdue
        await anyio.sleep(limit)
        overdue = True
        detail = f"the thread runs longer than {limit:g} s and cannot be interrupted"
        run = instance.run
        host.emit(TaskEvent("overdue", run.name, detail, run.scheduled_at))

    async with anyio.create_task_group() as group:
        group.start_soon(announce)

        try:
            result = await host.pool.run(call)
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - kept out of the group, raised below
            failure = error

        group.cancel_scope.cancel()

    if overdue:
        raise _timed_out(instance, limit) from failure

    if failure is not None:
        raise failure

    return result


def _tracked(threads: set[Instance], instance: Instance) -> list[object]:
    threads.add(instance)

    try:
        # In a list, because trio takes a coroutine as a result for a mistake.
        return [instance.call()]
    finally:
        threads.discard(instance)


def _timed_out(instance: Instance, timeout: float) -> RunTimeout:
    instance.task.counters.timed_out += 1
    run = instance.run
    message = f"task {run.name!r} took longer than its timeout of {timeout:g} s"
    return RunTimeout(message, task=run.name, timeout=timeout, run=run.id)


def _cancelled_from_outside() -> bool:
    try:
        current = asyncio.current_task()
    except RuntimeError:
        current = None

    # On trio a cancellation always comes from a cancel scope.
    return current is None or current.cancelling() > 0


async def report(host: RunHost, instance: Instance, failure: BaseException) -> None:
    """Report a failure to the events, and to `on_error` or the log."""
    task, run = instance.task, instance.run
    kind: EventKind = "timed_out" if isinstance(failure, RunTimeout) else "failed"
    host.emit(TaskEvent(kind, task.name, repr(failure), run.scheduled_at, failure))
    handler = task.options.on_error

    if handler is None:
        logger.error("run %s failed", run.id, exc_info=failure)
        return

    try:
        answer = handler(failure, run)

        if inspect.isawaitable(answer):
            await answer
    except (anyio.get_cancelled_exc_class(), GeneratorExit):
        raise
    except BaseException:
        logger.exception("on_error of task %r failed", task.name)
        logger.error("run %s failed", run.id, exc_info=failure)  # noqa: TRY400 - the run's own error
