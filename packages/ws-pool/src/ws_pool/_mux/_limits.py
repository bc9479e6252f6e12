"""The bounds of shared connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ("HEAVY", "Limits")

HEAVY: Final = 1024
"""Commands above this many bytes are counted by their size too, lighter ones only by their number."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Bounds of a lane. Durations are seconds.

    Args:
        max_pending: Most commands in line on a link.
        max_bytes: Most bytes of heavy commands in line on a link, and again in the queue.
        max_queue: Most commands in the queue in front of a link; it is full by bytes too, at max_bytes.
        command_timeout: Without a reply for so long while one is due, the link is killed.
        connect_timeout: For one connect with its greeting.
        queue_timeout: How long a command waits for room on a full link.
        outage_timeout: How long an outage may last before commands fail instead of waiting.
        backoff: Shortest and longest pause between two attempts to connect.
    """

    max_pending: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    max_queue: int = 10_000
    command_timeout: float = 5.0
    connect_timeout: float = 5.0
    queue_timeout: float = 30.0
    outage_timeout: float = 2.0
    backoff: tuple[float, float] = (0.02, 1.0)
