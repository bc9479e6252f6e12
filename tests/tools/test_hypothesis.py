"""How hypothesis runs here: a result never depends on the load of the machine, nor on chance."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st


class TestProfile:
    def test_a_slow_example_is_no_failure(self) -> None:
        """An example may take as long as a busy machine makes it."""

        @settings(max_examples=1)
        @given(st.just(0.3))
        def slow(seconds: float) -> None:
            time.sleep(seconds)

        slow()

    def test_the_examples_are_the_same_each_time(self) -> None:
        """What passes once passes always."""
        seen: list[list[int]] = [[], []]

        @given(st.integers())
        def note(number: int) -> None:
            seen[-1].append(number)

        note()
        seen.reverse()
        note()

        assert seen[0] == seen[1]
        assert len(set(seen[0])) > 10
