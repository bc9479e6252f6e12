"""The options that all tasks share, checked once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias, TypedDict

from ws_tasks._validation import check_seconds, check_whole
from ws_tasks.errors import ScheduleError
from ws_tasks.interface import Guard, LeaseGuard, Run, RunStore

Overlap = Literal["skip", "queue", "cancel_previous"]
Coalesce = Literal["latest", "all"]
CatchUp = Literal["latest", "all"]
ErrorHandler: TypeAlias = Callable[[BaseException, Run], Awaitable[None] | None]


class TaskOptions(TypedDict, total=False):
    """
    The options that all tasks take as keyword arguments.

    Attributes:
        tag: Names a group of tasks, ``"default"`` when left out: ``scheduler.stop(tag)``.
        name: The task's name in messages and run ids; by default the function's.
        kwargs: Passed to the function by name.
        jitter: Up to so many seconds are added to each waking; nominal times stay as they are.
        overlap: What to do when a run is due and the one before has not ended: ``"skip"`` it
            (the default), ``"queue"`` it, or ``"cancel_previous"``.
        max_instances: How many runs may be under way at once; 1 by default.
        max_queued: How many runs may wait with ``overlap="queue"``; more are skipped. 1000.
        coalesce: When several runs are overdue make the ``"latest"`` one only (the default), or
            ``"all"``.
        misfire_grace: Seconds a run may be late; None (the default) for any. Later ones are
            skipped, which is an event and a counter.
        timeout: Seconds each attempt may take; None for any. A coroutine is cancelled; a thread
            cannot be, so it is announced as overdue and counts as timed out when it returns.
        retries: How often to try again when an attempt raises; 0 by default.
        retry_on: The exception, or a tuple of them, worth a retry; `Exception` by default.
        retry_wait: Seconds before the first retry, 0.1; doubled each time, less up to half as jitter.
        retry_max_wait: Upper bound of that wait in seconds, 5.0.
        on_error: Called (and awaited) with the exception and the `Run` when the last attempt has
            failed; without it the error is logged.
        guard: Decides which of several processes makes a run; see `Guard`. It needs a ``name``,
            the same in every process.
        guard_ttl: Seconds for which a run stays marked as made, 3600; longer than the processes'
            clocks differ.
        claim_ttl: Seconds after which another process makes a run whose process died or was
            stopped, 30; the claim is renewed three times as often.
        at_least_once: Whether that happens. By default it does with a `LeaseGuard`, such as
            ws-redislock's. With False a run is never begun twice, and lost with its process.
        catch_up: What to make up for at the start of what was missed while no process was there: the
            ``"latest"`` run, ``"all"`` (``max_queued`` at most, the oldest first), or nothing, None. It
            needs a ``run_store`` and a ``name``; intervals then have the nominal times of guarded ones.
        run_store: Where the last run is noted; see `RunStore`.
    """

    tag: str
    name: str | None
    kwargs: Mapping[str, object] | None
    jitter: float
    overlap: Overlap
    max_instances: int
    max_queued: int
    coalesce: Coalesce
    misfire_grace: float | None
    timeout: float | None
    retries: int
    retry_on: type[Exception] | tuple[type[Exception], ...]
    retry_wait: float
    retry_max_wait: float
    on_error: ErrorHandler | None
    guard: Guard | None
    guard_ttl: float
    claim_ttl: float
    at_least_once: bool | None
    catch_up: CatchUp | None
    run_store: RunStore | None


@dataclass(frozen=True, slots=True)
class Options:
    """How runs are made. Equal options share one object, so that many tasks cost little."""

    jitter: float = 0.0
    overlap: Overlap = "skip"
    max_instances: int = 1
    max_queued: int = 1000
    coalesce: Coalesce = "latest"
    misfire_grace: float | None = None
    timeout: float | None = None
    retries: int = 0
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception
    retry_wait: float = 0.1
    retry_max_wait: float = 5.0
    on_error: ErrorHandler | None = None
    guard: Guard | None = None
    guard_ttl: float = 3600.0
    claim_ttl: float = 30.0
    at_least_once: bool | None = None
    catch_up: CatchUp | None = None
    run_store: RunStore | None = None

    @property
    def leased(self) -> bool:
        """Whether claims are kept alive, and runs of processes that died are taken over."""
        # The order matters: isinstance() of a protocol costs more than all the rest of adding a task.
        return (
            self.guard is not None and self.at_least_once is not False and isinstance(self.guard, LeaseGuard)
        )


_DEFAULT = Options()
_OWN = frozenset({"tag", "name", "kwargs"})


@lru_cache(maxsize=256)
def _share(options: Options) -> Options:
    return options


def make_options(given: TaskOptions) -> Options:
    """Check the options given, without ``tag``, ``name`` and ``kwargs``, and share equal ones."""
    # Most tasks have no options of this kind, and many have the same ones: they share one object,
    # which is what makes 100,000 tasks affordable.
    if not given or not given.keys() - _OWN:
        return _DEFAULT

    try:
        options = Options(**{key: value for key, value in given.items() if key not in _OWN})  # type: ignore[arg-type]  # the TypedDict has the types
    except TypeError:
        unknown = sorted(given.keys() - _OWN - set(Options.__slots__))
        raise ScheduleError(f"unknown options: {', '.join(unknown)}", options=tuple(unknown)) from None

    _check_numbers(options)
    _check_rules(options)

    try:
        return _share(options)
    except TypeError:  # something in it is not hashable
        return options


def _check_numbers(options: Options) -> None:
    check_seconds("jitter", options.jitter, zero=True)
    check_seconds("retry_wait", options.retry_wait, zero=True)
    check_seconds("retry_max_wait", options.retry_max_wait, zero=True)
    check_seconds("guard_ttl", options.guard_ttl)
    check_seconds("claim_ttl", options.claim_ttl)

    if options.timeout is not None:
        check_seconds("timeout", options.timeout)

    if options.misfire_grace is not None:
        check_seconds("misfire_grace", options.misfire_grace, zero=True)

    check_whole("max_instances", options.max_instances, 1)
    check_whole("max_queued", options.max_queued, 1)
    check_whole("retries", options.retries, 0)


def _check_rules(options: Options) -> None:
    _one_of("overlap", options.overlap, ("skip", "queue", "cancel_previous"))
    _one_of("coalesce", options.coalesce, ("latest", "all"))

    if options.coalesce == "all" and options.overlap != "queue":
        # All missed runs are due at the same moment: without a queue all but one would be skipped.
        raise ScheduleError('coalesce="all" needs overlap="queue": missed runs are all due at once')

    if options.catch_up is not None:
        _one_of("catch_up", options.catch_up, ("latest", "all"))

    if (options.catch_up is None) != (options.run_store is None):
        raise ScheduleError("catch_up and run_store need each other: give both", option="catch_up")

    if options.catch_up == "all" and options.overlap != "queue":
        raise ScheduleError('catch_up="all" needs overlap="queue": missed runs are all due at once')

    if options.overlap == "cancel_previous" and options.max_instances != 1:
        raise ScheduleError('overlap="cancel_previous" allows max_instances=1 only')

    if options.guard is not None and not callable(getattr(options.guard, "claim", None)):
        raise ScheduleError(f"guard={options.guard!r} has no method claim(run_id, ttl)", option="guard")

    if options.at_least_once and not options.leased:
        message = f"at_least_once=True needs a guard with claim_run(), which {options.guard!r} has not"
        raise ScheduleError(f"{message}: use ws-redislock's RunClaims", option="at_least_once")

    check_exceptions("retry_on", options.retry_on)
    handler: object = options.on_error

    if handler is not None and not callable(handler):
        raise ScheduleError(f"on_error={handler!r} cannot be called", option="on_error")


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ScheduleError(f"{name}={value!r} is wrong: use one of {', '.join(allowed)}", option=name)


def check_exceptions(option: str, value: object) -> None:
    """Refuse what is not an exception class or a tuple of them."""
    for item in value if isinstance(value, tuple) else (value,):
        if not isinstance(item, type) or not issubclass(item, Exception):
            raise ScheduleError(f"{option}={value!r} is wrong: use exception classes", option=option)
