"""`catch_error`: the place where an error ends, logged. Published by `ws_core.errors`."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")

ErrorLogger = Callable[[Exception, str], object]
"""Takes a caught error, with its traceback, and the message to log it with."""

_logger = logging.getLogger("ws_core")


def describe(error: BaseException, *, with_type: bool = False) -> str:
    """
    Return an error as text for a message: never empty, and never an error of its own.

    Args:
        error: Any error; its ``__str__`` may be broken.
        with_type: Put the name of its class before its text.

    Example:
        >>> describe(ValueError("not a port")), describe(TimeoutError())
        ('not a port', 'TimeoutError')
        >>> describe(ValueError("not a port"), with_type=True), describe(TimeoutError(), with_type=True)
        ('ValueError: not a port', 'TimeoutError')
    """
    kind = type(error).__name__

    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - __str__ of an error of the application may raise anything
        return f"{kind}: its text cannot be shown, __str__ raised {type(broken).__name__}"

    if not text:
        return kind

    return f"{kind}: {text}" if with_type else text


def _log_by_stdlib(error: Exception, message: str) -> None:
    # The record shows the place of the block: above this function, _end() and __exit__().
    _logger.error("%s", message, exc_info=error, stacklevel=4)


_log: ErrorLogger = _log_by_stdlib


def set_error_logger(log: ErrorLogger | None) -> ErrorLogger:
    """
    Choose where `catch_error` logs to, for the whole process.

    A logging library calls this when it is set up. What it is given must not raise; when it does,
    both errors go to the standard library's logger ``ws_core``.

    Args:
        log: Takes the error and a message; None for the standard library's logger ``ws_core``.

    Returns:
        What was in force before, to be put back.

    Example:
        >>> before = set_error_logger(lambda error, message: print(f"caught: {message}"))
        >>> with catch_error():
        ...     int("x")
        caught: ValueError: invalid literal for int() with base 10: 'x'
        >>> _ = set_error_logger(before)
    """
    global _log
    before, _log = _log, _log_by_stdlib if log is None else log
    return before


class ErrorBoundary:
    """What `catch_error` returns: a context manager and a decorator."""

    def __init__(self, kinds: tuple[type[Exception], ...], message: str | None) -> None:
        for kind in kinds:
            if not issubclass(kind, Exception):
                raise TypeError(f"catch_error() takes subclasses of Exception, not {kind!r}")

        self._kinds = kinds or (Exception,)
        self._message = message
        self.error: Exception | None = None

    def __repr__(self) -> str:
        kinds = ", ".join(kind.__name__ for kind in self._kinds)
        return f"<catch_error {kinds}: {self.error!r}>"

    def __enter__(self) -> Self:
        self.error = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self._end(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self._end(error)

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R | None]]: ...

    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R | None]: ...

    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:  # Any: the overloads say it
        """Return the function with its errors caught."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"catch_error() cannot decorate the generator function {function.__qualname__}:"
                " its errors arise where it is iterated, so catch them there"
            )

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def caught_coroutine(*args: P.args, **kwargs: P.kwargs) -> object:
                with ErrorBoundary(self._kinds, self._message):
                    return await function(*args, **kwargs)

                return None

            return caught_coroutine

        @functools.wraps(function)
        def caught_function(*args: P.args, **kwargs: P.kwargs) -> object:
            with ErrorBoundary(self._kinds, self._message):
                return function(*args, **kwargs)

            return None

        return caught_function

    def _end(self, error: BaseException | None) -> bool:
        if not isinstance(error, self._kinds):
            return False

        self.error = error
        message = describe(error, with_type=True) if self._message is None else self._message

        try:
            _log(error, message)
        except Exception as failure:  # noqa: BLE001 - a broken logger must not break what it watches
            _log_by_stdlib(error, message)
            _log_by_stdlib(failure, f"the logger of catch_error() failed: {failure!r}")

        return True


@overload
def catch_error(  # type: ignore[overload-overlap]  # a class of errors is callable too, and meant as a kind
    *kinds: type[Exception], message: str | None = None
) -> ErrorBoundary: ...


@overload
def catch_error(
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> Callable[P, Coroutine[Any, Any, R | None]]: ...


@overload
def catch_error(function: Callable[P, R], /) -> Callable[P, R | None]: ...


def catch_error(*kinds: Any, message: str | None = None) -> Any:  # Any: the overloads say it
    """
    Log errors of a block or a function and go on.

    Only `Exception` is caught. Cancellation, KeyboardInterrupt and SystemExit are requests to end,
    not errors, and always pass. Works as ``with``, ``async with`` and as decorator of functions
    and coroutine functions, with parentheses or without; a decorated function returns None when its
    error was caught. The block's boundary has the error that it ended with, or None, as ``error``.

    Args:
        *kinds: Catch only these; all errors by default.
        message: Logged instead of the error's own text.

    Raises:
        TypeError: One of ``kinds`` is not a subclass of `Exception`, or what is decorated is a
            generator function, whose errors arise where it is iterated.

    Example:
        >>> with catch_error(ZeroDivisionError, message="no average") as caught:
        ...     print(1 / 0)
        >>> caught.error
        ZeroDivisionError('division by zero')
    """
    if len(kinds) == 1 and callable(kinds[0]) and not isinstance(kinds[0], type):
        return ErrorBoundary((), message)(kinds[0])  # @catch_error without parentheses

    return ErrorBoundary(kinds, message)
