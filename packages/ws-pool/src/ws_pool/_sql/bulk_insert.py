"""Inserting many rows: one statement with many groups of values where the driver can write that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

from ws_pool._sql.compile.compiler import Compiler
from ws_pool._sql.compile.defaults import fill_in
from ws_pool._sql.compile.plan import CompiledPlan, Plan
from ws_pool._sql.connection import SqlConnection
from ws_pool.errors import UnsupportedStatement, UsageError


class BulkHost(Protocol):
    """What a bulk insert needs of the `Session` that it runs on."""

    connection: SqlConnection

    async def scalar(self, plan: Plan, values: Sequence[Any]) -> Any: ...
    async def run_many(self, plan: Plan, values: Sequence[Sequence[Any]]) -> int: ...
    async def run_literal(self, plan: Plan, sql: str) -> int: ...


async def insert_in_batches(
    host: BulkHost,
    compiler: Compiler,
    bound: tuple[Plan, Sequence[Any] | None],
    rows: Sequence[Mapping[str, Any]],
    batch: int,
) -> int:
    """Insert rows inside an open transaction, at most ``batch`` per statement; return how many."""
    plan, binds = bound

    if not isinstance(plan, CompiledPlan) or plan.kind != "insert" or plan.expanding:
        message = "insert_many() takes a table or an INSERT of single rows"
        raise UnsupportedStatement(message)

    keys = rows[0].keys()

    # One statement is compiled for all rows, from the keys of the first: a key that a later row has
    # beside them would be lost, and one that it lacks would be NULL.
    for number, row in enumerate(rows):
        if row.keys() != keys:
            differ = ", ".join(map(repr, sorted(keys ^ row.keys())))
            message = f"insert_many(): row {number} has other keys than the first: {differ}"
            raise UsageError(message)

    if plan.defaults:
        named = [plan.named(binds, row) for row in rows]
        await fill_in(plan, compiler, named, host.scalar)
        values: list[Sequence[Any]] = [plan.arrange(row)[1] or [] for row in named]
    else:
        values = _values(plan, binds, rows)

    statements = host.connection.batches(plan.sql, values, batch, compiler.packet_limit)

    if statements is None:
        return await host.run_many(plan, values)

    total = 0

    for sql in statements:
        total += await host.run_literal(plan, sql)

    return total


def _values(
    plan: CompiledPlan, binds: Sequence[Any] | None, rows: Sequence[Mapping[str, Any]]
) -> list[Sequence[Any]]:
    """Collect the values of all rows; without processors that is one lookup per row."""
    direct = plan.direct or []
    names = [source.key for source, processor in direct if processor is None and source.key in rows[0]]

    if len(names) == len(direct) > 1:
        return list(map(itemgetter(*names), rows))

    return [plan.values(binds, row) or [] for row in rows]
