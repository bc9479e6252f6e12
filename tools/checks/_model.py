"""What a check is, and how the programs that it runs are called."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ("IMPORT_NAMES", "PACKAGES", "ROOT", "Check", "Failed", "command", "program", "script_path")

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "packages"

IMPORT_NAMES: Mapping[str, str | None] = {
    "ws-core": "ws_core",
    "ws-logging": "ws_logging",
    "ws-tasks": "ws_tasks",
    "ws-redislock": "ws_redislock",
    "ws-pool": "ws_pool",
    "ws-web": "ws_web",
    "ws-all": "wintersweet",
    "wintersweet": None,
}
"""Distribution → what it is imported as; the meta-package holds no module."""


class Failed(Exception):
    """A check does not hold; the text says why, in full."""


@dataclass(frozen=True, slots=True)
class Check:
    """
    One thing that must hold.

    Args:
        name: For the command line; ``group:part`` makes it a part of a group.
        run: Returns a note for its line, or raises `Failed`.
        cost: Roughly how many seconds it takes; the longest start first.
        needs: Names of checks that must have ended before.
    """

    name: str
    run: Callable[[], str | None]
    cost: float = 1.0
    needs: Sequence[str] = field(default=())


def command(
    words: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = 1200,
    directory: Path = ROOT,
) -> str:
    """
    Run a program to its end.

    Args:
        words: Program and arguments.
        environment: Variables to add.
        timeout: Seconds until it is killed.
        directory: Where it runs.

    Returns:
        All that it wrote.

    Raises:
        Failed: It ended with another exit code than 0, or not in time.
    """
    shown = shlex.join(str(word) for word in words)

    try:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = (
            error.output.decode(errors="replace") if isinstance(error.output, bytes) else error.output or ""
        )
        raise Failed(f"{output}\nnot done after {timeout:.0f} s: {shown}") from error

    if done.returncode:
        raise Failed(f"{done.stdout.rstrip()}\nexit code {done.returncode}: {shown}")

    return done.stdout


def program(name: str) -> Path:
    """Return the path of a program of the environment that this runs in."""
    return Path(sys.executable).parent / name


def script_path(python: Path | str) -> dict[str, str]:
    """Put an environment's programs first, for tools that ask for a ``python`` on the path."""
    return {"PATH": os.pathsep.join((str(Path(python).parent), os.environ.get("PATH", os.defpath)))}
