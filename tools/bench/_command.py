"""The command line of every benchmark module."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.bench import _machine, _plot, _report
from tools.bench._model import Case, CaseResult, Suite
from tools.bench._runner import measure

__all__ = ("run_suite",)

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
QUICK_ROUNDS = 3


def run_suite(build: Callable[[bool], Suite], argv: Sequence[str]) -> int:
    """
    Parse the arguments, run the cases, print the tables and write the files.

    Args:
        build: Builds the suite; its argument says whether a quick run is wanted.
        argv: Command-line arguments.

    Returns:
        The exit code: 0, or 1 with ``--strict`` when a target was not met, or 2 for wrong arguments.
    """
    parser = argparse.ArgumentParser(description="Run one benchmark.")
    parser.add_argument("--quick", action="store_true", help="few rounds, only to see that it works")
    parser.add_argument("--rounds", type=int, help="measured rounds per case")
    parser.add_argument("--case", help="run only cases whose name contains this")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is not met")
    parser.add_argument("--write", action="store_true", help="write the files even after a partial run")
    options = parser.parse_args(argv)
    suite = build(options.quick)
    cases = [case for case in suite.cases if options.case is None or options.case in case.name]

    if not cases:
        names = ", ".join(repr(case.name) for case in suite.cases)
        print(f"no case's name contains {options.case!r}; there are {names}", file=sys.stderr)
        return 2

    delay = _machine.wake_delay()

    if (note := _machine.drowsiness(delay)) is not None:
        print(note, file=sys.stderr)

    rounds = options.rounds or (QUICK_ROUNDS if options.quick else None)
    results = [_run(case, rounds) for case in cases]

    if options.write or not (options.quick or options.case or options.rounds):
        _write(suite, results, delay)

    missed = [verdict for result in results for verdict in result.verdicts() if not verdict.met]
    return 1 if missed and options.strict else 0


def _run(case: Case, rounds: int | None) -> CaseResult:
    if rounds is not None:
        case = dataclasses.replace(case, rounds=rounds, warmup=min(case.warmup, 1))

    started = time.monotonic()
    visible = sys.stderr.isatty()

    def progress(text: str) -> None:
        if visible:
            print(f"\r\x1b[K{case.name}: {text}", end="", file=sys.stderr, flush=True)

    if not visible:
        print(f"{case.name}: {case.rounds} rounds …", file=sys.stderr, flush=True)

    result = measure(case, progress=progress)

    if visible:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    print(f"{_report.table(result)}\n{time.monotonic() - started:.1f} s\n", flush=True)
    return result


def _write(suite: Suite, results: Sequence[CaseResult], delay: float) -> None:
    facts = _machine.environment(suite.packages, suite.servers, delay)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    stem = OUTPUT / suite.name
    stem.with_suffix(".json").write_text(_report.to_json(suite, results, facts), encoding="utf-8")
    stem.with_suffix(".svg").write_text(_plot.draw(suite.title, results), encoding="utf-8")
    stem.with_suffix(".md").write_text(_report.markdown(suite, results, facts), encoding="utf-8")
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in OUTPUT.glob("*.json")]
    (OUTPUT / "index.md").write_text(_report.index_page(documents), encoding="utf-8")
    print(f"written: {stem.relative_to(OUTPUT.parents[1])}.{{json,svg,md}}", file=sys.stderr)
