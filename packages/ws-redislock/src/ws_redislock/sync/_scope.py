"""The body of a ``hold()`` in a thread, which nobody can cancel; the twin of `ws_redislock._scope`."""

from __future__ import annotations

import threading

__all__ = ("BodyScope", "current_flow")


def current_flow() -> object:
    """Return what a reentrant lock belongs to: the running thread."""
    return threading.get_ident()


class BodyScope:
    """The body of one ``hold()``: it must ask ``check()`` by itself, and hears of a loss at its end."""

    __slots__ = ()

    def cancel(self, reason: str) -> None:
        """Leave the body alone: a thread cannot be cancelled."""

    def leave(self, error: BaseException | None) -> bool:  # noqa: ARG002 - the twin's signature
        """Leave the body; its error is always its own."""
        return False
