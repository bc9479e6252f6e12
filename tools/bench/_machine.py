"""What a benchmark ran on: versions, processors, and how late a sleeper wakes there."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from tools.bench import _units
from tools.bench._statistics import quantile

__all__ = ("drowsiness", "environment", "wake_delay")

DROWSY = 0.001
"""Seconds of delay from which candidates that wait for each other cannot be compared well."""

_NAP = 0.001
_HALT_POLL = Path("/sys/module/haltpoll/parameters")


def wake_delay(
    naps: int = 300,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """
    Measure how late a process wakes that has slept for a millisecond.

    Args:
        naps: How often to sleep.
        sleep: Sleeps.
        clock: Tells the time.

    Returns:
        The 99th percentile of the delays, in seconds.
    """
    delays = []

    for _ in range(naps):
        started = clock()
        sleep(_NAP)
        delays.append(clock() - started - _NAP)

    return quantile(delays, 0.99)


def drowsiness(delay: float) -> str | None:
    """
    Say what is wrong with a machine whose processors wake late, and what helps.

    Args:
        delay: See `wake_delay`.

    Returns:
        The note, or None when nothing is wrong.
    """
    if delay < DROWSY:
        return None

    note = (
        f"note: a sleeping process wakes {_units.seconds(delay)} late here (99th percentile), as on a busy "
        "machine, or on a virtual one whose idle processors are given to others. Whatever waits for a server "
        "looks slower than it is."
    )

    if _HALT_POLL.is_dir():
        note += (
            f" As root, `echo 1000000 > {_HALT_POLL}/guest_halt_poll_ns; "
            f"echo N > {_HALT_POLL}/guest_halt_poll_allow_shrink` keeps them awake."
        )

    return note


def environment(packages: Sequence[str], servers: Mapping[str, str], delay: float) -> dict[str, object]:
    """
    Describe the machine and the versions, without anything that identifies either.

    Args:
        packages: Names of distributions.
        servers: Versions of servers by name.
        delay: See `wake_delay`.
    """
    versions = {}

    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"

    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "wake_delay_s": float(f"{delay:.3g}"),
        "packages": versions,
        "servers": dict(servers),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []

    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
