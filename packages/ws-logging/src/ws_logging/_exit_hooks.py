"""The end of a process, and a fork, as sinks see them: drain, or begin anew.

A process ends in one of four ways, and sinks are drained in each of them:

- The interpreter ends: `atexit` runs.
- A child of multiprocessing ends by ``os._exit``: its finalizers run instead.
- A signal with its default action, such as SIGTERM or SIGHUP: the handler of this module drains, and
  then lets the signal end the process.
- A server handles SIGTERM itself, shuts down, puts back the handlers that it found, and raises the
  signal once more (uvicorn). It found the default action when logging was set up later than its
  handlers, or in the parent before a fork (gunicorn's ``--preload``). Therefore "the default
  action" means draining for as long as there are sinks, whoever sets it and when:
  `signal.signal` is wrapped, since nothing else reports that a handler has been replaced.

A fork copies locks as they are at that moment, also those that other threads of the parent hold. The
child does not have these threads, so whatever has a lock begins anew there, with a lock that is free.

Hooks are installed with the first sink or lock, never at import.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import multiprocessing.util
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

# Those that people and their tools send. The others (SIGALRM, SIGXCPU, SIGQUIT) end a process that hangs:
# they must not wait for Python.
_CAUGHT = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
_ENDING = (*_CAUGHT, signal.SIGINT)


class Renewable(Protocol):
    """An object that has a lock, or something else that a forked child cannot use."""

    def after_fork(self) -> None:
        """Begin anew in a child."""


class Stoppable(Renewable, Protocol):
    """A sink, as far as the process is concerned."""

    def stop(self) -> None:
        """Write what waits."""


# A sink that was stopped is renewed as well: it goes on writing, without a queue.
_renewable: weakref.WeakSet[Renewable] = weakref.WeakSet()
_sinks: weakref.WeakSet[Stoppable] = weakref.WeakSet()
_running: weakref.WeakSet[Stoppable] = weakref.WeakSet()
_installed = False
_is_ending = False
_follows_forks = False


def renew_in_children(one: Renewable) -> None:
    """Renew an object, which is not kept alive by this, in forked children."""
    global _follows_forks  # noqa: PLW0603 - hooks of a process are installed once per process
    _renewable.add(one)

    if not _follows_forks and hasattr(os, "register_at_fork"):
        _follows_forks = True
        os.register_at_fork(after_in_child=_after_fork)


def watch(sink: Stoppable) -> None:
    """Drain a sink, which is not kept alive by this, when the process ends; renew it in forked children."""
    _sinks.add(sink)
    _running.add(sink)
    renew_in_children(sink)
    _catch_signals()
    follow_end()


def is_ending() -> bool:
    """Return whether the exit hook has been called: what is logged now is logged by later hooks."""
    return _is_ending


def follow_end() -> None:
    """Install the hooks that are called at the end of this process."""
    global _installed  # noqa: PLW0603 - hooks of a process are installed once per process

    if _installed:
        return

    _installed = True
    atexit.register(_at_exit)

    # Children forget the finalizers that they have inherited, so each adds its own. A child that sets
    # logging up itself is past that point already.
    multiprocessing.util.register_after_fork(_after_fork, _finalize_child)

    if multiprocessing.parent_process() is not None:
        _finalize_child(None)


def unwatch(sink: Stoppable) -> None:
    """Restore the signals' handlers when the last sink has been stopped."""
    _running.discard(sink)

    if not _running:
        _release_signals()


def stop_all() -> None:
    """Drain and close every sink. May be called again; goes on where it was interrupted."""
    with deferred_signals():
        for sink in list(_sinks):
            sink.stop()


def _at_exit() -> None:
    global _is_ending  # noqa: PLW0603 - a process ends once
    _is_ending = True

    with suppress(KeyboardInterrupt):  # a Ctrl-C during the drain: the process is ending already
        stop_all()


def _after_fork() -> None:
    _put_back()  # the drain that deferred signals is the parent's

    for one in list(_renewable):
        one.after_fork()


def _finalize_child(_: object) -> None:
    # After all others, with the lowest priority: they may log.
    multiprocessing.util.Finalize(None, stop_all, exitpriority=-1000)


# Signals ------------------------------------------------------------------------------------

_deferred: dict[int, Any] = {}  # handlers that are replaced during a drain; Any: any handler
_set_handler = signal.signal  # the real one


@functools.wraps(signal.signal)
def _wrapped_signal(signalnum: int, handler: Any) -> Any:
    """Set a handler as `signal.signal` does, with draining in place of the default action."""
    if signalnum in _CAUGHT and handler == signal.SIG_DFL and _running:
        handler = _on_signal

    return _set_handler(signalnum, handler)


def _catch_signals() -> None:
    """Drain before a signal takes its default action, now and when it is set later."""
    signal.signal = _wrapped_signal

    # A handler that somebody has installed stays: it either ends the process in the normal way, or
    # puts the default action back. Only the main thread can install handlers.
    for number in _CAUGHT if _is_main_thread() else ():
        if signal.getsignal(number) == signal.SIG_DFL:
            _set_handler(number, _on_signal)


def _release_signals() -> None:
    """Restore the system's handlers of signals, where the handler is still ours."""
    if signal.signal is _wrapped_signal:
        signal.signal = _set_handler

    for number in _CAUGHT if _is_main_thread() else ():
        if signal.getsignal(number) is _on_signal:
            _set_handler(number, signal.SIG_DFL)


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Drain, then die of the signal as if it had not been handled."""
    stop_all()
    _set_handler(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """
    Let signals that would end the process wait for the end of a block.

    A second SIGTERM or a Ctrl-C must not cut a drain short. They take effect afterwards, and a drain
    has a timeout of its own. SIGQUIT and SIGKILL remain for those who cannot wait.
    """
    if _deferred or not _is_main_thread():
        yield
        return

    arrived: list[int] = []

    try:
        for number in _ENDING:
            # None is a handler that was not installed from Python; it could not be put back.
            if signal.getsignal(number) not in (None, signal.SIG_IGN):
                _deferred[number] = _set_handler(number, lambda number, _: arrived.append(number))

        yield
    finally:
        _put_back()

    for number in arrived:
        signal.raise_signal(number)


def _put_back() -> None:
    while _deferred:
        _set_handler(*_deferred.popitem())


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
