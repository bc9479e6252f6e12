"""The arithmetic of a benchmark: medians, spread, quantiles and ratios. Pure; no clocks."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ("Ratio", "Summary", "quantile", "ratio", "summarize")

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Summary:
    """
    What the rounds of one candidate say about one metric.

    Args:
        median: The middle of the rounds.
        mad: Median absolute deviation from the median, in the metric's unit.
        low: The first quartile.
        high: The third quartile.
        rounds: How many rounds there were.
    """

    median: float
    mad: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """The deviation as a share of the median; 0.02 is two per cent."""
        return self.mad / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """
    One candidate measured by another.

    Args:
        value: The median of the ratios of the single rounds.
        low: Lower end of its 95 % confidence interval.
        high: Upper end of its 95 % confidence interval.
    """

    value: float
    low: float
    high: float


def quantile(values: Sequence[float], share: float) -> float:
    """
    Return the value below which a share of the values lies, with linear interpolation.

    Args:
        values: At least one number, in any order.
        share: Between 0 and 1; 0.99 is the 99th percentile.

    Returns:
        The quantile (type 7 of Hyndman and Fan, as in NumPy and R).

    Raises:
        ValueError: There are no values, or the share is outside of 0 to 1.

    Example:
        >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5)
        2.5
    """
    if not values:
        raise ValueError("a quantile needs at least one value")

    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: give a number from 0 to 1")

    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summarize(values: Sequence[float]) -> Summary:
    """
    Describe the rounds of one candidate by numbers that a single slow round cannot move.

    Args:
        values: One number per round; at least one.

    Returns:
        The summary.

    Raises:
        ValueError: There are no values.

    Example:
        >>> summarize([1.0, 2.0, 3.0, 4.0, 100.0])
        Summary(median=3.0, mad=1.0, low=2.0, high=4.0, rounds=5)
    """
    median = quantile(values, 0.5)
    return Summary(
        median=median,
        mad=statistics.median(abs(value - median) for value in values),
        low=quantile(values, 0.25),
        high=quantile(values, 0.75),
        rounds=len(values),
    )


def ratio(numerator: Sequence[float], denominator: Sequence[float], *, seed: int = 0) -> Ratio:
    """
    Divide two candidates round by round.

    The two numbers of one round were measured within moments of each other, so a machine that
    is slow for a while slows both, and their ratio stays. The interval is a percentile bootstrap
    over the rounds.

    Args:
        numerator: One number per round.
        denominator: As many numbers, none of them zero.
        seed: Of the resampling, so that the same rounds give the same interval.

    Returns:
        The median ratio with its 95 % interval.

    Raises:
        ValueError: The two differ in length, or there are no rounds.

    Example:
        >>> ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
        Ratio(value=2.0, low=2.0, high=2.0)
    """
    if len(numerator) != len(denominator):
        message = f"{len(numerator)} rounds cannot be paired with {len(denominator)}"
        raise ValueError(message)

    single = [above / below for above, below in zip(numerator, denominator, strict=True)]
    value = quantile(single, 0.5)
    rng = random.Random(seed)
    resampled = [statistics.median(rng.choices(single, k=len(single))) for _ in range(RESAMPLES)]
    return Ratio(value=value, low=quantile(resampled, 0.025), high=quantile(resampled, 0.975))
