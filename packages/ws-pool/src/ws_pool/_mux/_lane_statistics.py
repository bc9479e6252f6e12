"""What a shared connection tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

from ws_pool._statistics import Histogram

__all__ = ("LaneStatistics",)


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """
    The state of one lane.

    Args:
        endpoint: Where it is connected to, or tries to.
        connected: Whether there is a link.
        in_line: Commands that wait for their turn on the link or for their reply.
        in_flight: Those of them that were sent.
        queued: Commands in front of a link that is full or absent.
        bytes_in_line: Bytes of the heavy commands in line and queue.
        commands: Replies received so far.
        dropped: Replies whose caller had gone (cancelled, timed out).
        connects: Connections opened so far.
        losses: Connections lost so far.
        down: Why there is no link; empty when there is.
        timeouts: Commands that found no room, or not in time.
        create_time: How long opening a connection took.
        wait_time: How long commands waited that were not sent at once.
    """

    endpoint: str
    connected: bool
    in_line: int
    in_flight: int
    queued: int
    bytes_in_line: int
    commands: int
    dropped: int
    connects: int
    losses: int
    down: str
    timeouts: int
    create_time: Histogram
    wait_time: Histogram
