"""The client's verbs on a pool and on a manager, each over a client that is taken for one statement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, overload

if TYPE_CHECKING:  # the manager is imported without SQLAlchemy
    from sqlalchemy.schema import MetaData, Table
    from sqlalchemy.sql.selectable import TypedReturnsRows as Typed

    from ws_pool._sql.compile.compiler import Prepared
    from ws_pool._sql.compile.parameters import Statement
    from ws_pool._sql.results import Result
    from ws_pool._sql.rows import Row


T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SqlVerbs(ABC):
    """Each verb takes a client, runs its statement, and releases it."""

    @abstractmethod
    def _client_for(self, params: dict[str, Any]) -> AbstractAsyncContextManager[Any]:  # Any: `SqlClient`
        """Return the client for one statement; what the parameters say of it is taken out of them."""

    async def execute(self, statement: Statement, *args: Any, **params: Any) -> Result:
        """Run any statement; see `SqlClient.execute`."""
        async with self._client_for(params) as client:
            result: Result = await client.execute(statement, *args, **params)
            return result

    @overload
    async def select(
        self, statement: Typed[*Ts], *args: Any, row_type: None = None, **params: Any
    ) -> list[Row[tuple[*Ts]]]: ...

    @overload
    async def select(
        self, statement: Prepared[T], *args: Any, row_type: None = None, **params: Any
    ) -> list[Row[T]]: ...

    @overload
    async def select(
        self, statement: Statement, *args: Any, row_type: type[dict[Any, Any]], **params: Any
    ) -> list[dict[str, Any]]: ...

    @overload
    async def select(self, statement: Statement, *args: Any, **params: Any) -> list[Any]: ...

    async def select(self, statement: Statement, *args: Any, **params: Any) -> list[Any]:
        """Run a query and return its rows; see `SqlClient.select`."""
        async with self._client_for(params) as client:
            rows: list[Any] = await client.select(statement, *args, **params)
            return rows

    @overload
    async def find(
        self, statement: Typed[*Ts], *args: Any, row_type: None = None, **params: Any
    ) -> Row[tuple[*Ts]] | None: ...

    @overload
    async def find(
        self, statement: Prepared[T], *args: Any, row_type: None = None, **params: Any
    ) -> Row[T] | None: ...

    @overload
    async def find(
        self, statement: Statement, *args: Any, row_type: type[dict[Any, Any]], **params: Any
    ) -> dict[str, Any] | None: ...

    @overload
    async def find(self, statement: Statement, *args: Any, **params: Any) -> Any: ...

    async def find(self, statement: Statement, *args: Any, **params: Any) -> Any:
        """Run a query and return its first row; see `SqlClient.find`."""
        async with self._client_for(params) as client:
            return await client.find(statement, *args, **params)

    async def count(self, statement: Statement | Table, *args: Any, **params: Any) -> int:
        """Count the rows of a query; see `SqlClient.count`."""
        async with self._client_for(params) as client:
            result: int = await client.count(statement, *args, **params)
            return result

    async def insert(self, statement: Statement | Table, *args: Any, **params: Any) -> int:
        """Insert a row and return its id; see `SqlClient.insert`."""
        async with self._client_for(params) as client:
            result: int = await client.insert(statement, *args, **params)
            return result

    async def update(self, statement: Statement, *args: Any, **params: Any) -> int:
        """Update rows and return how many matched; see `SqlClient.update`."""
        async with self._client_for(params) as client:
            result: int = await client.update(statement, *args, **params)
            return result

    async def delete(self, statement: Statement, *args: Any, **params: Any) -> int:
        """Delete rows and return how many; see `SqlClient.delete`."""
        async with self._client_for(params) as client:
            result: int = await client.delete(statement, *args, **params)
            return result

    async def insert_many(
        self, statement: Statement | Table, rows: Iterable[Mapping[str, Any]], **options: Any
    ) -> int:
        """Insert many rows; see `SqlClient.insert_many`."""
        async with self._client_for(options) as client:
            result: int = await client.insert_many(statement, rows, **options)
            return result

    async def create_all(self, metadata: MetaData, **options: Any) -> None:
        """Create the tables of a metadata that do not exist; see `SqlClient.create_all`."""
        async with self._client_for(options) as client:
            await client.create_all(metadata, **options)

    async def drop_all(self, metadata: MetaData, **options: Any) -> None:
        """Drop the tables of a metadata that exist; see `SqlClient.drop_all`."""
        async with self._client_for(options) as client:
            await client.drop_all(metadata, **options)
