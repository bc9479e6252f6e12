"""Statements to plans, each compiled once: a bounded cache keyed by SQLAlchemy's own statement keys.

The cache key of a Core statement is what SQLAlchemy's engine caches by as well: two statements with
equal keys differ in bound values only. Where a version of SQLAlchemy or a custom construct has no
such key, the statement is compiled for each execution through the public ``compile()``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from heapq import nsmallest
from typing import Any

from sqlalchemy import literal, select
from sqlalchemy import text as text_clause
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import ArgumentError, CompileError, StatementError
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ClauseElement

from ws_pool._sql.compile.plan import CompiledPlan, Plan, TextPlan
from ws_pool.errors import UnsupportedStatement, UsageError

__all__ = ("Compiler", "Prepared", "Statement")

Statement = ClauseElement | str
_PYFORMAT = re.compile(r"%\((\w+)\)s")


class Prepared:
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

    def _plan_for(self, compiler: Compiler, params: Mapping[str, Any] | None) -> Plan:
        """
        Give the plan; it is made at the first call.

        Args:
            compiler: Of the pool that runs the statement.
            params: The parameters; their names count for an INSERT or UPDATE without values.

        Returns:
            The plan.
        """
        if compiler is not self._compiler:
            self._compiler, self.plan = compiler, None

            if self._by_columns:
                self._by_columns = {}

        if self._by_columns is None:
            if self.plan is None:
                self.plan, self.binds, own = compiler.plan(self.statement, None)
                self.own = own or {}

            return self.plan

        columns = () if params is None else tuple(params)
        plan = self._by_columns.get(columns)

        if plan is None:
            plan, self.binds, _ = compiler.plan(self.statement, params)
            self.plan = self._by_columns[columns] = plan

        return plan


class Compiler:
    """
    Compiles statements for one dialect, and remembers the plans.

    Args:
        dialect: The dialect, initialised by a connection.
        size: Most plans to keep; the one not used for longest goes first.
    """

    def __init__(self, dialect: Dialect, size: int = 500) -> None:
        self.dialect = dialect
        self.hits: int = 0
        self.misses: int = 0
        self._size = size
        self._plans: dict[object, Plan] = {}
        self.cached: bool = _can_cache(dialect)

    def __len__(self) -> int:
        return len(self._plans)

    def plan(
        self, statement: Statement, params: Mapping[str, Any] | None, *, many: bool = False
    ) -> tuple[Plan, Sequence[Any] | None, Mapping[str, Any] | None]:
        """
        Find or make the plan of a statement.

        Args:
            statement: The statement.
            params: The parameters of this execution; their names take part in the compilation of
                an INSERT or UPDATE without values.
            many: Whether it will run once for each of many sets of parameters.

        Returns:
            The plan, the bound parameters of this very statement, and the parameters to use.

        Raises:
            UnsupportedStatement: It cannot be run by this client.
        """
        if isinstance(statement, str):
            return self._text(statement, params), None, params

        element: object = statement  # the annotation is a wish: other things arrive here, and are told so

        if not isinstance(element, ClauseElement):
            message = f"a statement is a string or a SQLAlchemy construct, not a {type(statement).__name__}"
            raise UsageError(message)

        if isinstance(statement, ExecutableDDLElement):
            return self._ddl(statement), None, None

        if getattr(statement, "_execution_options", None):
            self._check_options(statement)

        cache_key = statement._generate_cache_key() if self.cached else None  # noqa: SLF001 - see _can_cache
        columns = () if params is None else tuple(sorted(params))

        if cache_key is None:
            return self._compile(statement, None, columns, many=many), None, params

        collected = getattr(cache_key, "params", None)

        if collected:
            params = {**collected, **(params or {})}

        key = (cache_key.key, columns, many)
        plan = self._plans.get(key)

        if plan is None:
            self.misses += 1
            plan = self._compile(statement, cache_key, columns, many=many)
            self._remember(key, plan)
        else:
            self.hits += 1
            plan.used_at = (
                self.hits
            )  # a deep key is slow to hash: once must do, so the order is kept in the plans

        return plan, cache_key.bindparams, params

    def _compile(
        self, statement: ClauseElement, cache_key: Any, columns: tuple[str, ...], *, many: bool
    ) -> Plan:
        try:
            if cache_key is None:
                compiled = statement.compile(dialect=self.dialect, column_keys=list(columns))
            else:
                compiled = statement._compiler(  # noqa: SLF001 - see _can_cache
                    self.dialect, cache_key=cache_key, column_keys=list(columns), for_executemany=many
                )
        except (CompileError, ArgumentError, StatementError) as error:
            message = f"the statement cannot be compiled: {error}"
            raise UnsupportedStatement(message) from error

        if not isinstance(compiled, SQLCompiler):
            message = (
                f"a {type(statement).__name__} cannot be run by this client; engine() runs all of SQLAlchemy"
            )
            raise UnsupportedStatement(message)

        plan = CompiledPlan(compiled, self.dialect, None if cache_key is None else cache_key.bindparams)

        if many and not plan.expanding:
            plan.check_names(columns)

        return plan

    def _text(self, sql: str, params: Mapping[str, Any] | None) -> Plan:
        """Plan a string: without names as it is, otherwise with ``:name`` or ``%(name)s`` parameters."""
        named = params is not None
        key = (sql, named)
        plan = self._plans.get(key)

        if plan is None:
            self.misses += 1

            if named:
                element = text_clause(_PYFORMAT.sub(r":\1", sql))
                compiled = element.compile(dialect=self.dialect)
                plan = CompiledPlan(compiled, self.dialect, None)
            else:
                plan = TextPlan(sql)

            self._remember(key, plan)
        else:
            self.hits += 1
            plan.used_at = self.hits

        return plan

    def _ddl(self, statement: ExecutableDDLElement) -> Plan:
        sql = str(statement.compile(dialect=self.dialect))
        return TextPlan(sql % () if self.dialect.paramstyle == "format" else sql)

    def _check_options(self, statement: Any) -> None:
        options = statement._execution_options  # noqa: SLF001 - the option changes what is compiled

        if options.get("schema_translate_map"):
            message = "schema_translate_map is not supported by this client; engine() runs all of SQLAlchemy"
            raise UnsupportedStatement(message)

    def _remember(self, key: object, plan: Plan) -> None:
        plan.used_at = self.hits
        self._plans[key] = plan

        if len(self._plans) > self._size:
            # a tenth at once: to find the oldest means to look at all of them
            for old in nsmallest(
                self._size // 10 + 1, self._plans, key=lambda known: self._plans[known].used_at
            ):
                del self._plans[old]


def _can_cache(dialect: Dialect) -> bool:
    """
    Tell whether this version of SQLAlchemy has what caching of plans is built on.

    It is what SQLAlchemy's own engine uses, and not public. Without it each statement is compiled
    for each execution, through the public ``compile()``.

    Args:
        dialect: Any dialect.
    """
    statement: Any = select(literal(1))  # Any: what is looked for is not public

    try:
        key = statement._generate_cache_key()  # noqa: SLF001 - what is looked for
        make = statement._compiler  # noqa: SLF001 - as above
        compiled = make(dialect, cache_key=key, column_keys=[], for_executemany=False)
        clones = compiled._cache_key_bind_match[0]  # noqa: SLF001 - as above
        return all(bind in clones for bind in key.bindparams)
    except (AttributeError, TypeError, KeyError, IndexError):
        return False
