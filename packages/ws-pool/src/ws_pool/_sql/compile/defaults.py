"""Python-side and SQL-side defaults of columns, evaluated as SQLAlchemy's execution context does.

The context class of the dialect is used itself, without a connection: what it would run on the
server, for a default that is an SQL expression of a primary key, is asked for instead, run by the
client, and handed back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy.engine.interfaces import Dialect

from ws_pool._sql.compile.compiler import Compiler
from ws_pool._sql.compile.plan import CompiledPlan, TextPlan
from ws_pool.errors import UnsupportedStatement

Scalar = Callable[[TextPlan, Sequence[Any]], Awaitable[Any]]  # Any: a value of any type


class _Needed(Exception):
    """A default is an SQL expression, whose value the server has to say."""

    def __init__(self, sql: str, values: Sequence[Any]) -> None:
        super().__init__(sql)
        self.sql = sql
        self.values = values


async def fill_in(plan: CompiledPlan, compiler: Compiler, rows: list[dict[str, Any]], scalar: Scalar) -> None:
    """Fill the defaults of an INSERT or UPDATE into ``rows``, the parameters of each execution by name."""
    compiled = plan.compiled
    context = _context(compiler.dialect, compiled, rows)
    inserting = bool(compiled.insert_prefetch)
    find = context.get_insert_default if inserting else context.get_update_default

    for column in compiled.insert_prefetch if inserting else compiled.update_prefetch:
        default = column.default if inserting else column.onupdate

        if default is None or not (default.is_clause_element or default.is_sequence):
            continue

        for row in rows:
            name = compiled._within_exec_param_key_getter(column)
            row[name] = await _evaluate(context, partial(find, column), compiler, scalar)
            context.answers.clear()
            context.fixed[id(row), name] = row[name]

    context._process_execute_defaults()


async def _evaluate(context: Any, find: Callable[[], Any], compiler: Compiler, scalar: Scalar) -> Any:
    """Return a default; what it needs of the server is asked for between two attempts."""
    while True:
        try:
            return find()
        except _Needed as needed:
            plan = TextPlan(needed.sql, compiler.grammar)
            context.answers[needed.sql] = await scalar(plan, needed.values)


def _context(dialect: Dialect, compiled: Any, rows: list[dict[str, Any]]) -> Any:  # Any: it is private
    base: Any = dialect.execution_ctx_cls

    class Context(base):  # type: ignore[misc] # its base is the dialect's own class
        """The dialect's context with the server replaced by questions to the client."""

        @property
        def connection(self) -> Any:
            message = "a default uses context.connection, which this client does not have: use engine()"
            raise UnsupportedStatement(message)

        def _execute_scalar(self, stmt: str, type_: Any, parameters: Any = None) -> Any:
            if schemas := getattr(compiled, "schema_translate_map", None):
                stmt = compiled.preparer._render_schema_translates(stmt, schemas)

            if stmt not in self.answers:
                raise _Needed(stmt, tuple(parameters or ()))

            process = None if type_ is None else type_._cached_result_processor(dialect, None)
            return self.answers[stmt] if process is None else process(self.answers[stmt])

        def _exec_default(self, column: Any, default: Any, type_: Any) -> Any:
            name = compiled._within_exec_param_key_getter(column)
            key = (id(getattr(self, "current_parameters", None)), name)
            return self.fixed[key] if key in self.fixed else super()._exec_default(column, default, type_)

    context = Context.__new__(Context)
    context.dialect = dialect
    context.compiled = compiled
    context.compiled_parameters = rows
    context.root_connection = None
    context.answers = {}
    context.fixed = {}
    return context
