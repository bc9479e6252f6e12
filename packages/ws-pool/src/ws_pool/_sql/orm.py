"""ORM sessions inside a client's transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ws_pool._sql.connection import SqlConnection
from ws_pool._sql.dialect import SqlDialect
from ws_pool._sql.engine import need_greenlet
from ws_pool.errors import TransactionConflict, UsageError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession  # they need greenlet


Join = Callable[[SqlConnection], Awaitable["AsyncConnection"]]


class OrmHost(Protocol):
    """What an ORM session needs of the `Session` of the client that it joins."""

    connection: SqlConnection
    depth: int
    restricted: bool

    def lose_transaction(self) -> None: ...


class JoinedSession:
    """
    An `AsyncSession` on a client's connection and in its transaction. Made by ``client.orm_session()``.

    Its ``commit()`` and ``rollback()`` are those of a savepoint: what it has committed is kept when
    the transaction around it is. Leaving the block commits the session, an error rolls it back.
    """

    __slots__ = ("_connection", "_dialect", "_host", "_join", "_on", "_options", "_session")

    def __init__(self, host: OrmHost, dialect: SqlDialect, join: Join, options: dict[str, Any]) -> None:
        self._host = host
        self._dialect = dialect
        self._join = join
        self._options = options
        self._on: SqlConnection = host.connection
        self._connection: Any = None  # Any: of SQLAlchemy, which needs greenlet to be imported
        self._session: Any = None

    async def __aenter__(self) -> AsyncSession:
        host = self._host

        if not host.depth or host.restricted:
            what = "only reads" if host.depth else "has no open transaction"
            message = f"orm_session() joins a transaction, and this client {what}: use it inside atomic()"
            raise UsageError(message)

        need_greenlet()
        from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415 - it needs greenlet

        self._on.dirty = True
        self._connection = await self._join(self._on)

        try:
            await self._connection.begin()
        except BaseException:
            await self._connection.close()
            raise

        self._session = session = AsyncSession(
            bind=self._connection,
            **{"expire_on_commit": False, **self._options, "join_transaction_mode": "create_savepoint"},
        )
        return session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A cancellation may have cut an exchange short, which SQLAlchemy would have closed a connection of
        # its own for.
        if error is not None and not isinstance(error, Exception):
            self._on.give_up()

        try:
            if error is None:
                await self._session.commit()
        except DBAPIError as failure:
            self._translate(failure)
            raise
        finally:
            # After a deadlock, or on a connection that was cut short, there is no savepoint to roll back to.
            with suppress(SQLAlchemyError):
                await self._session.close()

            with suppress(SQLAlchemyError):
                await self._connection.close()

            if not self._on.in_transaction:
                self._host.lose_transaction()

        if isinstance(error, DBAPIError):
            self._translate(error)

    def _translate(self, error: DBAPIError) -> None:
        """Raise a conflict as what it is, so that ``retry_deadlocks`` can see it."""
        driver = error.orig

        if isinstance(driver, Exception):
            # SQLAlchemy's adapters raise errors of their own from some drivers', which have the numbers.
            cause = driver.__cause__
            ours = self._dialect.map_error(cause if isinstance(cause, Exception) else driver, "")

            if isinstance(ours, TransactionConflict):
                raise ours from error
