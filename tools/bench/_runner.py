"""Runs one case: all candidates in one process, in interleaved rounds."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack

from tools.bench._model import (
    CPU,
    RATE,
    WALL,
    Action,
    Candidate,
    Case,
    CaseResult,
    Loop,
    Round,
)
from tools.bench._statistics import quantile

__all__ = ("measure",)


def measure(case: Case, *, progress: Callable[[str], None] = lambda _: None, seed: int = 0) -> CaseResult:
    """
    Run one case.

    Args:
        case: What to run.
        progress: Called with what is being done.
        seed: Of the order of the candidates in each round.

    Returns:
        The numbers of every round.

    Raises:
        Exception: Whatever a candidate raised; all that were set up are torn down first.
    """
    rng = random.Random(seed)
    gathered: dict[str, dict[str, list[float]]] = {candidate.name: {} for candidate in case.candidates}

    with asyncio.Runner(loop_factory=_loop_factory(case.loop)) as runner, ExitStack() as stack:
        for candidate in case.candidates:
            progress(f"set up {candidate.name}")

            if candidate.teardown is not None:
                stack.callback(_act, runner, candidate.teardown)

            if candidate.setup is not None:
                _act(runner, candidate.setup)

        for number in range(-case.warmup, case.rounds):
            order = list(case.candidates)
            rng.shuffle(order)

            for candidate in order:
                label = f"round {number + 1}/{case.rounds}" if number >= 0 else "warm-up"
                progress(f"{label} {candidate.name}")
                numbers = _round(runner, candidate, case.operations)

                if number >= 0:
                    for metric, value in numbers.items():
                        gathered[candidate.name].setdefault(metric, []).append(value)

    return CaseResult(case=case, rounds=gathered)


def _round(runner: asyncio.Runner, candidate: Candidate, operations: int) -> dict[str, float]:
    if candidate.prepare is not None:
        _act(runner, candidate.prepare)

    gc.collect()

    started, started_cpu = time.perf_counter(), time.process_time()
    outcome = candidate.run()
    wall, cpu = time.perf_counter() - started, time.process_time() - started_cpu

    if inspect.iscoroutine(outcome):
        wall, cpu, outcome = runner.run(_timed(outcome))

    if outcome is None:
        outcome = Round()
    elif isinstance(outcome, int):
        outcome = Round(operations=outcome)
    elif not isinstance(outcome, Round):
        message = f"{candidate.name!r} returned {outcome!r}: return None, a number of operations or a Round"
        raise TypeError(message)

    done = operations if outcome.operations is None else outcome.operations

    if done < 1:
        raise ValueError(f"{candidate.name!r} did {done} operations: a round needs at least one")

    numbers = {WALL: wall / done, CPU: cpu / done, RATE: done / wall}

    if outcome.latencies:
        numbers |= {"p50": quantile(outcome.latencies, 0.5), "p99": quantile(outcome.latencies, 0.99)}

    return numbers | dict(outcome.metrics)


async def _timed(work: Coroutine[object, object, object]) -> tuple[float, float, object]:
    started, started_cpu = time.perf_counter(), time.process_time()
    outcome = await work
    return time.perf_counter() - started, time.process_time() - started_cpu, outcome


def _act(runner: asyncio.Runner, action: Action) -> None:
    """Call a sync function outside of the loop, or an async one inside of it."""
    outcome = action()

    if inspect.iscoroutine(outcome):
        runner.run(outcome)


def _loop_factory(loop: Loop) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop == "asyncio":
        return asyncio.new_event_loop

    import uvloop  # noqa: PLC0415 - only the cases that ask for it need it

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
