"""One statement for many sets of parameters: all of them, or none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ws_pool._sql.compile.compiler import Compiler, Prepared
from ws_pool._sql.compile.defaults import fill_in
from ws_pool._sql.compile.parameters import Statement
from ws_pool._sql.compile.plan import CompiledPlan, Plan, refused
from ws_pool._sql.connection import SqlConnection
from ws_pool._sql.results import Result, make_rows
from ws_pool._sql.transaction import Transaction, TransactionHost
from ws_pool.errors import UnsupportedStatement, UsageError

T = TypeVar("T")
Bound = tuple[Plan, Sequence[Any] | None]  # Any: SQLAlchemy's bound parameters


class ManyHost(TransactionHost, Protocol):
    """What a statement for many sets of parameters needs of the `Session` that it runs on."""

    by_text: bool

    def check(self, plan: Plan) -> None: ...
    async def run(
        self, plan: Plan | None, shown: str, work: Callable[[SqlConnection], Awaitable[T]]
    ) -> T: ...
    async def run_many(self, plan: Plan, values: Sequence[Sequence[Any]]) -> int: ...
    async def scalar(self, plan: Plan, values: Sequence[Any]) -> Any: ...


def as_mappings(rows: Iterable[Mapping[str, Any]], verb: str) -> list[Mapping[str, Any]]:
    """Return sets of parameters as a list; what is not made of mappings is refused."""
    given: Any = rows  # Any: whatever the caller gave; the annotation binds nobody

    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        message = f"{verb}() takes an iterable of mappings, not a {type(given).__name__}"
        raise UsageError(message)

    listed: list[Any] = list(rows)  # Any: as above

    for number, row in enumerate(listed):
        if type(row) is not dict and not isinstance(row, Mapping):
            message = f"{verb}(): row {number} is a {type(row).__name__}, and not a mapping such as a dict"
            raise UsageError(message)

    return listed


def check_positive(name: str, value: object) -> None:
    """Refuse what is not a number of rows."""
    if not isinstance(value, int) or value < 1:
        message = f"{name} is a number of rows from 1, not {value!r}"
        raise UsageError(message)


def bind_many(
    session: ManyHost,
    compiler: Compiler,
    statement: Statement,
    first: Mapping[str, Any],
    *,
    read_only: bool,
) -> Bound:
    """Return the plan of a statement that runs once per set of parameters, and its binds."""
    element = statement.statement if isinstance(statement, Prepared) else statement
    plan, binds, _ = compiler.plan(element, first, many=True)

    if plan.returning:  # it runs once per row, and SQLAlchemy's text for many may be made for many groups
        plan, binds, _ = compiler.plan(element, first)

    if read_only and not plan.reading:
        raise refused(plan, "client", "take one")

    session.check(plan)
    return plan, binds


async def run_each(
    session: ManyHost,
    compiler: Compiler,
    bound: Bound,
    rows: Sequence[Mapping[str, Any]],
    row_type: type | None,
) -> Result:
    """Run a statement once for each set of parameters, and return all rows that it returns."""
    plan, binds = bound

    if not isinstance(plan, CompiledPlan) or plan.expanding:
        message = "this statement cannot run once per set of parameters: run it in a loop"
        raise UnsupportedStatement(message)

    named = [plan.named(binds, row) for row in rows]

    if plan.defaults:
        await fill_in(plan, compiler, named, session.scalar)

    values = [plan.arrange(row)[1] or () for row in named]

    # The drivers' ways of many executions keep no rows, and an INSERT of many groups promises no order.
    if plan.returning:
        return await run_whole(session, lambda: _run_in_turn(session, plan, values, row_type))

    return Result([], await run_whole(session, lambda: session.run_many(plan, values)), 0)


async def run_whole(session: ManyHost, work: Callable[[], Awaitable[T]]) -> T:
    """Run several statements in the open transaction, or in one of their own."""
    # The turn comes first: the transaction that is open now may be another task's, ending soon.
    async with session.turn():
        if session.depth or (session.by_text and session.connection.in_transaction):
            return await work()

        async with Transaction(session, isolation=None, read_only=False, savepoint=True):
            return await work()


async def _run_in_turn(
    session: ManyHost, plan: Plan, values: Sequence[Sequence[Any]], row_type: type | None
) -> Result:
    """Run a statement once per row of values, and return all rows that it returns."""
    rows: list[Any] = []
    count = 0

    for one in values:
        reply = await session.run(plan, plan.sql, lambda to, one=one: to.run(plan.sql, one))  # type: ignore[misc]
        rows += make_rows(plan, reply, row_type)
        count += reply.rowcount

    return Result(rows, count, 0)
