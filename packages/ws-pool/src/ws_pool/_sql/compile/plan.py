"""A statement compiled once: its text, where its values come from, and what becomes of its rows.

This is what SQLAlchemy's execution context does for every execution, done once per statement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, cast

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from ws_pool._sql.dialect import Grammar
from ws_pool._sql.gc_pause import gc_paused
from ws_pool._sql.rows import Row, dict_maker, row_class
from ws_pool.errors import UsageError

_DML = frozenset({"insert", "update", "delete", "replace", "with"})
_RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)
_MANY = 500  # rows; from here on the collector is kept out
_AS_TUPLE = itemgetter(slice(None))  # of a driver's record; iterating over one takes longer than a slice

Processor = Callable[[Any], Any]  # Any: values of columns are whatever their types make of them
Values = list[Any]
Maker = Callable[[Iterable[Any]], Any]


class RowMaker:
    """Turns the driver's tuples into rows, with the result processors of the columns' types."""

    # What depends on the columns alone is decided here, once for a plan; then a row costs one call of `make`.
    __slots__ = ("cls", "description", "names", "processors")

    def __init__(
        self,
        description: Sequence[Sequence[Any]],
        names: tuple[str, ...],
        processors: Sequence[Processor | None],
    ) -> None:
        self.description: Sequence[Sequence[Any]] = description
        self.names: tuple[str, ...] = names
        self.cls: type[Row[Any]] = row_class(names)
        self.processors: list[tuple[int, Processor]] = [
            (n, processor) for n, processor in enumerate(processors) if processor is not None
        ]

    def many(self, rows: Sequence[tuple[Any, ...]], row_type: type | None) -> list[Any]:
        """Make rows of the driver's tuples: `Row` objects, dicts, or tuples as they are."""
        make: Maker

        if row_type is None or row_type is Row:
            make = self.cls
        elif row_type is tuple:
            make = tuple
        else:
            make = dict_maker(self.cls)

        if len(rows) < _MANY:
            return self._make(rows, make)

        with gc_paused():
            return self._make(rows, make)

    def _make(self, driver_rows: Sequence[tuple[Any, ...]], make: Maker) -> list[Any]:
        rows: Iterable[tuple[Any, ...]] = driver_rows

        if driver_rows and type(driver_rows[0]) is not tuple:
            rows = map(_AS_TUPLE, driver_rows)

        if not self.processors:
            return list(map(make, rows))

        result = []
        processors = self.processors

        for row in rows:
            values = list(row)

            for n, processor in processors:
                values[n] = processor(values[n])

            result.append(make(values))

        return result


class Plan:
    """What is common to all plans: the text for the driver, its verb, and what the text alone shows."""

    __slots__ = (
        "clean",
        "ends",
        "hides_id",
        "kind",
        "large",
        "maker",
        "quick",
        "reading",
        "returning",
        "silent",
        "sql",
        "used_at",
    )

    def __init__(self, sql: str, kind: str, grammar: Grammar) -> None:
        self.sql: str = sql
        self.kind: str = kind
        self.clean: bool = grammar.leaves_clean(sql)
        self.reading: bool = grammar.reads_only(sql)
        self.quick: bool = self.clean and self.reading
        self.ends: bool = grammar.ends_transaction(sql)
        self.maker: RowMaker | None = None
        self.large: bool = False  # whether it gave many rows when it ran last
        self.returning: bool = kind in _DML and _RETURNING.search(sql) is not None  # or the word is a name
        self.hides_id: bool = self.returning  # whether an INSERT's rows may come without its generated id
        self.silent: bool = False  # whether its rows are a RETURNING that SQLAlchemy added for itself
        self.used_at: int = 0

    def row_maker(self, description: Sequence[Sequence[Any]]) -> RowMaker:
        """Return the row maker for a result; a new one is made only when the columns have changed."""
        maker = self.maker

        if maker is None or (maker.description is not description and maker.description != description):
            maker = self.maker = self.new_row_maker(description)

        return maker

    def new_row_maker(self, description: Sequence[Sequence[Any]]) -> RowMaker:
        """Make a row maker."""
        return RowMaker(description, tuple(column[0] for column in description), ())


class TextPlan(Plan):
    """A string that goes to the driver as it is, with values by position."""

    __slots__ = ("hides_placeholder",)

    def __init__(self, sql: str, grammar: Grammar) -> None:
        super().__init__(sql, grammar.verb(sql), grammar)
        self.hides_placeholder: bool = grammar.hides_placeholder(sql)


@dataclass(frozen=True, slots=True, eq=False, repr=False)  # its repr would have the statement's value
class Source:
    """Where one bound value comes from: a parameter of the call, or the statement itself."""

    name: str  # in the compiled text
    key: str  # of the caller's parameters
    own: Any  # Any: SQLAlchemy's bound parameter, which has the statement's value
    position: int  # in the cache key; -1 when it is not there


class CompiledPlan(Plan):
    """
    A Core statement, compiled by SQLAlchemy.

    ``binds`` are the bound parameters of the statement's cache key, which line up by position with
    those of every other statement with an equal key; None when there is no cache key.
    """

    __slots__ = (
        "_binds",
        "_dialect",
        "_known",
        "_order",
        "_processors",
        "_sources",
        "compiled",
        "defaults",
        "direct",
        "expanding",
        "from_table",
        "given_id",
        "id_position",
        "numbered",
        "upsert",
    )

    def __init__(
        self, compiled: SQLCompiler, dialect: Dialect, binds: Sequence[Any] | None, grammar: Grammar
    ) -> None:
        kind = grammar.verb(compiled.string)

        if compiled.isinsert:
            kind = "insert"
        elif compiled.isupdate:
            kind = "update"
        elif compiled.isdelete:
            kind = "delete"

        self.id_position: int | None = None  # of the generated id in the rows of a RETURNING
        positions = _positions(compiled, binds)
        self.compiled = compiled  # what SQLAlchemy made of the statement
        self._dialect = dialect
        self._binds = binds
        self._sources = [
            Source(name, bind.key, bind, positions.get(bind, -1))
            for bind, name in compiled.bind_names.items()
        ]
        self._known = frozenset(name for source in self._sources for name in (source.key, source.name))
        self.expanding = bool(compiled.literal_execute_params or compiled.post_compile_params)
        self.defaults = bool(compiled.insert_prefetch or compiled.update_prefetch)
        table = getattr(compiled.statement, "table", None)
        numbering = getattr(table, "autoincrement_column", None)
        self.from_table = table is not None
        self.numbered = kind == "insert" and numbering is not None
        # What makes it one is a clause of its own in each dialect.
        self.upsert: bool = getattr(compiled.statement, "_post_values_clause", None) is not None
        processors = cast("Mapping[str, Any]", compiled._bind_processors)
        order = list(compiled.positiontup or ())
        by_name = {source.name: source for source in self._sources}
        self._order = order
        self._processors: Mapping[str, Any] = processors
        self.direct: list[tuple[Source, Processor | None]] | None = None
        # Where among the values an id is that the caller chooses: not every server reports that.
        key = getattr(numbering, "key", None)
        self.given_id: int | None = next(
            (n for n, name in enumerate(order) if name == key and name in by_name), None
        )

        if not self.expanding and not self.defaults and all(name in by_name for name in order):
            self.direct = [(by_name[name], processors.get(name)) for name in order]

        super().__init__(compiled.string, kind, grammar)

        if self.returning and self.from_table:
            columns = enumerate(compiled._result_columns)
            self.id_position = next(
                (n for n, column in columns if any(part is numbering for part in column[2])), None
            )
            self.hides_id = self.numbered and self.id_position is None

        # Its own RETURNING (for a server's defaults) SQLAlchemy keeps for itself, unless the statement's
        # return_defaults() named columns beside them.
        added = bool(getattr(compiled, "implicit_returning", None))
        self.silent = added and not getattr(compiled.statement, "_supplemental_returning", None)

        if self._dialect.paramstyle == "format" and not order and not self.expanding:
            self.sql %= ()  # the compiler has doubled each %

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse parameters that the statement does not have; they would be dropped without a word."""
        unknown = sorted(set(names) - self._known)

        if unknown:
            table = getattr(self.compiled.statement, "table", None)
            columns = table.c.keys() if self.kind in {"insert", "update"} and table is not None else ()
            own = {key for key in self._known if not key.startswith("%(")}
            known = ", ".join(sorted(own.union(columns))) or "none"
            shown = ", ".join(map(repr, unknown))

            if set(unknown) <= set(columns):
                message = f"the statement sets no {shown}: each set of parameters needs the keys of the first"
            else:
                message = f"the statement has no parameter or column {shown}; it has: {known}"

            raise UsageError(message, sql=self.sql)

    def values(self, binds: Sequence[Any] | None, params: Mapping[str, Any] | None) -> Values | None:
        """Collect the values of one execution in the order of the placeholders; None when there are none."""
        direct = self.direct

        if params is not None and not self._known.issuperset(params):
            self.check_names(params)

        if not direct:
            return None

        result: Values = []

        for source, processor in direct:
            if params is not None and source.key in params:
                value = params[source.key]
            else:
                value = self._own_value(source, binds, params)

            result.append(value if processor is None else processor(value))

        return result

    def named(self, binds: Sequence[Any] | None, params: Mapping[str, Any] | None) -> dict[str, Any]:
        """Collect the values of one execution by name, before any processing."""
        given = params or {}
        self.check_names(given)
        return {
            source.name: given[source.key] if source.key in given else self._own_value(source, binds, params)
            for source in self._sources
        }

    def arrange(self, named: Mapping[str, Any]) -> tuple[str, Values | None]:
        """Process values that are given by name, and expand IN lists and the like."""
        processors = self._processors
        order: Sequence[str] = self._order
        sql = self.sql
        values = dict(named)

        if self.expanding:
            state = self.compiled._process_parameters_for_postcompile(values)
            sql = state.statement
            processors = {**processors, **state.processors}
            order = state.positiontup or ()

            if not order and self._dialect.paramstyle == "format":
                sql %= ()

        result = [processors[key](values[key]) if key in processors else values[key] for key in order]
        return sql, result or None

    def new_row_maker(self, description: Sequence[Sequence[Any]]) -> RowMaker:
        """Make a row maker, with the result processors of the statement's types."""
        compiled = self.compiled
        columns = compiled._result_columns
        ordered = compiled._ordered_columns or compiled._textual_ordered_columns
        names = [column[0] for column in description]

        if columns and ordered and len(columns) == len(description):
            types: list[Any] = [column[3] for column in columns]

            if not compiled._textual_ordered_columns:
                names = [column[0] for column in columns]
        else:
            by_name = {column[0]: column[3] for column in columns}
            types = [by_name.get(name) for name in names]

        processors = [
            None if kind is None else kind._cached_result_processor(self._dialect, column[1])
            for kind, column in zip(types, description, strict=True)
        ]
        return RowMaker(description, tuple(names), processors)

    def _own_value(
        self, source: Source, binds: Sequence[Any] | None, params: Mapping[str, Any] | None
    ) -> Any:
        if params is not None and source.name in params:
            return params[source.name]

        bind = source.own if binds is None or source.position < 0 else binds[source.position]

        if bind.required:
            message = f"the statement needs a value for the parameter {source.key!r}"
            raise UsageError(message, parameter=source.key)

        return bind.value if bind.callable is None else bind.effective_value


def refused(plan: Plan, what: str, remedy: str) -> UsageError:
    """Return the error of a change by a client, or in a block, that only reads."""
    kind = plan.kind.upper() or "the statement"
    message = f"this {what} only reads, and {kind} may change data: {remedy} without read_only"
    return UsageError(message, sql=plan.sql)


def _positions(compiled: SQLCompiler, binds: Sequence[Any] | None) -> dict[Any, int]:
    """Map each bound parameter of the compiled statement to its position in the cache key."""
    if binds is None:
        return {}

    clones = cast("Any", compiled)._cache_key_bind_match[0]
    return {clone: position for position, bind in enumerate(binds) for clone in clones[bind]}
