"""Validation of options, with messages that name the option."""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any

from ws_tasks.errors import ScheduleError

_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_KEPT: dict[int, float] = {}  # floats by the whole seconds that they were given as
_MOST_KEPT = 4000  # an hour, and what is near to it
_VARIABLE = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """Return a duration given by the user as a float, or raise ScheduleError naming the option."""
    if type(value) is float and 0.0 < value < math.inf:
        return value  # the usual case, at a fifth of the cost: 100,000 tasks are checked

    if type(value) is int and 0 < value < _MOST_KEPT:
        return _KEPT.setdefault(value, float(value))  # one object for all tasks with this number

    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.inf

    if math.isfinite(number) and (number > 0 or (zero and number == 0)):
        return number

    bound = "0 or more" if zero else "more than 0"
    raise ScheduleError(f"{name}={value!r} is wrong: use {bound} seconds", option=name)


def check_wait(name: str, value: object) -> float | None:
    """Return how long to wait: seconds, also none or less, when the time is over; None for any."""
    if value is None:
        return None

    if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
        return value

    raise ScheduleError(f"{name}={value!r} is wrong: use seconds, or None", option=name)


def check_name(option: str, value: object) -> None:
    """Refuse what is not a name."""
    if not isinstance(value, str) or not value.strip():
        raise ScheduleError(f"{option}={value!r} is wrong: use a text that is not empty", option=option)


def to_json(value: object) -> str:
    """Return a value as JSON, or raise ValueError or TypeError when it would arrive as another."""
    _check_keys(value)
    return json.dumps(value, allow_nan=False)


def _check_keys(value: object) -> None:
    """Refuse keys that JSON, whose keys are texts, would make one of, such as 1 and "1"."""
    if isinstance(value, dict):
        if any(not isinstance(key, str) for key in value):
            texts = {key if isinstance(key, str) else json.dumps(key) for key in value}

            if len(texts) < len(value):
                raise TypeError("two of its keys are written alike")

        for item in value.values():
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)


def check_whole(name: str, value: object, least: int) -> int:
    """Return a count given by the user, or raise ScheduleError naming the option."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value

    raise ScheduleError(f"{name}={value!r} is wrong: use a whole number, at least {least}", option=name)


def unwrap_partial(func: Callable[..., Any]) -> Callable[..., Any]:  # any function
    """Return the function inside of partials."""
    while isinstance(func, functools.partial):
        func = func.func

    return func


def check_function(func: object, task: str | None) -> None:
    """Refuse what cannot be called, and generator functions, of which a call runs nothing."""
    if not callable(func):
        raise ScheduleError(f"a task needs a function to call, not {func!r}", func=func)

    bare = unwrap_partial(func)
    called = bare if hasattr(bare, "__code__") or inspect.ismethod(bare) else type(bare).__call__
    code = getattr(called, "__code__", None)

    if code is not None and code.co_flags & _GENERATOR:
        message = f"task {task or func!r}: a call of this generator function would run nothing"
        raise ScheduleError(f"{message}: use a function that loops by itself", task=task)


def check_arguments(
    func: Callable[..., Any],  # any function
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    task: str | None,
) -> None:
    """Refuse arguments that do not fit the function."""
    # The usual cases, at a fiftieth of the cost of a signature: 100,000 tasks are checked.
    plain = func.__func__ if type(func) is MethodType else func

    if type(plain) is FunctionType and not kwargs:
        code, most = plain.__code__, plain.__code__.co_argcount
        least = most - len(plain.__defaults__ or ())
        count = len(args) + (plain is not func)  # a method is given its object first

        if not code.co_flags & _VARIABLE and not code.co_kwonlyargcount and least <= count <= most:
            return

    try:
        # Not the signature of what a decorator wraps: a wrapper may add arguments of its own.
        signature = inspect.signature(func, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # a builtin without a signature

    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        message = f"task {task or func!r}: the arguments do not fit the function: {error}"
        raise ScheduleError(message, task=task) from error
