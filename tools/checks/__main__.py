"""Run checks side by side: one line for each as it ends, all that a failed one said, and a summary."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from tools.checks._conformance import conformance_checks
from tools.checks._house import house_checks
from tools.checks._model import Check, Failed
from tools.checks._pages import page_checks
from tools.checks._scaffold import scaffold_checks
from tools.checks._static import static_checks
from tools.checks._suites import suite_checks
from tools.checks._tree import tree_checks
from tools.checks._wheels import wheel_checks

__all__ = ("Outcome", "all_checks", "main", "run_all", "select")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a check ended; `problem` is None when it holds."""

    check: Check
    seconds: float
    note: str
    problem: str | None


def all_checks() -> list[Check]:
    """Return every check."""
    return [
        *static_checks(),
        *tree_checks(),
        *house_checks(),
        *page_checks(),
        *scaffold_checks(),
        *wheel_checks(),
        *conformance_checks(),
        *suite_checks(),
    ]


def select(checks: Sequence[Check], names: Sequence[str]) -> list[Check]:
    """
    Pick checks by name; the name of a group picks all of it, and needed ones come along.

    Args:
        checks: To pick from.
        names: What is wanted; nothing means all.

    Returns:
        The checks, in their order.

    Raises:
        Failed: A name fits no check.
    """
    picked: set[str] = set()

    for name in names:
        fitting = {check.name for check in checks if name in (check.name, check.name.partition(":")[0])}

        if not fitting:
            known = ", ".join(dict.fromkeys(check.name.partition(":")[0] for check in checks))
            raise Failed(f"there is no check {name!r}: choose from {known}")

        picked |= fitting

    while needed := {need for check in checks if check.name in picked for need in check.needs} - picked:
        picked |= needed

    return [check for check in checks if not names or check.name in picked]


def run_all(checks: Sequence[Check], workers: int) -> list[Outcome]:
    """
    Run checks, the longest first, each after those that it needs.

    Args:
        checks: What to run.
        workers: How many at once.

    Returns:
        The outcomes, in the order in which they ended.
    """
    known = {check.name for check in checks}
    waiting = sorted(checks, key=lambda check: -check.cost)
    running: dict[Future[Outcome], Check] = {}
    outcomes: list[Outcome] = []

    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            ended = {outcome.check.name for outcome in outcomes}
            ready = [
                check for check in waiting if all(need in ended or need not in known for need in check.needs)
            ]

            for check in ready[: workers - len(running)]:
                waiting.remove(check)
                running[pool.submit(_run, check)] = check

            done, _ = wait(running, return_when=FIRST_COMPLETED)

            for future in done:
                del running[future]
                outcomes.append(future.result())
                _report(outcomes[-1])

    return outcomes


def _run(check: Check) -> Outcome:
    started = time.monotonic()
    note, problem = "", None

    try:
        note = check.run() or ""
    except Failed as failed:
        problem = str(failed)
    except Exception as error:  # noqa: BLE001 - a broken check is a failed one, and the others go on
        problem = f"the check itself broke: {type(error).__name__}: {error}"

    return Outcome(check=check, seconds=time.monotonic() - started, note=note, problem=problem)


def _report(outcome: Outcome) -> None:
    mark = "✓" if outcome.problem is None else "✗"
    note = f"  {outcome.note}" if outcome.note else ""
    print(f"{mark} {outcome.check.name:<24} {outcome.seconds:6.1f} s{note}", flush=True)

    if outcome.problem is not None:
        print("\n".join(f"    {line}" for line in outcome.problem.strip().splitlines()), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Returns:
        0 when all holds, 1 when something does not, 2 for a wrong name.
    """
    parser = argparse.ArgumentParser(prog="dev.py check", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="check or group; all when none is given")
    parser.add_argument("--list", action="store_true", help="only list them")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    options = parser.parse_args(argv)

    try:
        checks = select(all_checks(), options.names)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 2

    if options.list:
        print("\n".join(check.name for check in checks))
        return 0

    started = time.monotonic()
    outcomes = run_all(checks, max(1, options.jobs))
    failed_ones = [outcome.check.name for outcome in outcomes if outcome.problem is not None]
    verdict = f"failed: {', '.join(failed_ones)}" if failed_ones else "all hold"
    print(f"\n{len(outcomes)} checks in {time.monotonic() - started:.0f} s, {verdict}")
    return 1 if failed_ones else 0


if __name__ == "__main__":
    sys.exit(main())
