"""How the command line speaks: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import sys

from rich.console import Console

__all__ = ("fail", "print_json", "stderr", "stdout")


def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False)


def stderr() -> Console:
    """Return the console for messages."""
    return Console(stderr=True, highlight=False)


def print_json(answer: object) -> None:
    """Print a result for programs: JSON on one line, whatever the width of the terminal."""
    sys.stdout.write(json.dumps(answer, default=str) + "\n")
    sys.stdout.flush()  # a long command is read while it runs


def fail(message: str) -> None:
    """Say what went wrong, in one paragraph."""
    stderr().print("wintersweet:", message, style="red", markup=False, soft_wrap=True)
