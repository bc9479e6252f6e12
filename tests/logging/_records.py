"""Whatever may be logged: messages, fields and exceptions of any kind, and objects that raise."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from loguru import logger

from ws_logging import register_logger


class Broken:
    """An object of an application that raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __repr__

    def __hash__(self) -> int:
        return 1


class BrokenError(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class BrokenMapping(dict[str, object]):
    """A mapping that raises when it is gone through."""

    def items(self) -> Any:
        """Raise."""
        raise ZeroDivisionError


HUGE = 1 << 20_000  # too long for Python to write in decimal; pytest must not show it either
CIRCLE: dict[str, object] = {}
CIRCLE["self"] = CIRCLE
ODD = [Broken(), CIRCLE, object, BrokenMapping(a=1), Path("/x"), HUGE, -HUGE]
TEXTS = st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs included
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary() | st.datetimes()
    | st.integers(0, 6).map(lambda number: ODD[number])  # their repr must not be asked for
)  # fmt: skip
KEYS = TEXTS | st.integers() | st.none() | st.tuples(st.integers()) | st.floats()
VALUES: st.SearchStrategy[object] = st.recursive(
    SCALARS,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(KEYS, children, max_size=3)
        | st.tuples(children, children)
    ),
    max_leaves=8,
)
ERRORS = st.builds(ValueError, TEXTS) | st.builds(BrokenError) | st.builds(KeyError, VALUES)


def written(message: str, fields: dict[str, Any], error: Exception | None, **options: Any) -> str:
    """Log a message, and return what was written."""
    stream = io.StringIO()
    handle = register_logger("info", stream, **options)
    target = logger.bind(**fields)

    try:
        if error is None:
            target.info(message)
        else:
            target.opt(exception=error).error(message)
    finally:
        handle.close()

    return stream.getvalue()


def text(path: Path) -> str:
    """Return a file's text."""
    return path.read_text()
