"""Python-side and SQL-side defaults of columns, evaluated as SQLAlchemy's execution context does.

The context class of the dialect is used itself, without a connection: what it would run on the
server, for a default that is an SQL expression of a primary key, is asked for instead, run by the
client, and handed back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy.engine.interfaces import Dialect

from ws_pool._sql.compile.compiler import Compiler
from ws_pool._sql.compile.plan import CompiledPlan, TextPlan
from ws_pool.errors import UnsupportedStatement

Scalar = Callable[
    [TextPlan, Sequence[Any]], Awaitable[Any]
]  # Any: the context is SQLAlchemy's own, and private

Ask = Callable[[str, Sequence[Any]], Awaitable[Any]]  # as above


class _Needed(Exception):
    def __init__(self, sql: str, values: Sequence[Any]) -> None:
        super().__init__(sql)
        self.sql = sql
        self.values = values


async def fill_in(plan: CompiledPlan, compiler: Compiler, rows: list[dict[str, Any]], scalar: Scalar) -> None:
    """Fill the defaults of an INSERT or UPDATE into ``rows``, the parameters of each execution by name."""
    compiled = plan.compiled
    context = _context(compiler.dialect, compiled, rows)
    inserting = bool(compiled.insert_prefetch)

    async def ask(sql: str, values: Sequence[Any]) -> Any:
        return await scalar(TextPlan(sql, compiler.grammar), values)

    for column in compiled.insert_prefetch if inserting else compiled.update_prefetch:
        default = column.default if inserting else column.onupdate

        if default is None or not (default.is_clause_element or default.is_sequence):
            continue

        for row in rows:
            name = compiled._within_exec_param_key_getter(column)
            row[name] = await _evaluate(context, column, inserting=inserting, ask=ask)
            context.answers.clear()
            context.fixed[id(row), name] = row[name]

    context._process_execute_defaults()


async def _evaluate(context: Any, column: Any, *, inserting: bool, ask: Ask) -> Any:
    while True:
        try:
            return context.get_insert_default(column) if inserting else context.get_update_default(column)
        except _Needed as needed:
            context.answers[needed.sql] = await ask(needed.sql, needed.values)


def _context(dialect: Dialect, compiled: Any, rows: list[dict[str, Any]]) -> Any:
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
