"""`ws_core.backoff`: delays between attempts."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_core.backoff import delay, spread


class TestDelay:
    """`delay`."""

    @given(st.integers(-5, 10**9), st.floats(0.001, 100), st.floats(0.001, 1000), st.floats(0, 1))
    def test_bounds(self, attempt: int, first: float, most: float, jitter: float) -> None:
        """A delay is never longer than the bound, and never shorter than its fixed part."""
        whole = delay(attempt, first, most, jitter=0.0)

        assert 0.0 < whole <= most
        assert whole * (1 - jitter) * 0.999 <= delay(attempt, first, most, jitter=jitter) <= whole

    def test_doubles(self) -> None:
        """Each attempt doubles the delay, up to the bound; attempts below 1 count as 1."""
        delays = [delay(attempt, 0.5, 5.0, jitter=0.0) for attempt in range(-1, 7)]

        assert delays == [0.5, 0.5, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]

    def test_the_global_generator_is_left_alone(self) -> None:
        """Programs that have seeded `random` draw the same numbers with and without retries."""
        before = random.getstate()
        delay(3, 0.1, 1.0)
        spread(1.0, 0.5, 1.5)

        assert random.getstate() == before

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_forked_processes_draw_other_numbers(self) -> None:
        """Workers that were forked from one parent do not retry in step."""
        drawn = {_delay_in_a_child() for _ in range(4)}

        assert len(drawn) == 4


class TestSpread:
    """`spread`."""

    @given(st.floats(0, 1))
    def test_bounds(self, fraction: float) -> None:
        """The factor is between the two bounds."""
        assert 0.75 <= spread(1.0, 0.75, 1.25, draw=lambda: fraction) <= 1.25


def _delay_in_a_child() -> bytes:
    reader, writer = os.pipe()
    child = os.fork()

    if not child:
        os.write(writer, repr(delay(1, 1.0, 1.0)).encode())
        os._exit(0)

    os.waitpid(child, 0)
    os.close(writer)

    with os.fdopen(reader, "rb") as stream:
        return stream.read()
