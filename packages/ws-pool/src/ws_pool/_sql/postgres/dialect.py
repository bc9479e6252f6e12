"""PostgreSQL: how transactions begin, and the SQLSTATEs that decide something."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.dialects.postgresql.named_types import CreateEnumType, DropEnumType
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.schema import Table

from ws_pool._sql.dialect import SqlDialect
from ws_pool._sql.postgres import statement_text
from ws_pool._sql.postgres.errors import map_error
from ws_pool.errors import QueryError, TransactionConflict, WsError

_DUPLICATE_COLUMN = "42701"
_AMBIGUOUS_COLUMN = "42702"
# A wrong user, password, database or address; pg_hba.conf has no line for us.
_REFUSED = frozenset({"28000", "28P01", "3D000", "42501"})


class PostgresDialect(SqlDialect):
    """The dialect of PostgreSQL."""

    grammar = statement_text
    text_returns_ids = True
    read_only_session = "SET default_transaction_read_only = on"

    def begin(self, isolation: str | None, *, read_only: bool) -> Sequence[str]:
        """Begin with the isolation: SET TRANSACTION outside of a transaction does nothing here."""
        level = "" if isolation is None else f" ISOLATION LEVEL {isolation}"
        return [f"BEGIN{level}{' READ ONLY' if read_only else ''}"]

    def use_tenant(self, name: str, *, local: bool) -> str:
        """Return the search path of one schema."""
        quoted = name.replace('"', '""')
        return f'SET {"LOCAL " if local else ""}search_path TO "{quoted}"'

    def map_error(self, error: Exception, sql: str) -> WsError:
        """Map an error of asyncpg."""
        return map_error(error, sql)

    def ends_transaction(self, error: QueryError) -> bool:
        """Return True for conflicts: after any error only a rollback is possible, to a savepoint at least."""
        return isinstance(error, TransactionConflict)

    def is_refusal(self, error: BaseException) -> bool:
        """Recognise a wrong user, password or database."""
        return getattr(error, "sqlstate", None) in _REFUSED

    def is_duplicate_column(self, error: QueryError) -> bool:
        """Return False: a query with two columns of one name can stand inside another one here."""
        return error.context.get("sqlstate") in {_DUPLICATE_COLUMN, _AMBIGUOUS_COLUMN}

    def type_statements(self, table: Table, dialect: Dialect, *, drop: bool) -> Sequence[str]:
        """Return the statements for the enumerations of a table; one that exists, or is used, stays."""
        make = DropEnumType if drop else CreateEnumType
        condition = "dependent_objects_still_exist OR undefined_object" if drop else "duplicate_object"
        # CREATE TYPE has no IF NOT EXISTS, and another table may use a type that this one is done with.
        kinds = [column.type.dialect_impl(dialect) for column in table.columns]
        return [
            f"DO $do$ BEGIN {make(kind).compile(dialect=dialect)}; "
            f"EXCEPTION WHEN {condition} THEN NULL; END $do$"
            for kind in kinds
            if isinstance(kind, ENUM) and kind.name
        ]
