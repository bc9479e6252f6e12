"""The arithmetic of the benchmarks."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.bench._statistics import quantile, ratio, summarize

numbers = st.floats(min_value=1e-6, max_value=1e6)


class TestQuantile:
    @given(st.lists(numbers, min_size=1))
    def test_half_is_the_median(self, values: list[float]) -> None:
        """The quantile at one half is the median of the standard library."""
        assert quantile(values, 0.5) == pytest.approx(statistics.median(values))

    @given(st.lists(numbers, min_size=1), st.floats(0, 1), st.floats(0, 1))
    def test_grows_with_the_share(self, values: list[float], one: float, other: float) -> None:
        """A larger share never leads to a smaller quantile, and none leaves the range of the values."""
        low, high = sorted((one, other))

        assert min(values) <= quantile(values, low)
        assert quantile(values, low) <= quantile(values, high) * (1 + 1e-12)
        assert quantile(values, high) <= max(values)

    def test_needs_values(self) -> None:
        """Nothing has no quantile."""
        with pytest.raises(ValueError, match="at least one value"):
            quantile([], 0.5)

    def test_refuses_per_cent(self) -> None:
        """A share above one is a mistake, most likely a percentage."""
        with pytest.raises(ValueError, match="share is 99"):
            quantile([1.0], 99)


class TestSummarize:
    def test_one_slow_round_moves_nothing(self) -> None:
        """Median and deviation stay where they are when one round is a thousand times slower."""
        assert summarize([1.0, 1.1, 1.2, 1.3, 1.4]).median == summarize([1.0, 1.1, 1.2, 1.3, 1400.0]).median

    def test_spread_is_relative(self) -> None:
        """The spread is the deviation as a share of the median."""
        assert summarize([90.0, 100.0, 110.0]).spread == pytest.approx(0.1)


class TestRatio:
    def test_cancels_what_slows_both(self) -> None:
        """A machine that slows down in the middle leaves a paired ratio and its interval alone."""
        machine = [1.0] * 8 + [7.0] * 8
        ours = [2.0 * speed for speed in machine]
        peer = [16.0 * speed for speed in machine]

        found = ratio(peer, ours)

        assert (found.value, found.low, found.high) == (8.0, 8.0, 8.0)

    def test_interval_holds_the_truth(self) -> None:
        """The 95 % interval holds the true ratio in about 95 of 100 experiments."""
        rng = random.Random(5)
        hits = 0

        for experiment in range(100):
            ours = [rng.lognormvariate(0.0, 0.1) for _ in range(15)]
            peer = [3.0 * rng.lognormvariate(0.0, 0.1) for _ in range(15)]
            found = ratio(peer, ours, seed=experiment)
            hits += found.low <= 3.0 <= found.high

        assert hits >= 88

    def test_same_rounds_give_the_same_interval(self) -> None:
        """The resampling is seeded."""
        ours, peer = [1.0, 1.2, 0.9, 1.1], [2.0, 2.5, 2.2, 2.1]

        assert ratio(peer, ours) == ratio(peer, ours)

    def test_refuses_unequal_rounds(self) -> None:
        """Rounds that cannot be paired are refused."""
        with pytest.raises(ValueError, match="2 rounds cannot be paired with 1"):
            ratio([1.0, 2.0], [1.0])
