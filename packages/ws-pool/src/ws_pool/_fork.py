"""Counts the forks this process came from, so that a pool notices that it was copied by one."""

from __future__ import annotations

import os

__all__ = ("watch",)

generation = 0
_watching = False


def watch() -> int:
    """
    Begin to count forks, once per process.

    Returns:
        The present count; it differs from `generation` after a fork.
    """
    global _watching  # noqa: PLW0603 - a process has one history of forks

    if not _watching:
        _watching = True

        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forked)

    return generation


def _forked() -> None:
    global generation  # noqa: PLW0603 - see watch
    generation += 1
