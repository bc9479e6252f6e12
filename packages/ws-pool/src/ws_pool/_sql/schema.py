"""Creating and dropping the tables of a metadata, with the types and indexes that belong to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.schema import CreateTable, DropTable, MetaData

from ws_pool._sql.compile.parameters import Statement
from ws_pool._sql.dialect import SqlDialect

Execute = Callable[[Statement], Awaitable[object]]


async def create_tables(execute: Execute, ours: SqlDialect, dialect: Dialect, metadata: MetaData) -> None:
    """Create what does not exist yet."""
    for table in metadata.sorted_tables:
        for type_statement in ours.type_statements(table, dialect, drop=False):
            await execute(type_statement)

        await execute(CreateTable(table, if_not_exists=True))

        for statement in ours.index_statements(table, dialect):
            await execute(statement)


async def drop_tables(execute: Execute, ours: SqlDialect, dialect: Dialect, metadata: MetaData) -> None:
    """Drop what exists; types go after the tables that use them."""
    for table in reversed(metadata.sorted_tables):
        await execute(DropTable(table, if_exists=True))

    for table in metadata.sorted_tables:
        for statement in ours.type_statements(table, dialect, drop=True):
            await execute(statement)
