"""A statement and its parameters, as the caller gave them, become text and values for the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy.sql.elements import ClauseElement

from ws_pool._sql.compile.compiler import Compiler, Prepared, hidden_placeholder, plan_for
from ws_pool._sql.compile.plan import CompiledPlan, Plan, TextPlan
from ws_pool.errors import UsageError

Statement = ClauseElement | Prepared[Any] | str


def bind_parameters(
    compiler: Compiler, statement: Statement, args: Sequence[Any], params: Mapping[str, Any]
) -> tuple[Plan, Any, Any]:
    """
    Return the plan of a statement, its text and its values for the driver.

    The text is None when defaults have to be filled in first, which may need the server; the
    values are then those known so far, by name. ``args`` is one mapping, or a string's values.
    """
    named: Mapping[str, Any] | None = params or None

    if args:
        if len(args) == 1 and isinstance(args[0], Mapping):
            named = {**args[0], **params}
        elif isinstance(statement, str):
            return _positional(compiler, statement, args, params)
        else:
            message = f"parameters of a Core statement are given by name, not as {type(args[0]).__name__}"
            raise UsageError(message)

    if isinstance(statement, Prepared):
        plan = plan_for(statement, compiler, named)
        binds = statement.binds

        if statement.own:
            named = {**statement.own, **(named or {})}
    else:
        plan, binds, named = compiler.plan(statement, named)

    if not isinstance(plan, CompiledPlan):
        return plan, plan.sql, None

    if plan.direct is not None:
        return plan, plan.sql, plan.values(binds, named)

    by_name = plan.named(binds, named)
    return (plan, None, by_name) if plan.defaults else (plan, *plan.arrange(by_name))


def _positional(
    compiler: Compiler, sql: str, args: Sequence[Any], params: Mapping[str, Any]
) -> tuple[Plan, Any, Any]:
    if params:
        message = "give a string's values by position or by name, not both"
        raise UsageError(message)

    plan, _, _ = compiler.plan(sql, None)

    if cast("TextPlan", plan).hides_placeholder:
        raise hidden_placeholder(sql)

    values = args[0] if len(args) == 1 and isinstance(args[0], list | tuple) else args
    return plan, plan.sql, tuple(values)
