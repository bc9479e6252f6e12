"""Inserting many rows: one statement with many groups of values where the server takes that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ws_pool._sql.compile.compiler import Prepared
from ws_pool._sql.compile.defaults import fill_in
from ws_pool._sql.compile.plan import CompiledPlan
from ws_pool._sql.mysql.connector import MysqlConnection
from ws_pool.errors import UnsupportedStatement, UsageError

if TYPE_CHECKING:
    from ws_pool._sql.client import SqlClient, Statement

__all__ = ("insert_in_batches", "split_values")

_PACKET = 1_000_000  # bytes per statement at most: longer ones are no faster
_RESERVE = 64  # bytes of a packet that are not the statement's
_QUOTES = "'\"`"


async def insert_in_batches(
    client: SqlClient, statement: Statement, rows: Sequence[Mapping[str, Any]], batch: int
) -> int:
    """
    Insert rows, inside an open transaction.

    Args:
        client: Its connection is used.
        statement: An INSERT.
        rows: The rows, all with the same keys.
        batch: Most rows per statement.

    Returns:
        How many rows were inserted.
    """
    element = statement.statement if isinstance(statement, Prepared) else statement
    plan, binds, _ = client._compiler.plan(element, rows[0], many=True)

    if not isinstance(plan, CompiledPlan) or plan.kind != "insert" or plan.expanding:
        message = "insert_many() takes a table or an INSERT of single rows"
        raise UnsupportedStatement(message)

    keys = rows[0].keys()

    for number, row in enumerate(rows):
        if row.keys() != keys:
            differ = ", ".join(map(repr, sorted(keys ^ row.keys())))
            message = f"insert_many(): row {number} has other keys than the first: {differ}"
            raise UsageError(message)

    if plan.defaults:
        named = [plan.named(binds, row) for row in rows]
        await fill_in(plan, client._compiler.dialect, named, client._scalar)
        values: list[Sequence[Any]] = [plan.arrange(row)[1] or [] for row in named]
    else:
        values = _values(plan, binds, rows)

    split = split_values(plan.sql)

    if split is None or not isinstance(client.connection, MysqlConnection):
        return await client._run_rows(plan, plan.sql, values)

    return await _insert_groups(client, client.connection, split, values, batch)


def _values(
    plan: CompiledPlan, binds: Sequence[Any] | None, rows: Sequence[Mapping[str, Any]]
) -> list[Sequence[Any]]:
    """Collect the values of all rows; without processors that is one lookup per row."""
    direct = plan.direct or []
    names = [source.key for source, processor in direct if processor is None and source.key in rows[0]]

    if len(names) == len(direct) > 1:
        return list(map(itemgetter(*names), rows))

    return [plan.values(binds, row) or [] for row in rows]


async def _insert_groups(
    client: SqlClient,
    connection: MysqlConnection,
    split: tuple[str, str, str],
    values: Sequence[Sequence[Any]],
    batch: int,
) -> int:
    head, group, tail = split
    literal = connection.literal
    end = tail % () if "%" in tail else tail
    start = head % () if "%" in head else head
    shown = "".join(split)
    most = min(_PACKET, client._pool._packet_limit - _RESERVE)
    most -= len(start.encode()) + len(end.encode())
    groups: list[str] = []
    size = total = 0

    for row in values:
        written = group % tuple([literal(value) for value in row])
        length = len(written) if written.isascii() else len(written.encode())

        if groups and (len(groups) >= batch or size + length > most):
            total += await client._insert_written(f"{start}{','.join(groups)}{end}", shown)
            groups, size = [], 0

        groups.append(written)
        size += length + 1

    return total + await client._insert_written(f"{start}{','.join(groups)}{end}", shown)


def split_values(sql: str) -> tuple[str, str, str] | None:
    """
    Split an INSERT of one row into what is before, in and behind its group of values.

    Args:
        sql: The statement with placeholders.

    Returns:
        The three parts, or None when it has no such group, or placeholders outside of it.

    Example:
        >>> split_values("INSERT INTO t (a) VALUES (%s) ON DUPLICATE KEY UPDATE a = 1")
        ('INSERT INTO t (a) VALUES ', '(%s)', ' ON DUPLICATE KEY UPDATE a = 1')
    """
    start = sql.find(" VALUES (")

    if start < 0:
        return None

    start += len(" VALUES ")
    depth = 0
    quote = ""

    for position in range(start, len(sql)):
        char = sql[position]

        if quote:
            quote = "" if char == quote else quote
        elif char in _QUOTES:
            quote = char
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1

            if not depth:
                head, group, tail = sql[:start], sql[start : position + 1], sql[position + 1 :]
                return (
                    None
                    if "%s" in head.replace("%%", "") or "%s" in tail.replace("%%", "")
                    else (head, group, tail)
                )

    return None
