"""To which event loop something belongs."""

from __future__ import annotations

from anyio.lowlevel import RunVar

__all__ = ("loop_marker",)

_marker: RunVar[object] = RunVar("ws_tasks_loop_marker")


def loop_marker() -> object:
    """Return an object that stands for the running event loop, or None when none is running."""
    try:
        return _marker.get()
    except LookupError:
        marker = object()
        _marker.set(marker)
        return marker
    except RuntimeError:
        return None
