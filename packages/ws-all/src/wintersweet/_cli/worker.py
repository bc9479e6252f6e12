"""``wintersweet worker``: run jobs until a signal comes."""

from __future__ import annotations

from typing import Any

from wintersweet._cli.application import running_pools
from wintersweet._cli.event_loop import new_runner, stop_event
from wintersweet._cli.output import stderr
from wintersweet._cli.project import import_module, use
from ws_core.errors import ConfigError, UsageError
from ws_tasks import LocalEngine, TaskDefinition
from ws_tasks.taskiq import TaskiqEngine, run_worker

Found = tuple[LocalEngine | TaskiqEngine | None, dict[str, TaskDefinition[Any, Any]]]


def find(target: str) -> Found:
    """Import a module; return its engine, if it has one, and its tasks by name."""
    use()
    name, _, attribute = target.partition(":")
    module = import_module(name, target)
    engines = {
        key: value for key, value in vars(module).items() if isinstance(value, LocalEngine | TaskiqEngine)
    }

    if attribute:
        if attribute not in engines:
            raise ConfigError(f"module {name} has no engine {attribute!r}: it has {_names(engines)}")

        engines = {attribute: engines[attribute]}

    if len({id(engine) for engine in engines.values()}) > 1:
        raise ConfigError(f"module {name} has several engines, {_names(engines)}: write {name}:ENGINE")

    if engines:
        engine = next(iter(engines.values()))
        return engine, {**engine.tasks}

    declared = [value for value in vars(module).values() if isinstance(value, TaskDefinition)]
    return None, {definition.name: definition for definition in declared}


def work(target: str, *, concurrency: int | None, drain_timeout: float, schedules: bool) -> int:
    """Run jobs until SIGINT or SIGTERM."""
    engine, _ = find(target)

    if not isinstance(engine, TaskiqEngine):
        message = f"{target} has no TaskiqEngine, whose jobs workers run"
        raise UsageError(f"{message}: a LocalEngine runs its jobs where it is open")

    with new_runner() as runner:
        runner.run(_work(engine, concurrency, drain_timeout, schedules=schedules))

    return 0


async def _work(
    engine: TaskiqEngine, concurrency: int | None, drain_timeout: float, *, schedules: bool
) -> None:
    stop = stop_event()

    async with (
        running_pools(),
        run_worker(engine, concurrency=concurrency, drain_timeout=drain_timeout, schedules=schedules),
    ):
        names = ", ".join(engine.tasks) or "no tasks"
        line = f"queue {engine.broker.queue!r}, {engine.broker.concurrency} at once: {names}"
        stderr().print(f"Worker of {line}", markup=False)
        await stop.wait()
        stderr().print("Worker ends", markup=False)


def _names(engines: dict[str, Any]) -> str:
    return ", ".join(sorted(engines)) or "none"
