"""Which run is made of those that are due: one pure decision."""

from __future__ import annotations

from ws_tasks._due_runs import decide
from ws_tasks.triggers import IntervalTrigger


class TestDecide:
    def test_on_time(self) -> None:
        """A run that is due is made, and the next one waited for."""
        assert decide(IntervalTrigger(10), 20, 20.5, latest=True, grace=1) == (20, 30, 0, 0.5)

    def test_too_late(self) -> None:
        """A run later than misfire_grace is not made."""
        assert decide(IntervalTrigger(10), 20, 25, latest=True, grace=1) == (None, 30, 0, 5)

    def test_latest_passes_over_the_others(self) -> None:
        """Of several nominal times only the latest is made."""
        assert decide(IntervalTrigger(10), 20, 55, latest=True, grace=None) == (50, 60, 3, 5)

    def test_all_makes_one_after_the_other(self) -> None:
        """Each nominal time is made, the next being due at once."""
        assert decide(IntervalTrigger(10), 20, 55, latest=False, grace=None) == (20, 30, 0, 35)

    def test_a_trigger_that_disagrees_with_itself(self) -> None:
        """When nothing newer is found, the nominal time at hand is made."""

        class Odd(IntervalTrigger):
            def last(self, moment: float) -> float | None:
                return None

        assert decide(Odd(10), 20, 55, latest=True, grace=None) == (20, 30, 0, 35)
