"""JSON in and out: what clients may send, and how values that are not plain JSON are written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

from fastapi.encoders import jsonable_encoder
from pydantic_core import PydanticSerializationError, from_json, to_json

MAX_DEPTH = 200
"""How deeply a JSON body may be nested. Encoders stop at 255 levels: deeper data could not be sent back."""

_MARK = "__json_object__"
_CONTAINERS = frozenset({dict, list, tuple})
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_NOT_BRACKETS = bytes(char for char in range(256) if char not in b"[]{}")
_STEPS = bytes(1 if char in b"[{" else 255 if char in b"]}" else 0 for char in range(256))


@runtime_checkable
class JsonObject(Protocol):
    """
    A value that is sent as a JSON object, although it is a tuple: a row of a database.

    FastAPI writes tuples, named ones too, as lists. A class that means its columns to be seen says so
    by this method; the rows of ws-pool do.

    Example:
        >>> class Row(tuple):
        ...     def __json_object__(self):
        ...         return dict(zip(("id", "name"), self))
        >>> encode([Row((1, "lamp"))])
        b'[{"id":1,"name":"lamp"}]'
    """

    def __json_object__(self) -> Mapping[str, object]:
        """Return the names and values of the columns."""
        ...


def encode(content: object) -> bytes:
    """Return any value as compact JSON, rows as objects."""
    return dump(plain_rows(content))


def dump(content: object) -> bytes:
    """Return compact JSON; objects that pydantic does not know are written as FastAPI writes them."""
    try:
        return to_json(content, inf_nan_mode="null", fallback=jsonable_encoder)
    except PydanticSerializationError:
        # Half of a surrogate pair cannot be written as UTF-8, but as an escape it can.
        plain = _finite(jsonable_encoder(content))
        return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()


def plain_rows(content: Any) -> Any:  # Any: any value is returned as it came
    """Return the content with its rows as dictionaries; the same object when there are none."""
    kind = type(content)

    if kind is list or kind is tuple:
        if any(map(_may_hold_rows, set(map(type, content)))):
            return kind([plain_rows(item) for item in content])

        return content

    if kind is dict:
        if any(map(_may_hold_rows, set(map(type, content.values())))):
            return {key: plain_rows(value) for key, value in content.items()}

        return content

    return content.__json_object__() if _may_hold_rows(kind) else content  # type: ignore[arg-type]  # a type has a hash


@lru_cache(maxsize=1024)
def _may_hold_rows(kind: type) -> bool:
    """Return whether values of a type may be rows or hold some; to look the marker up costs a microsecond."""
    return kind in _CONTAINERS or hasattr(kind, _MARK)


def _finite(content: Any) -> Any:  # Any: plain JSON values
    """Return plain JSON values with NaN and the infinities, which JSON does not have, as None."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None

    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}

    return [_finite(item) for item in content] if isinstance(content, list) else content


def is_too_deep(body: bytes) -> bool:
    """Return whether a JSON text is nested deeper than `MAX_DEPTH`."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return False

    try:
        from_json(body)  # refuses more than 201 levels; the fastest proof that an ordinary body is not deep
    except ValueError:
        # Too deep, or wrong in some other place, which could hide a deep one behind it: count the brackets.
        brackets = _STRING.sub(b"", body).translate(_STEPS, _NOT_BRACKETS)
        return max(accumulate(memoryview(brackets).cast("b")), default=0) > MAX_DEPTH

    return False
