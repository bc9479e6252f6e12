"""A clock that stands still until a test moves it; timers and sleepers are `ws_core.testing`'s business."""

from __future__ import annotations

__all__ = ("Clock",)


class Clock:
    """Returns `now`, in seconds, when it is called."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now
