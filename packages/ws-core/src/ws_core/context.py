"""What belongs to a request and travels with the work that it starts: its id, in a job as in the request.

A library that has such a value registers its context variable with `carry`; one that takes work to
another task, process or machine sends what `capture` returns, and does the work within `restored`.
Traces are not carried here but by the libraries' own instrumentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ("capture", "carry", "restored")

_carried: Final[dict[str, ContextVar[str]]] = {}


def carry(name: str, variable: ContextVar[str]) -> None:
    """
    Let a value travel with work.

    Args:
        name: Its name on the way, such as that of a header, in lower case.
        variable: The context variable; an empty text stands for no value.

    Raises:
        ValueError: Another variable has this name.

    Example:
        >>> request_id = ContextVar("request_id", default="")
        >>> carry("x-example-id", request_id)
        >>> token = request_id.set("r-1")
        >>> sent = capture()
        >>> request_id.reset(token)
        >>> with restored(sent):
        ...     request_id.get()
        'r-1'
    """
    if _carried.setdefault(name, variable) is not variable:
        raise ValueError(f"{name!r} is carried by another variable already: choose another name")


def capture() -> dict[str, str]:
    """Return the values of the running code by their names, without empty ones."""
    return {name: value for name, variable in _carried.items() if (value := variable.get(""))}


@contextmanager
def restored(values: Mapping[str, str]) -> Iterator[None]:
    """
    Give the code within the block the values that `capture` has returned elsewhere.

    Args:
        values: Values by name; names that nobody has registered here are passed over.
    """
    tokens = [
        (_carried[name], _carried[name].set(value)) for name, value in values.items() if name in _carried
    ]

    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)
