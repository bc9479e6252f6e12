"""MySQL and MariaDB: how transactions begin, and the error numbers that decide something."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.schema import ExecutableDDLElement, Table

from ws_pool._sql.dialect import SqlDialect
from ws_pool._sql.mysql import statement_text
from ws_pool._sql.mysql.errors import map_error
from ws_pool.errors import ConfigError, QueryError, WsError

_DEADLOCK = 1213
_DUPLICATE_COLUMN = 1060
_REFUSED = frozenset({1044, 1045, 1049, 1698})  # a wrong user, password or database


class MysqlDialect(SqlDialect):
    """The dialect of MySQL and MariaDB."""

    grammar = statement_text
    read_only_session = "SET SESSION TRANSACTION READ ONLY"

    def begin(self, isolation: str | None, *, read_only: bool) -> Sequence[str]:
        """Set the isolation for the next transaction only, and begin it."""
        begin = "START TRANSACTION READ ONLY" if read_only else "BEGIN"
        return [begin] if isolation is None else [f"SET TRANSACTION ISOLATION LEVEL {isolation}", begin]

    def use_tenant(self, name: str, *, local: bool) -> str:
        """Return USE, which is for the session in any case."""
        return f"USE `{name.replace('`', '``')}`"

    def map_error(self, error: Exception, sql: str) -> WsError:
        """Map an error of aiomysql or asyncmy."""
        return map_error(error, sql)

    def ends_transaction(self, error: QueryError) -> bool:
        """Return True for a deadlock; a lock timeout ends the statement alone."""
        return error.errno == _DEADLOCK

    def is_refusal(self, error: BaseException) -> bool:
        """Recognise a wrong user, password or database, and a login that needs another library."""
        return isinstance(error, ConfigError) or (bool(error.args) and error.args[0] in _REFUSED)

    def is_duplicate_column(self, error: QueryError) -> bool:
        """Recognise "Duplicate column name"."""
        return error.errno == _DUPLICATE_COLUMN

    def index_statements(self, table: Table, dialect: Dialect) -> Sequence[ExecutableDDLElement]:
        """Return none on MySQL, which has no CREATE INDEX IF NOT EXISTS: there they are not created."""
        return super().index_statements(table, dialect) if getattr(dialect, "is_mariadb", False) else []
