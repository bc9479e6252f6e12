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

import sys
from collections.abc import Callable, Sequence

from tools.bench._command import run_suite
from tools.bench._model import Candidate, Case, CaseResult, Round, Suite, Target, Verdict
from tools.bench._runner import measure

__all__ = ("Candidate", "Case", "CaseResult", "Round", "Suite", "Target", "Verdict", "main", "measure")


def main(suite: Callable[[bool], Suite], argv: Sequence[str] | None = None) -> None:
    """
    Run a benchmark from the command line, and end the process.

    Args:
        suite: Builds the suite; its argument says whether a quick run is wanted.
        argv: Arguments, or None for those of the process.
    """
    sys.exit(run_suite(suite, sys.argv[1:] if argv is None else argv))
