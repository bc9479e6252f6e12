"""Points at which operations can be traced, at no cost while nobody does.

A wing declares a point for each method that runs a statement, a command or a request. `start` puts a
method that reports to a tracer in the place of the class's own, `stop` puts the original back. An
operation that is not traced therefore runs the very code that stands in its class: there is no flag to
test on the hot path, and no call in between.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from ws_core.inspection import when_watched
from ws_pool._core.operation import Operation, Span, Tracer
from ws_pool._core.slow_operations import SlowOperations

# Any: a point's method has whatever arguments and result the wing has given it.
Method = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Point:
    """
    A method to trace.

    ``describe`` takes the arguments of a call. ``exclusive``: calls of one object follow each other, and
    one within another is a part of it. ``carry`` returns the arguments with headers added, ``learn``
    attributes of a result.
    """

    owner: type
    method: str
    describe: Callable[..., Operation]
    exclusive: bool = False
    carry: Callable[[tuple[Any, ...], Mapping[str, str]], tuple[Any, ...]] | None = None
    learn: Callable[[Any], Mapping[str, str | int]] | None = None


@dataclass(slots=True)
class _State:
    points: list[Point] = field(default_factory=list)
    originals: list[tuple[Point, Method]] = field(default_factory=list)
    busy: set[int] = field(default_factory=set)  # ids of exclusive objects whose operation is under way
    tracer: Tracer | None = None
    watcher: Tracer | None = None  # beside the tracer

    @property
    def tracers(self) -> tuple[Tracer, ...]:
        """Functions to notify."""
        return tuple(one for one in (self.tracer, self.watcher) if one is not None)


_state: Final = _State()
_in_background: Final = ContextVar("ws_pool_in_background", default=False)
_BACKGROUND: Final = Context()
_BACKGROUND.run(_in_background.set, True)


def background() -> Context:
    """Return a context for a pool's own work: nobody's request, so its operations are not traced."""
    return _BACKGROUND.copy()


def point(owner: type, method: str, describe: Callable[..., Operation], **options: Any) -> None:
    """Declare a method that can be traced; see `Point` for the options."""
    declared = Point(owner, method, describe, **options)
    _state.points.append(declared)

    if _state.tracers:  # the wing was imported after `start`
        _install(declared, _combined(_state.tracers))


def start(tracer: Tracer) -> None:
    """Report all operations of this process to a tracer, in place of an earlier one."""
    _state.tracer = tracer
    _install_all()


def stop() -> None:
    """Report nothing to a tracer any more."""
    _state.tracer = None
    _install_all()


def watch(watcher: Tracer | None) -> Tracer | None:
    """Report all operations to a watcher as well, or to none any more; return the one before."""
    earlier, _state.watcher = _state.watcher, watcher
    _install_all()
    return earlier


def _install_all() -> None:
    """Put traced methods in the places of the classes' own, or these back."""
    while _state.originals:
        declared, original = _state.originals.pop()
        setattr(declared.owner, declared.method, original)

    if _state.tracers:
        tracer = _combined(_state.tracers)

        for declared in _state.points:
            _install(declared, tracer)


def _combined(tracers: tuple[Tracer, ...]) -> Tracer:
    return tracers[0] if len(tracers) == 1 else _Several(tracers)


class _Several:
    """Several tracers as one."""

    def __init__(self, tracers: tuple[Tracer, ...]) -> None:
        self._tracers = tracers

    def begin(self, operation: Operation) -> Span:
        """Begin an operation in each."""
        return _Spans([tracer.begin(operation) for tracer in self._tracers])


class _Spans:
    """The same operation, as several tracers see it."""

    __slots__ = ("_spans",)

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans

    def headers(self) -> Mapping[str, str]:
        """Return the headers of all."""
        return {name: value for span in self._spans for name, value in span.headers().items()}

    def end(self, error: BaseException | None, attributes: Mapping[str, str | int]) -> None:
        """End it in each."""
        for span in self._spans:
            span.end(error, attributes)


def _install(declared: Point, tracer: Tracer) -> None:
    original: Method = declared.owner.__dict__[declared.method]
    wrap = _traced_stream if inspect.isasyncgenfunction(original) else _traced
    _state.originals.append((declared, original))
    setattr(declared.owner, declared.method, wrap(declared, original, tracer))


def _traced(declared: Point, original: Method, tracer: Tracer) -> Method:
    busy = _state.busy

    @functools.wraps(original)
    async def traced(self: Any, *args: Any, **options: Any) -> Any:
        if (declared.exclusive and id(self) in busy) or _in_background.get():
            return await original(self, *args, **options)

        span = tracer.begin(declared.describe(self, *args, **options))

        if declared.carry is not None:
            args = declared.carry(args, span.headers())

        if declared.exclusive:
            busy.add(id(self))

        try:
            result = await original(self, *args, **options)
        except BaseException as error:
            span.end(error, {})
            raise
        else:
            span.end(None, {} if declared.learn is None else declared.learn(result))
            return result
        finally:
            if declared.exclusive:
                busy.discard(id(self))

    return traced


def _traced_stream(declared: Point, original: Method, tracer: Tracer) -> Method:
    @functools.wraps(original)
    async def traced(self: Any, *args: Any, **options: Any) -> AsyncIterator[Any]:
        span = tracer.begin(declared.describe(self, *args, **options))

        try:
            async with aclosing(original(self, *args, **options)) as stream:
                async for item in stream:
                    yield item
        except BaseException as error:
            span.end(None if isinstance(error, GeneratorExit) else error, {})  # left early, not failed
            raise
        else:
            span.end(None, {})

    return traced


_LITERAL: Final = re.compile(
    r"""
    '(?:[^']|'')*(?:'|$)    # a string; one that is cut off ends at the end
    | "(?:[^"]|"")*(?:"|$)  # MySQL's other string
    | \b0x[0-9a-fA-F]+\b
    | \b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b
    """,
    re.VERBOSE,
)
# Where a string ends depends on the dialect and its modes here, or a quote may stand outside of one.
_UNSURE: Final = re.compile(r"\\|--|/\*|\#|\$\w*\$|`[^`]*['\"]")
_QUOTE: Final = re.compile("['\"$]")
_LONGEST: Final = 2000  # characters of a statement that are shown
_VERB: Final = re.compile(r"\s*(?:/\*.*?\*/\s*)?\(?\s*([A-Za-z]+)", re.DOTALL)


def statement(system: str, sql: str, *, literal: bool) -> Operation:
    """Describe a SQL statement; the values of a ``literal`` one, which stand in its text, are not shown."""
    shown = sql[:_LONGEST]

    if literal:
        if _UNSURE.search(shown):
            shown = _QUOTE.split(shown, maxsplit=1)[0]

        shown = _LITERAL.sub("?", shown)

    found = _VERB.match(sql)
    verb = found[1].upper() if found else "SQL"
    return Operation(verb, {"db.system.name": system, "db.operation.name": verb, "db.query.text": shown})


when_watched(lambda: watch(SlowOperations()))
