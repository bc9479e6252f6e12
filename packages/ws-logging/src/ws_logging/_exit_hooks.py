"""What the end of a process, and a fork, mean for sinks: drain, or begin anew.

Hooks are installed with the first sink, never at import.
"""

from __future__ import annotations

import atexit
import multiprocessing.util
import os
import signal
import threading
import weakref
from types import FrameType
from typing import Protocol

__all__ = ("catch_sigterm", "release_sigterm", "stop_all", "watch")


class Stoppable(Protocol):
    """A sink, as far as the process is concerned."""

    def stop(self) -> None:
        """Write what waits."""

    def after_fork(self) -> None:
        """Begin anew in a child."""


_sinks: weakref.WeakSet[Stoppable] = weakref.WeakSet()
_installed = False
_draining = False


def watch(sink: Stoppable) -> None:
    """
    Drain a sink when the process ends, and renew it in forked children.

    Args:
        sink: The sink; it is not kept alive by this.
    """
    global _installed  # noqa: PLW0603 - hooks of a process are installed once per process
    _sinks.add(sink)

    if not _installed:
        _installed = True
        atexit.register(stop_all)
        os.register_at_fork(after_in_child=_after_fork)
        # Children of multiprocessing end by os._exit: atexit does not run, but their finalizers do.
        multiprocessing.util.register_after_fork(_after_fork, _drain_at_child_exit)


def stop_all() -> None:
    """Drain and close every sink."""
    for sink in list(_sinks):
        sink.stop()


def _after_fork() -> None:
    for sink in list(_sinks):
        sink.after_fork()


def _drain_at_child_exit(_: object) -> None:
    multiprocessing.util.Finalize(None, stop_all, exitpriority=0)


def catch_sigterm() -> bool:
    """
    Drain before SIGTERM ends the process, if nothing else handles that signal.

    A handler that somebody else has installed is left alone: it ends the process in the normal
    way, and then `atexit` drains. Only the main thread can install handlers.

    Returns:
        Whether the handler is ours now.
    """
    if threading.current_thread() is not threading.main_thread():
        return False

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return signal.getsignal(signal.SIGTERM) is _on_sigterm

    signal.signal(signal.SIGTERM, _on_sigterm)
    return True


def release_sigterm() -> None:
    """Give SIGTERM back to the system, if the handler is still ours."""
    ours = signal.getsignal(signal.SIGTERM) is _on_sigterm

    if ours and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_sigterm(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    """Drain, then die of the signal as if it had not been handled. A second one changes nothing."""
    global _draining  # noqa: PLW0603 - one signal handler per process

    if _draining:
        return

    _draining = True
    stop_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
