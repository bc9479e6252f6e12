"""Notice jobs that are enqueued and runs that are made, and let context travel from one to the other.

A `RunObserver` is for tracers; ``ws_tasks.otel`` has one for OpenTelemetry. The values of
`ws_core.context`, such as the id of a request, travel without any doing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from ws_core import context
from ws_tasks.interface import Run

__all__ = ("RunObserver", "observe")

logger: logging.Logger = logging.getLogger("ws_tasks")


class RunObserver(Protocol):
    """Is notified of jobs and runs. Each method returns a context that the job or run is in."""

    def enqueuing(self, task: str, headers: dict[str, str]) -> AbstractContextManager[object]:
        """Return the context in which a job is enqueued; what it adds to the headers travels with it."""
        ...

    def running(self, run: Run, headers: Mapping[str, str]) -> AbstractContextManager[object]:
        """Return the context of a run, with the headers of its job; its error ends the context."""
        ...


_observers: list[RunObserver] = []


def observe(observer: RunObserver) -> Callable[[], None]:
    """
    Notify an observer of all jobs and runs of this process.

    Args:
        observer: The observer.

    Returns:
        A function that ends it.

    Example:
        ```python
        from contextlib import nullcontext
        from ws_tasks import IntervalTask, Scheduler
        from ws_tasks.observe import observe

        class Printer:
            def enqueuing(self, task, headers):
                return nullcontext()

            def running(self, run, headers):
                print("run", run.id)
                return nullcontext()

        stop = observe(Printer())

        async with Scheduler() as scheduler:
            await scheduler.add(IntervalTask(60, print, "tick", name="tick")).run_now()

        stop()
        ```
    """
    _observers.append(observer)

    def stop() -> None:
        if observer in _observers:
            _observers.remove(observer)

    return stop


@contextmanager
def enqueuing(task: str) -> Iterator[dict[str, str]]:
    """Yield the headers that travel with a job; the block hands it over."""
    headers = context.capture()

    with _entered([partial(observer.enqueuing, task, headers) for observer in _observers]):
        yield headers


def is_observed() -> bool:
    """Return whether anybody is notified of runs."""
    return bool(_observers)


@contextmanager
def running(run: Run, headers: Mapping[str, str]) -> Iterator[None]:
    """Be the context of a run for the length of a block."""
    contexts = [partial(observer.running, run, headers) for observer in _observers]

    with context.restored(headers), _entered(contexts):
        yield


@contextmanager
def _entered(contexts: Sequence[Callable[[], AbstractContextManager[object]]]) -> Iterator[None]:
    """Enter contexts of observers; what they raise themselves is logged, and harms no job."""
    entered: list[AbstractContextManager[object]] = []

    for make in contexts:
        try:
            found = make()
            found.__enter__()
        except Exception:
            logger.exception("an observer of jobs failed")
        else:
            entered.append(found)

    try:
        yield
    except BaseException as error:
        _leave(entered, error)
        raise
    else:
        _leave(entered, None)


def _leave(entered: list[AbstractContextManager[object]], error: BaseException | None) -> None:
    """Leave contexts, each with the error of the job: what one of them raises is not another's."""
    for found in reversed(entered):
        try:
            if error is None:
                found.__exit__(None, None, None)
            else:
                found.__exit__(type(error), error, error.__traceback__)
        except Exception as raised:
            if raised is not error:
                logger.exception("an observer of jobs failed")
