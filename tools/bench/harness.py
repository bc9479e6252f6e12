"""Fair comparisons: all candidates in one process, in interleaved rounds, against a named peer.

A benchmark is a module ``tools/bench/bench_NAME.py`` with a function ``suite(quick)`` that
returns a `Suite`, and the two lines ``if __name__ == "__main__": main(suite)``. It is run by
``python3 tools/dev.py bench NAME``. What is measured::

    def suite(quick: bool) -> Suite:
        return Suite(
            name="sleep",
            title="Sleeping",
            packages=("redis",),
            cases=(
                Case(
                    "zero seconds",
                    operations=1_000,
                    candidates=(
                        Candidate("ours", run=ours, setup=open_it, teardown=close_it),
                        Candidate("peer", run=peer),
                    ),
                    targets=(Target("ours", peer="peer", at_least=2),),
                ),
            ),
        )

Every round runs each candidate once, in an order that is drawn anew; a ratio compares numbers of
the same round, so a machine that is slow for a while harms nobody. Progress goes to stderr, the
tables go to stdout, and a full run writes ``docs/benchmarks/NAME.json``, ``.svg`` and ``.md``.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
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
    Suite,
    Target,
    Verdict,
)
from tools.bench._statistics import quantile

__all__ = ("Candidate", "Case", "CaseResult", "Round", "Suite", "Target", "Verdict", "main", "measure")


def measure(case: Case, *, progress: Callable[[str], None] = lambda _: None, seed: int = 0) -> CaseResult:
    """
    Run one case.

    Args:
        case: What to run.
        progress: Is told what is being done.
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


def main(suite: Callable[[bool], Suite], argv: Sequence[str] | None = None) -> None:
    """
    Run a benchmark from the command line, and end the process.

    Args:
        suite: Builds the suite; told whether a quick run is wanted.
        argv: Arguments, or None for those of the process.
    """
    from tools.bench._command import run_suite  # noqa: PLC0415 - it imports this module

    sys.exit(run_suite(suite, sys.argv[1:] if argv is None else argv))
