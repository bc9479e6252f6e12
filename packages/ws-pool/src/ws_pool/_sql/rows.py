"""Rows: immutable, light, and readable by attribute, by key and by index.

A row is a tuple of a class that is made once per list of columns, as a named tuple is. Making one
costs what making a tuple costs.
"""

from __future__ import annotations

from collections import Counter, namedtuple
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, SupportsIndex, TypeVar

from ws_pool.errors import UsageError

T_co = TypeVar("T_co", covariant=True)

if TYPE_CHECKING:

    class _Values(tuple[Any, ...], Generic[T_co]):  # Any: columns hold whatever the database holds
        __slots__ = ()
else:
    _Values = tuple  # a plain tuple is made faster, and has the brackets of a generic class too


class Row(_Values[T_co]):
    """
    One row of a result.

    Columns are read as ``row.name``, ``row["name"]`` or ``row[0]``; a row unpacks and compares as
    a tuple. A column whose name is not a valid attribute name, begins with an underscore, or occurs
    twice is read by key or index. For type checkers it is ``Row[tuple[int, str]]``, as the columns of
    its statement are, and `_tuple` returns just that.

    Example:
        >>> row = row_class(("id", "name"))((7, "ada"))
        >>> row.name, row["id"], row[0], row._asdict()
        ('ada', 7, 7, {'id': 7, 'name': 'ada'})
    """

    __slots__ = ()

    _fields: ClassVar[tuple[str, ...]] = ()
    _index: ClassVar[dict[str, int]] = {}

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"Row({pairs})"

    def __getitem__(self, key: SupportsIndex | slice | str) -> Any:
        if isinstance(key, str):
            return tuple.__getitem__(self, self._position(key))

        return tuple.__getitem__(self, key)

    def __getattr__(self, name: str) -> Any:
        message = f"the row has no column {name!r}; it has {', '.join(self._fields)}"
        raise AttributeError(message)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self._fields, tuple(self))

    def _tuple(self) -> T_co:
        """Return the row, to type checkers as the plain tuple that it is: ``number, name = row._tuple()``."""
        return self  # type: ignore[return-value]  # what it is generic over is the type of itself

    def keys(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self._fields

    def get(self, key: str, default: object = None) -> Any:
        """Read a column by name; ``default`` when there is no such column."""
        return self[key] if key in self._index else default

    def _asdict(self) -> dict[str, Any]:
        """Return the row as a new dict; of columns of the same name, the last one."""
        return dict(zip(self._fields, self, strict=True))

    def __json_object__(self) -> dict[str, Any]:
        """Return what JSON shows of the row: an object with the columns' names, never a list."""
        if len(self._index) < len(self._fields):
            raise _repeated(type(self), "to send them as JSON")

        return dict(zip(self._fields, self, strict=True))

    @classmethod
    def _position(cls, key: str) -> int:
        position = cls._index.get(key, -1)

        if position >= 0:
            return position

        if key in cls._index:
            message = f"the result has several columns {key!r}: give them labels, or read them by index"
            raise UsageError(message, column=key)

        raise KeyError(key)


def check_row_type(row_type: object) -> None:
    """Refuse what rows are not made of."""
    if row_type not in (None, Row, dict, tuple):
        shown = row_type.__name__ if isinstance(row_type, type) else repr(row_type)
        message = f"row_type is Row, dict or tuple, not {shown}"
        raise UsageError(message)


@lru_cache(maxsize=1024)
def row_class(names: tuple[str, ...]) -> type[Row[Any]]:
    """Make the class of rows with these columns, or find it again."""
    counts = Counter(names)
    index = {name: position if counts[name] == 1 else -1 for position, name in enumerate(names)}
    members: dict[str, object] = {"__slots__": (), "_fields": names, "_index": index, "__module__": __name__}

    fields = [f"column{n}" for n in range(len(names))]
    donor = namedtuple("Donor", fields)  # type: ignore[misc]  # noqa: PYI024 - for its getters, which are of C

    for name, position in index.items():
        if position >= 0 and name.isidentifier() and not name.startswith("_"):
            members[name] = getattr(donor, fields[position])

    return type("Row", (Row,), members)


def dict_maker(cls: type[Row[Any]]) -> Callable[[Iterable[Any]], dict[str, Any]]:
    """Make a function that turns values into a dict, unless it would lose one of two columns of a name."""
    names = cls._fields

    if len(cls._index) < len(names):
        raise _repeated(cls, "for dicts")

    return lambda values: dict(zip(names, values, strict=True))


def _repeated(cls: type[Row[Any]], purpose: str) -> UsageError:
    names = sorted({name for name in cls._fields if cls._index[name] < 0})
    message = f"the result has several columns {', '.join(names)}: give them labels {purpose}"
    return UsageError(message, columns=names)


def _rebuild(names: tuple[str, ...], values: Sequence[Any]) -> Row[Any]:
    return row_class(names)(values)
