"""What differs between databases, as one object that the parts which know none are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable, ExecutableDDLElement, MetaData, Table

from ws_pool.errors import QueryError, WsError


class Grammar(Protocol):
    """What the text of a statement shows of it; the module ``statement_text`` of a dialect."""

    def verb(self, sql: str) -> str:
        """Return the first word in lower case."""
        ...

    def leaves_clean(self, sql: str) -> bool:
        """Whether the statement surely leaves the session as it was."""
        ...

    def reads_only(self, sql: str) -> bool:
        """Whether the statement surely changes nothing."""
        ...

    def ends_transaction(self, sql: str) -> bool:
        """Whether the statement ends the open transaction, or begins another one."""
        ...

    def hides_placeholder(self, sql: str) -> bool:
        """Whether a value would be written where it is not one: into a string or a comment."""
        ...


class SqlDialect(ABC):
    """How a database begins transactions, and what its statements and error numbers mean."""

    grammar: Grammar

    ids_beside_rows: bool = False
    """Whether an INSERT that returns rows reports its generated id beside them."""

    text_returns_ids: bool = False
    """Whether the first column that an INSERT in text returns is its id: there is no other way to it."""

    read_only_session: str | None = None
    """What makes a whole session refuse changes, until its reset."""

    only_isolation: str | None = None
    """The isolation that every transaction has, when there is no other."""

    refuses_changes: bool = True
    """Whether the server refuses changes in a transaction that was begun as reading only."""

    @abstractmethod
    def begin(self, isolation: str | None, *, read_only: bool) -> Sequence[str]:
        """Return the statements that open a transaction; an unknown isolation is a `UsageError`."""

    def use_tenant(self, name: str, *, local: bool) -> str:
        """Return the statement that puts a session, or only its transaction, into a database or schema."""
        raise NotImplementedError  # of SQLite, whose pools refuse the option `tenant`

    @abstractmethod
    def map_error(self, error: Exception, sql: str) -> WsError:
        """Return what an error of the driver is called here."""

    def ends_transaction(self, error: QueryError) -> bool:
        """Whether the server has rolled the whole transaction back, whatever the driver says of it."""
        return False

    def is_refusal(self, error: BaseException) -> bool:
        """Whether a connect failed because the server is there and does not want us."""
        return False

    def is_duplicate_column(self, error: QueryError) -> bool:
        """Whether a query has two columns of one name, so that it cannot stand inside another one."""
        return False

    def create_statements(self, metadata: MetaData, dialect: Dialect) -> Iterator[ExecutableDDLElement | str]:
        """Yield the statements that create tables that do not exist, with their types and indexes."""
        for table in metadata.sorted_tables:
            yield from self.type_statements(table, dialect, drop=False)
            yield CreateTable(table, if_not_exists=True)
            yield from self.index_statements(table, dialect)

    def drop_statements(self, metadata: MetaData, dialect: Dialect) -> Iterator[ExecutableDDLElement | str]:
        """Yield the statements that drop tables that exist; types go after the tables that use them."""
        for table in reversed(metadata.sorted_tables):
            yield DropTable(table, if_exists=True)

        for table in metadata.sorted_tables:
            yield from self.type_statements(table, dialect, drop=True)

    def type_statements(self, table: Table, dialect: Dialect, *, drop: bool) -> Sequence[str]:
        """Return the statements that create, or drop, the types that a table's columns need."""
        return ()

    def index_statements(self, table: Table, dialect: Dialect) -> Sequence[ExecutableDDLElement]:
        """Return the statements that create a table's indexes, beside its CREATE TABLE."""
        return [
            CreateIndex(index, if_not_exists=True)
            for index in sorted(table.indexes, key=lambda index: str(index.name))
        ]
