"""What a statement returned: its rows, its counts and its id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from ws_pool._sql.compile.plan import CompiledPlan, Plan
from ws_pool._sql.connection import Reply, SqlConnection

T = TypeVar("T")

LARGE = 1_000  # rows from which a query's result is read in blocks when it runs next
BLOCK = 1_000  # rows in a block


@dataclass(frozen=True, slots=True)
class Result:
    """
    What `SqlClient.execute` returns.

    ``rows`` is empty for a statement that has none. ``rowcount`` counts the rows found, matched by
    an UPDATE, deleted or inserted. ``last_id`` is the value of the AUTO_INCREMENT or INTEGER PRIMARY
    KEY column of an insert, or 0.
    """

    rows: list[Any]
    rowcount: int
    last_id: int
    _more: tuple[Result, ...] = field(default=(), repr=False)

    def more_results(self) -> tuple[Result, ...]:
        """
        Return the results that came after this one, such as those of a CALL with several queries.

        A result without rows, such as the last one of every CALL, is not among them.
        """
        return self._more


async def gather(
    connection: SqlConnection, plan: Plan, sql: str, values: Sequence[Any] | None, row_type: type | None
) -> list[Any]:
    """Run a query, and make its rows while the server still sends others."""
    stream = cast("Any", connection.stream(sql, values, BLOCK))  # Any: a generator, which has aclose()
    rows: list[Any] = []

    async with aclosing(stream):
        async for reply in stream:
            rows += plan.row_maker(reply.description).many(reply.rows, row_type)

    return rows


class Runner(Protocol):
    """What a query needs of the `Session` that it runs in."""

    connection: SqlConnection

    async def run(self, plan: Any, shown: str, work: Callable[[SqlConnection], Awaitable[T]]) -> T: ...


def make_rows(plan: Plan, reply: Reply, row_type: type | None) -> list[Any]:
    """Make the rows of a reply, and note on the plan when there are many."""
    if not reply.rows or reply.description is None or plan.silent:
        return []

    if len(reply.rows) >= LARGE:
        plan.large = True

    return plan.row_maker(reply.description).many(reply.rows, row_type)


async def select_large(
    session: Runner,
    plan: Plan,
    sql: str,
    values: Sequence[Any] | None,
    row_type: type | None,
    *,
    prepared: bool,
) -> list[Any]:
    """Run a query that returned many rows the last time."""
    if row_type is tuple or not session.connection.gathers:
        reply = await session.run(
            plan, sql, lambda to: to.run_prepared(sql, values) if prepared else to.run(sql, values)
        )
        rows = make_rows(plan, reply, row_type)
    else:
        rows = await session.run(
            plan, sql, lambda connection: gather(connection, plan, sql, values, row_type)
        )

    plan.large = len(rows) >= LARGE
    return rows


def last_id(plan: Plan, reply: Reply, values: Sequence[Any] | None) -> int:
    """Return the generated key; SQLite would report that of any row, and of an earlier one if none came."""
    if reply.rowcount <= 0 or plan.kind not in {"insert", "replace"}:
        return 0

    if not isinstance(plan, CompiledPlan) or not plan.from_table:
        return reply.last_id

    if not plan.numbered:
        return 0

    # MariaDB sends no id beside the rows of a RETURNING; it is in them, be it for SQLAlchemy's own sake.
    if reply.rows and plan.id_position is not None:
        return int(reply.rows[0][plan.id_position])

    # MySQL reports no id that the caller chose, or a negative one as a number without a sign; 0 is its
    # word for the next one.
    if plan.given_id is not None and values and (not reply.last_id or not plan.upsert):
        given = values[plan.given_id]

        if isinstance(given, int) and given:
            return given

    return reply.last_id


def several(args: Sequence[Any]) -> Sequence[Mapping[str, Any]] | None:
    """Recognise a sequence of mappings."""
    if len(args) == 1 and isinstance(args[0], list | tuple) and args[0] and isinstance(args[0][0], Mapping):
        return args[0]

    return None
