"""What a benchmark is made of, and what its results say. Pure; nothing here runs anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tools.bench._statistics import Ratio, Summary, ratio, summarize

__all__ = ("Action", "Candidate", "Case", "CaseResult", "Loop", "Round", "Suite", "Target", "Verdict")

Action = Callable[[], object]
Loop = Literal["asyncio", "uvloop"]

RATE = "rate"
WALL = "wall"
CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Round:
    """
    What a candidate may return from a round, when the number of operations is not all.

    Args:
        operations: How many operations were done; None for the number of the case.
        latencies: Seconds that single operations took; give the metrics ``p50`` and ``p99``.
        metrics: Further numbers under names of your own, such as ``{"peak_mib": 12.5}``; the
            names ``rate``, ``wall`` and ``cpu`` replace what the harness measured itself.
    """

    operations: int | None = None
    latencies: Sequence[float] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    One way to do the work.

    Args:
        name: As shown in tables and plots.
        run: One round; sync or async, without arguments. Returns None, a number of operations
            or a `Round`. Sync functions run outside of the event loop.
        setup: Called once before the first round; sync or async.
        teardown: Called once after the last round, also when a round failed.
        prepare: Called before every round, outside of the measured time.
    """

    name: str
    run: Action
    setup: Action | None = None
    teardown: Action | None = None
    prepare: Action | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """
    What has to be reached.

    With a peer, ``at_least=8`` reads "at least 8 times as fast as the peer" and ``at_most=1.06``
    "at most 1.06 times the peer's cost". Without one, both are bounds on the metric itself.

    Args:
        candidate: The name of whoever has to reach it.
        peer: The name of whom it is measured by, or None for an absolute bound.
        at_least: Lower bound of the ratio of speeds, or of the metric.
        at_most: Upper bound of the ratio of costs, or of the metric.
        metric: ``wall`` or ``cpu`` (seconds per operation), ``rate`` (operations per second),
            ``p50`` / ``p99`` (seconds) or a name of a candidate's own metrics, where less is
            better.
    """

    candidate: str
    peer: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    metric: str = WALL

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"the target of {self.candidate!r} needs either at_least or at_most")


@dataclass(frozen=True, slots=True)
class Case:
    """
    Candidates that do the same work.

    Args:
        name: As shown in tables and plots, such as ``"GET, 100 callers"``.
        candidates: Two or more; the first is ours.
        operations: Per round, unless a candidate returns another number.
        targets: What has to be reached.
        loop: The event loop's implementation.
        rounds: Measured rounds; odd numbers give a median that was measured.
        warmup: Rounds before them that are not counted.
        show: The metric of the plot.
    """

    name: str
    candidates: Sequence[Candidate]
    operations: int = 1
    targets: Sequence[Target] = ()
    loop: Loop = "asyncio"
    rounds: int = 15
    warmup: int = 2
    show: str = WALL

    def __post_init__(self) -> None:
        names = [candidate.name for candidate in self.candidates]

        if len(set(names)) != len(names):
            raise ValueError(f"case {self.name!r}: two candidates have the same name")

        for target in self.targets:
            for name in (target.candidate, target.peer):
                if name is not None and name not in names:
                    raise ValueError(f"case {self.name!r}: a target names the unknown candidate {name!r}")


@dataclass(frozen=True, slots=True)
class Suite:
    """
    A benchmark: its cases and what the report says about it.

    Args:
        name: Of the files; the ``NAME`` of ``bench_NAME.py``.
        title: Heading of the report.
        cases: One or more.
        packages: Distributions whose versions belong into the result.
        about: A paragraph on what is measured, and how to read it.
        servers: Versions of servers that took part, such as ``{"Redis": "7.0.15"}``.
    """

    name: str
    title: str
    cases: Sequence[Case]
    packages: Sequence[str] = ()
    about: str = ""
    servers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target with what was measured; ``ratio`` is None for an absolute bound."""

    target: Target
    value: float
    ratio: Ratio | None
    met: bool


@dataclass(frozen=True, slots=True)
class CaseResult:
    """
    What was measured in one case.

    Args:
        case: The case.
        rounds: Candidate → metric → one number per round.
    """

    case: Case
    rounds: Mapping[str, Mapping[str, Sequence[float]]]

    def summary(self, candidate: str, metric: str) -> Summary:
        """Describe one metric of one candidate."""
        return summarize(self.rounds[candidate][metric])

    def speed(self, candidate: str, peer: str, metric: str = WALL) -> Ratio:
        """Return how many times as fast the candidate is as the peer."""
        ours, theirs = self.rounds[candidate][metric], self.rounds[peer][metric]
        return ratio(ours, theirs) if metric == RATE else ratio(theirs, ours)

    def cost(self, candidate: str, peer: str, metric: str = WALL) -> Ratio:
        """Return how many times the peer's cost the candidate has."""
        return self.speed(peer, candidate, metric)

    def verdicts(self) -> list[Verdict]:
        """Compare every target with what was measured."""
        return [self._verdict(target) for target in self.case.targets]

    def _verdict(self, target: Target) -> Verdict:
        measured: Ratio | None = None

        if target.peer is None:
            value = self.summary(target.candidate, target.metric).median
        elif target.at_least is not None:
            measured = self.speed(target.candidate, target.peer, target.metric)
            value = measured.value
        else:
            measured = self.cost(target.candidate, target.peer, target.metric)
            value = measured.value

        if target.at_least is not None:
            met = value >= target.at_least
        else:
            met = target.at_most is not None and value <= target.at_most

        return Verdict(target=target, value=value, ratio=measured, met=met)
