"""What belongs to a request and travels with the work that it starts: its id, in a job as in the request.

A library that has such a value registers it with `carry`; one that takes work to another task, process
or machine sends what `capture` returns, and does the work within `restored`. Traces are not carried
here but by the libraries' own instrumentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, NamedTuple

__all__ = ("capture", "carry", "restored")


class _Carried(NamedTuple):
    read: Callable[[], str | None]
    restore: Callable[[str], AbstractContextManager[object]]


_carried: Final[dict[str, _Carried]] = {}


def carry(
    name: str, read: Callable[[], str | None], restore: Callable[[str], AbstractContextManager[object]]
) -> None:
    """
    Let a value travel with work.

    Args:
        name: Its name on the way, such as that of a header, in lower case.
        read: Returns the value of the running code; an empty text or None for no value.
        restore: Returns a context in which the running code has a value.

    Raises:
        ValueError: Another value has this name.

    Example:
        >>> from contextvars import ContextVar
        >>> tenant = ContextVar("tenant", default="")
        >>> @contextmanager
        ... def as_tenant(value):
        ...     token = tenant.set(value)
        ...     try:
        ...         yield
        ...     finally:
        ...         tenant.reset(token)
        >>> carry("x-example-tenant", tenant.get, as_tenant)
        >>> with as_tenant("a"):
        ...     sent = capture()
        >>> with restored(sent):
        ...     tenant.get()
        'a'
    """
    carried = _Carried(read, restore)

    if _carried.setdefault(name, carried) != carried:
        raise ValueError(f"{name!r} is carried by another library already: choose another name")


def capture() -> dict[str, str]:
    """Return the values of the running code by their names, without empty ones."""
    return {name: value for name, carried in _carried.items() if (value := carried.read())}


@contextmanager
def restored(values: Mapping[str, str]) -> Iterator[None]:
    """
    Set, for the code within the block, the values that `capture` has returned elsewhere.

    Args:
        values: Values by name; names that nobody has registered here are passed over.
    """
    with ExitStack() as stack:
        for name, value in values.items():
            if name in _carried:
                stack.enter_context(_carried[name].restore(value))

        yield
