"""``wintersweet tasks``: list tasks with their next runs and last results, and run one now."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from wintersweet._cli.application import running_pools
from wintersweet._cli.event_loop import new_runner
from wintersweet._cli.output import add_row, fail, new_table, print_json, stdout, success
from wintersweet._cli.worker import find
from ws_core.errors import ConfigError, UsageError, describe
from ws_tasks import JobCancelled, JobFailed, LocalEngine, TaskDefinition
from ws_tasks.taskiq import TaskiqEngine
from ws_tasks.triggers import CronTrigger, IntervalTrigger


def show(target: str, *, as_json: bool) -> None:
    """Print the tasks."""
    engine, tasks = find(target)
    remote = engine if isinstance(engine, TaskiqEngine) else None
    outcomes: Mapping[str, Mapping[str, Any]] = {}
    depth: Mapping[str, int] = {}

    if remote is not None:
        with new_runner() as runner:
            outcomes, depth = runner.run(_ask(remote))

    rows = [_describe(definition, outcomes.get(name)) for name, definition in sorted(tasks.items())]

    if as_json:
        print_json({"tasks": rows, "queue": dict(depth)})
        return

    shown = new_table("", "Task", "Schedule", "Next run", "Last job")

    for row in rows:
        add_row(shown, row["task"], row["schedule"], row["next_run"], _last(row["last"]))

    stdout().print(shown if rows else f"{target} has no tasks.")

    if depth:
        stdout().print("Queue: " + ", ".join(f"{count} {name}" for name, count in depth.items()))


def run_one(target: str, name: str, arguments: str, *, timeout: float) -> int:
    """Run a task now, and print its result."""
    engine, tasks = find(target)

    if name not in tasks:
        raise UsageError(f"{target} has no task {name!r}: it has {', '.join(sorted(tasks)) or 'none'}")

    try:
        given = json.loads(arguments)
    except ValueError as error:
        raise ConfigError(f"--args {arguments!r} is not JSON: {error}") from error

    if not isinstance(given, list | dict):
        raise ConfigError(f"--args {arguments!r} is wrong: use a list, or an object of names")

    with new_runner() as runner:
        return runner.run(_run_one(engine, tasks[name], given, timeout))


async def _run_one(
    engine: LocalEngine | TaskiqEngine | None,
    definition: TaskDefinition[Any, Any],
    given: list[Any] | dict[str, Any],
    timeout: float,
) -> int:
    args, kwargs = (given, {}) if isinstance(given, list) else ([], given)

    try:
        call = definition.bind(*args, **kwargs)
    except TypeError as error:
        raise ConfigError(f"the arguments do not fit task {definition.name!r}: {error}") from error

    async with running_pools():
        if isinstance(engine, TaskiqEngine):
            await engine.open(schedules=False)
            opened: TaskiqEngine | LocalEngine = engine
        else:
            opened = await LocalEngine().__aenter__()

        try:
            job = await call.enqueue()

            try:
                result = await job.result(timeout=timeout)
            except TimeoutError:
                if job.done:
                    raise  # the task's own

                state = f"has not ended in {timeout:g} s; it is {await job.status()}"
                fail(f"job {job.id} of task {definition.name!r} {state}")
                return 1
        except (JobFailed, JobCancelled) as error:
            fail(str(error))
            return 1
        except Exception as error:  # noqa: BLE001 - a task of the user's, run in this process
            fail(describe(error, with_type=True))
            return 1
        finally:
            await opened.__aexit__(None, None, None)

    print_json(result)
    return 0


async def _ask(engine: TaskiqEngine) -> tuple[Mapping[str, Mapping[str, Any]], Mapping[str, int]]:
    async with running_pools():  # the broker may be on a pool of the settings
        try:
            return await engine.broker.outcomes(), await engine.broker.depth()
        finally:
            await engine.broker.shutdown()


def _describe(definition: TaskDefinition[Any, Any], last: Mapping[str, Any] | None) -> dict[str, Any]:
    declaration = definition.declaration
    schedule, following = declaration.schedule, None

    if isinstance(schedule, str):
        following = CronTrigger(schedule, tz=declaration.tz).after(time.time())
    elif schedule is not None:
        # What processes with a guard agree on; without one each has times of its own.
        following = IntervalTrigger(schedule, wall=True).after(time.time())
        schedule = f"every {schedule:g} s"

    return {
        "task": definition.name,
        "schedule": schedule,
        "next_run": None if following is None else _moment(following),
        "last": None if last is None else {**last, "at": _moment(last["at"])},
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _last(last: Mapping[str, Any] | None) -> Text | None:
    if last is None:
        return None

    return Text.assemble(f"{last['at']} ", success(last["ok"]), "" if last["ok"] else f" {last['detail']}")
