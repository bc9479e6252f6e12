"""Statements to plans, each compiled once: a bounded cache keyed by SQLAlchemy's own statement keys.

The cache key of a Core statement is what SQLAlchemy's engine caches by as well: two statements with
equal keys differ in bound values only. Where a version of SQLAlchemy or a custom construct has no
such key, the statement is compiled for each execution through the public ``compile()``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from heapq import nsmallest
from itertools import count
from typing import Any, Generic, cast

from sqlalchemy import literal, select
from sqlalchemy import text as text_clause
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import ArgumentError, CompileError, StatementError
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.functions import FunctionElement
from typing_extensions import TypeVar  # SQLAlchemy needs it too; with Python 3.13 it is in typing

from ws_pool._sql.compile.plan import CompiledPlan, Plan, TextPlan
from ws_pool._sql.connection import remember
from ws_pool._sql.dialect import Grammar
from ws_pool.errors import UnsupportedStatement, UsageError

T = TypeVar("T", default=Any)  # the columns of a query, as a tuple
Statement = ClauseElement | str
_MOST_MAPS = 256  # of schemas, whose compilers are kept
_PYFORMAT = re.compile(r"%\((\w+)\)s")


class Prepared(Generic[T]):
    """
    A statement that is compiled once and then only run; made by ``pool.prepare``.

    It skips all that depends on the statement alone: building it, its cache key, finding its plan.
    It may be made before the pool is started, and kept for good.
    """

    __slots__ = ("_by_columns", "_compiler", "binds", "own", "plan", "statement")

    def __init__(self, statement: ClauseElement) -> None:
        self.statement: ClauseElement = statement
        self.plan: Plan | None = None
        self.binds: Sequence[Any] | None = None
        self.own: Mapping[str, Any] = {}  # values that the statement's own params() gave
        self._compiler: Compiler | None = None
        self._by_columns: dict[tuple[str, ...], Plan] | None = (
            {} if isinstance(statement, UpdateBase) else None
        )

    def __repr__(self) -> str:
        return f"<Prepared {str(self.statement) if self.plan is None else self.plan.sql!r}>"


def plan_for(handle: Prepared[Any], compiler: Compiler, params: Mapping[str, Any] | None) -> Plan:
    """
    Return the plan of a prepared statement; it is made at the first call.

    The names of the parameters count for an INSERT or UPDATE without values: each set of columns
    has a plan of its own.
    """
    if compiler is not handle._compiler:
        handle._compiler, handle.plan = compiler, None

        if handle._by_columns:
            handle._by_columns = {}

    if handle._by_columns is None:
        if handle.plan is None:
            handle.plan, handle.binds, own = compiler.plan(handle.statement, None)
            handle.own = own or {}

        return handle.plan

    columns = () if params is None else tuple(params)
    plan = handle._by_columns.get(columns)

    if plan is None:
        plan, handle.binds, _ = compiler.plan(handle.statement, params)
        handle.plan = handle._by_columns[columns] = plan

    return plan


def hidden_placeholder(sql: str) -> UnsupportedStatement:
    """Return the error of a placeholder that stands inside a string or a comment."""
    message = (
        "a placeholder stands inside a string or a comment, where its value would become SQL: take it out of "
        "the quotes; the text itself is \\:name with parameters by name, and %%s with those by position"
    )
    return UnsupportedStatement(message, sql=sql)


class Compiler:
    """
    Compiles statements for one server, and remembers the plans.

    The dialect has been initialised by a connection; ``size`` plans are kept, and the one not used
    for longest goes first. ``packet_limit`` is the longest statement in bytes that the server takes.
    """

    def __init__(
        self, dialect: Dialect, grammar: Grammar, size: int = 500, *, packet_limit: int = 1 << 20
    ) -> None:
        self.dialect = dialect
        self.grammar = grammar
        self.packet_limit = packet_limit
        self.cached: bool = _can_cache(dialect)
        self._size = size
        self._plans: dict[object, Plan] = {}  # shared with all compilers of `translated`
        self._clock = count()  # shared too: a plan's last use is its next number
        self._schemas: Mapping[str | None, str | None] = {}
        self._schema_key: tuple[object, ...] = ()
        self._translated: dict[object, Compiler] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def translated(self, schemas: Mapping[str | None, str | None]) -> Compiler:
        """Return a compiler that puts other schemas in the place of those of tables; it shares the plans."""
        if not schemas:
            return self

        given: Any = schemas  # Any: whatever the caller gave; the annotation binds nobody

        if not isinstance(given, Mapping) or not all(
            name is None or isinstance(name, str) for pair in given.items() for name in pair
        ):
            message = f"schema_translate_map is a mapping of names of schemas or None, not {given!r:.200}"
            raise UsageError(message)

        key = tuple(sorted(schemas.items(), key=repr))
        found = self._translated.get(key)

        if found is None:
            found = remember(self._translated, key, copy(self), _MOST_MAPS)
            found._schemas, found._schema_key = dict(schemas), key

        return found

    def plan(
        self, statement: Statement, params: Mapping[str, Any] | None, *, many: bool = False
    ) -> tuple[Plan, Sequence[Any] | None, Mapping[str, Any] | None]:
        """
        Find or make the plan of a statement.

        Return it with the bound parameters of this very statement, and the parameters to use. The
        names of the parameters take part in the compilation of an INSERT or UPDATE without values;
        ``many`` is for one that will run once for each of many sets of parameters.
        """
        if isinstance(statement, str):
            return self._text(statement, params), None, params

        element: object = statement  # whatever the caller gave: the annotation binds nobody

        if not isinstance(element, ClauseElement):
            message = f"a statement is a string or a SQLAlchemy construct, not a {type(statement).__name__}"
            raise UsageError(message)

        if isinstance(statement, ExecutableDDLElement):
            return self._ddl(statement), None, None

        if isinstance(statement, FunctionElement):  # func.now() alone is not a statement of its own
            statement = statement.select()

        if getattr(statement, "_execution_options", None):
            schemas = cast("Any", statement)._execution_options.get("schema_translate_map")

            if schemas and schemas != self._schemas:
                own = statement.execution_options(schema_translate_map=None)  # type: ignore[attr-defined]  # as it has some
                return self.translated(schemas).plan(own, params, many=many)

        cache_key = statement._generate_cache_key() if self.cached else None
        columns = () if params is None else tuple(sorted(params))

        if cache_key is None:
            return self._compile(statement, None, columns, many=many), None, params

        collected = getattr(cache_key, "params", None)

        if collected:
            params = {**collected, **(params or {})}

        key = (cache_key.key, columns, many, self._schema_key)
        plan = self._plans.get(key)

        if plan is None:
            plan = self._keep(key, self._compile(statement, cache_key, columns, many=many))

        # A deep key is slow to hash, and once must do: so the plans know when they were used, and the dict
        # is not reordered.
        plan.used_at = next(self._clock)
        return plan, cache_key.bindparams, params

    def _compile(
        self, statement: ClauseElement, cache_key: Any, columns: tuple[str, ...], *, many: bool
    ) -> Plan:
        try:
            if cache_key is None:
                compiled = statement.compile(
                    dialect=self.dialect, column_keys=list(columns), **self._schema_options()
                )
            else:
                compiled = statement._compiler(
                    self.dialect,
                    cache_key=cache_key,
                    column_keys=list(columns),
                    for_executemany=many,
                    **self._schema_options(),
                )
        except (CompileError, ArgumentError, StatementError) as error:
            message = f"the statement cannot be compiled: {error}"
            raise UnsupportedStatement(message) from error

        if not isinstance(compiled, SQLCompiler):
            message = (
                f"a {type(statement).__name__} cannot be run by this client; engine() runs all of SQLAlchemy"
            )
            raise UnsupportedStatement(message)

        binds = None if cache_key is None else cache_key.bindparams
        plan = self._plan_of(compiled, binds)

        if many and not plan.expanding:
            plan.check_names(columns)

        return plan

    def _text(self, sql: str, params: Mapping[str, Any] | None) -> Plan:
        """Plan a string: without names as it is, otherwise with ``:name`` or ``%(name)s`` parameters."""
        key = (sql, params is not None)
        plan = self._plans.get(key)

        if plan is None and params is None:
            plan = self._keep(key, TextPlan(sql, self.grammar))
        elif plan is None:
            element = text_clause(_PYFORMAT.sub(r":\1", sql))
            plan = self._keep(key, self._plan_of(element.compile(dialect=self.dialect), None))

        plan.used_at = next(self._clock)
        return plan

    def _plan_of(self, compiled: SQLCompiler, binds: Sequence[Any] | None) -> CompiledPlan:
        if self.grammar.hides_placeholder(compiled.string):
            raise hidden_placeholder(compiled.string)

        return CompiledPlan(compiled, self.dialect, binds, self.grammar)

    def _ddl(self, statement: ExecutableDDLElement) -> Plan:
        sql = str(statement.compile(dialect=self.dialect, **self._schema_options()))
        return TextPlan(sql % () if self.dialect.paramstyle == "format" else sql, self.grammar)

    def _schema_options(self) -> dict[str, Any]:
        if not self._schemas:
            return {}

        return {"schema_translate_map": self._schemas, "render_schema_translate": True}

    def _keep(self, key: object, plan: Plan) -> Plan:
        """Keep a plan that was made."""
        plans = self._plans
        plans[key] = plan
        plan.used_at = next(self._clock)

        if len(plans) > self._size:
            # A tenth at once: finding the oldest means looking at all of them.
            for old in nsmallest(self._size // 10 + 1, plans, key=lambda known: plans[known].used_at):
                del plans[old]

        return plan


def _can_cache(dialect: Dialect) -> bool:
    """
    Whether this version of SQLAlchemy has what caching of plans is built on.

    It is what SQLAlchemy's own engine uses, and not public. Without it each statement is compiled
    for each execution, through the public ``compile()``.
    """
    statement: Any = select(literal(1))  # Any: what is looked for is not public

    try:
        key = statement._generate_cache_key()
        make = statement._compiler
        compiled = make(dialect, cache_key=key, column_keys=[], for_executemany=False)
        clones = compiled._cache_key_bind_match[0]
        return all(bind in clones for bind in key.bindparams)
    except (AttributeError, TypeError, KeyError, IndexError):
        return False


class CompilerSource:
    """A pool's compiler, made when the server is first reached: its version and modes decide the dialect."""

    __slots__ = ("_lock", "_make", "compiler")

    def __init__(self, make: Callable[[], Awaitable[Compiler]]) -> None:
        self.compiler: Compiler | None = None
        self._make = make
        self._lock = asyncio.Lock()

    async def learn(self) -> Compiler:
        """Return the compiler; of several tasks that need it at once, one makes it."""
        async with self._lock:
            if self.compiler is None:
                self.compiler = await self._make()

        return self.compiler
