"""The benchmark harness: how rounds are run, and what the report says."""

import asyncio
import itertools
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tools.bench import _machine, _plot, _report
from tools.bench.harness import Candidate, Case, CaseResult, Round, Suite, Target, measure


def result_of(ours: list[float], peer: list[float], *targets: Target) -> CaseResult:
    """Build a result without running anything; the numbers are seconds per operation."""
    case = Case("case", [Candidate("ours", list), Candidate("peer", list)], targets=targets)
    rounds = {
        name: {"wall": wall, "cpu": wall, "rate": [1 / value for value in wall]}
        for name, wall in (("ours", ours), ("peer", peer))
    }
    return CaseResult(case=case, rounds=rounds)


class TestMeasure:
    def test_life_of_a_candidate(self) -> None:
        """Each candidate is set up once, prepared and run in every round, and torn down once."""
        seen: list[str] = []

        async def setup() -> None:
            seen.append("setup")

        async def run() -> None:
            seen.append("run")

        candidate = Candidate(
            "ours",
            run=run,
            setup=setup,
            prepare=lambda: seen.append("prepare"),
            teardown=lambda: seen.append("teardown"),
        )
        measure(Case("case", [candidate], rounds=2, warmup=1))

        assert seen == ["setup", *["prepare", "run"] * 3, "teardown"]

    def test_rounds_are_interleaved(self) -> None:
        """Every round runs each candidate exactly once, and the order changes."""
        seen: list[str] = []
        names = ["a", "b", "c"]
        candidates = [Candidate(name, run=lambda name=name: seen.append(name)) for name in names]  # type: ignore[misc]

        measure(Case("case", candidates, rounds=8, warmup=0))

        rounds = [tuple(seen[start : start + 3]) for start in range(0, 24, 3)]
        assert all(sorted(order) == names for order in rounds)
        assert len(set(rounds)) > 1

    def test_async_candidates_share_one_loop(self) -> None:
        """What was opened in setup is still in its own loop in every round and in teardown."""
        loops: set[asyncio.AbstractEventLoop] = set()

        async def note() -> None:
            loops.add(asyncio.get_running_loop())

        measure(Case("case", [Candidate("ours", run=note, setup=note, teardown=note)], rounds=3))

        assert len(loops) == 1

    def test_failure_tears_down(self) -> None:
        """A candidate that fails ends the run, and everybody is torn down, itself included."""
        seen: list[str] = []

        def fail() -> None:
            raise LookupError("broken")

        candidates = [
            Candidate("ours", run=lambda: 1, teardown=lambda: seen.append("ours")),
            Candidate("peer", run=fail, teardown=lambda: seen.append("peer")),
        ]

        with pytest.raises(LookupError):
            measure(Case("case", candidates))

        assert seen == ["peer", "ours"]

    def test_what_a_round_may_return(self) -> None:
        """Latencies become p50 and p99, own metrics stay, and the count of operations replaces the case's."""

        def run() -> Round:
            return Round(operations=7, latencies=[1.0, 2.0, 3.0], metrics={"wall": 0.5, "peak_mib": 3.0})

        rounds = measure(Case("case", [Candidate("ours", run=run)], rounds=1)).rounds["ours"]

        assert (rounds["p50"], rounds["wall"], rounds["peak_mib"]) == ([2.0], [0.5], [3.0])

    def test_refuses_a_wrong_answer(self) -> None:
        """A round that returns something else says what it may return."""
        with pytest.raises(TypeError, match="'ours' returned 'x': return None"):
            measure(Case("case", [Candidate("ours", run=lambda: "x")]))


class TestVerdicts:
    def test_at_least_compares_speeds(self) -> None:
        """Half the time is twice as fast."""
        (verdict,) = result_of([1.0, 1.0], [2.0, 2.0], Target("ours", peer="peer", at_least=2)).verdicts()

        assert (verdict.value, verdict.met) == (2.0, True)

    def test_at_most_compares_costs(self) -> None:
        """Ten per cent more than the peer is short of at most six."""
        (verdict,) = result_of([1.1], [1.0], Target("ours", peer="peer", at_most=1.06)).verdicts()

        assert verdict.value == pytest.approx(1.1)
        assert not verdict.met

    def test_rates_are_better_when_larger(self) -> None:
        """The ratio of speeds is the same by rate and by time."""
        (verdict,) = result_of(
            [1.0], [3.0], Target("ours", peer="peer", at_least=3, metric="rate")
        ).verdicts()

        assert verdict.value == pytest.approx(3.0)

    def test_absolute_bound(self) -> None:
        """Without a peer the metric itself is compared."""
        (verdict,) = result_of([0.2], [1.0], Target("ours", at_most=0.1)).verdicts()

        assert (verdict.value, verdict.ratio, verdict.met) == (0.2, None, False)

    def test_refuses_an_unknown_name(self) -> None:
        """A target that names nobody is found before anything runs."""
        with pytest.raises(ValueError, match="unknown candidate 'them'"):
            Case("case", [Candidate("ours", list)], targets=[Target("ours", peer="them", at_least=1)])

    def test_refuses_two_bounds(self) -> None:
        """A target has one bound."""
        with pytest.raises(ValueError, match="either at_least or at_most"):
            Target("ours", at_least=1, at_most=2)


class TestReport:
    suite = Suite("name", "A <title>", cases=(), packages=("pytest", "no-such-package"))
    result = result_of([1.0, 1.0], [9.0, 9.0], Target("ours", peer="peer", at_least=8))
    facts = _machine.environment(suite.packages, suite.servers, 0.00012345)

    def test_json(self) -> None:
        """The JSON holds the versions, every round and the verdicts."""
        document = json.loads(_report.to_json(self.suite, [self.result], self.facts))

        assert document["environment"]["packages"]["no-such-package"] == "not installed"
        assert document["cases"][0]["candidates"]["peer"]["wall"]["rounds"] == [9.0, 9.0]
        assert document["cases"][0]["targets"][0]["met"] is True

    def test_svg_is_well_formed(self) -> None:
        """The plot is XML, with names escaped and one bar per candidate."""
        root = ET.fromstring(_plot.draw(self.suite.title, [self.result]))

        assert len(root.findall(".//{http://www.w3.org/2000/svg}rect")) == 2

    def test_table_tells_the_verdict(self) -> None:
        """The table ends with the targets."""
        assert "met   ours at least 8× as fast as peer: 9.00×" in _report.table(self.result)

    def test_pages(self) -> None:
        """The page and the overview show the same target."""
        page = _report.markdown(self.suite, [self.result], self.facts)
        overview = _report.index_page([json.loads(_report.to_json(self.suite, [self.result], self.facts))])

        assert "| ours at least 8× as fast as peer |" in page
        assert "ours at least 8× as fast as peer |" in overview
        assert "123 µs late" in page


class TestMachine:
    def test_the_latest_of_the_wakes_counts(self) -> None:
        """One nap in fifty that takes too long is reported."""
        late = itertools.cycle([0.0001] * 49 + [0.004])
        now = 0.0

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds + next(late)

        assert _machine.wake_delay(300, sleep=sleep, clock=lambda: now) == pytest.approx(0.004)

    def test_a_late_machine_is_told_of(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The note names the delay, and the remedy where there is one."""
        monkeypatch.setattr(_machine, "_HALT_POLL", tmp_path)
        with_remedy = _machine.drowsiness(0.0042) or ""
        monkeypatch.setattr(_machine, "_HALT_POLL", tmp_path / "missing")
        without = _machine.drowsiness(0.0042) or ""

        assert "4.20 ms late" in with_remedy
        assert "4.20 ms late" in without
        assert "guest_halt_poll_ns" in with_remedy
        assert "guest_halt_poll_ns" not in without
        assert _machine.drowsiness(0.0002) is None
