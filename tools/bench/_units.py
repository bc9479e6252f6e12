"""Numbers as people read them."""

from __future__ import annotations

__all__ = ("count", "metric", "seconds", "times")

_DURATIONS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_TIMES = ("wall", "cpu", "p50", "p99")


def seconds(value: float) -> str:
    """
    Write a duration with the unit that suits it.

    Example:
        >>> seconds(0.00001234), seconds(2.5), seconds(0)
        ('12.3 µs', '2.50 s', '0 s')
    """
    for size, unit in _DURATIONS:
        if abs(value) >= size:
            return f"{_three(value / size)} {unit}"

    return f"{_three(value / 1e-9)} ns" if value else "0 s"


def count(value: float) -> str:
    """
    Write a plain number with three digits.

    Example:
        >>> count(1_234_567), count(812.4), count(0.5)
        ('1.23 M', '812', '0.500')
    """
    for size, unit in _COUNTS:
        if abs(value) >= size:
            return f"{_three(value / size)} {unit}"

    return _three(value)


def times(value: float) -> str:
    """
    Write a ratio.

    Example:
        >>> times(8.934), times(1.0571), times(123.4)
        ('8.93×', '1.06×', '123×')
    """
    return f"{_three(value)}×"


def metric(name: str, value: float) -> str:
    """
    Write a value in the unit that its metric has.

    A candidate's own metric names its unit by the end of its name: ``_s`` for seconds, ``_mib``
    for MiB, ``_share`` for a share of one.

    Example:
        >>> metric("wall", 0.002), metric("peak_mib", 12.5), metric("cpu_share", 0.0171)
        ('2.00 ms', '12.5 MiB', '1.71 %')
    """
    if name in _TIMES or name.endswith("_s"):
        return seconds(value)

    if name == "rate":
        return f"{count(value)}/s"

    if name.endswith("_mib"):
        return f"{_three(value)} MiB"

    if name.endswith("_share"):
        return f"{_three(value * 100)} %"

    return count(value)


def _three(value: float) -> str:
    """Three significant digits without an exponent."""
    size = abs(value)

    if size >= 99.95 or value == 0:
        return f"{value:.0f}"

    if size >= 9.995:
        return f"{value:.1f}"

    if size >= 0.9995:
        return f"{value:.2f}"

    return f"{value:.3f}" if size >= 0.0995 else f"{value:.2g}"
