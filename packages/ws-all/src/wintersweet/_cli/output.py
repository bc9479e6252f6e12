"""How the command line speaks: results on stdout, all else on stderr."""

from __future__ import annotations

from rich.console import Console

__all__ = ("fail", "stderr", "stdout")


def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False)


def stderr() -> Console:
    """Return the console for messages."""
    return Console(stderr=True, highlight=False)


def fail(message: str) -> None:
    """Say what went wrong, in one paragraph."""
    stderr().print("wintersweet:", message, style="red", markup=False, soft_wrap=True)
