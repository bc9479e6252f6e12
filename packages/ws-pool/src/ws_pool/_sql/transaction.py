"""Transactions: a block that commits at its end, and rolls back on an error or a cancellation."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ws_pool.errors import CommitUnknown, TransactionConflict, UnavailableError, UsageError, WsError

if TYPE_CHECKING:
    from ws_pool._sql.session import Session

__all__ = ("ISOLATION_LEVELS", "Transaction")

ISOLATION_LEVELS = frozenset({"READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"})


class Transaction:
    """
    One transaction, or one savepoint inside of another transaction. Made by ``client.begin()``.

    Leaving the block commits; an error or a cancellation rolls back. `commit` and `rollback` end
    it earlier.
    """

    __slots__ = ("_client", "_isolation", "_name", "_open", "_read_only", "_savepoint")

    def __init__(self, client: Session, *, isolation: str | None, read_only: bool, savepoint: bool) -> None:
        if isolation is not None:
            isolation = isolation.upper().replace("_", " ")

            if isolation not in ISOLATION_LEVELS:
                known = ", ".join(sorted(ISOLATION_LEVELS))
                message = f"no isolation level is called {isolation!r}: use one of {known}"
                raise UsageError(message)

        self._client = client
        self._isolation = isolation
        self._read_only = read_only
        self._savepoint = savepoint
        self._name: str | None = None
        self._open = False

    async def __aenter__(self) -> Self:
        client = self._client

        async with client.turn():
            await self._begin(client)

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return

        client = self._client

        try:
            if error is None:
                await self.commit()
            else:
                await self._give_up(client, error)
        finally:
            if self._open:  # cancelled before its turn came: nobody may go on inside of it
                self._end()
                client.connection.terminate()

                if client.depth == 0:
                    client.ended()

    @property
    def open(self) -> bool:
        """Whether the transaction can still be committed or rolled back."""
        return self._open

    async def commit(self) -> None:
        """
        Commit now.

        Raises:
            CommitUnknown: The connection was lost before the answer: it may have happened or not.
            TransactionConflict: The server has rolled the transaction back before.
            UsageError: The transaction has ended.
        """
        client = self._client

        async with client.turn():
            self._end()

            try:
                if client.doomed:
                    await self._undo()
                    message = (
                        "the server has rolled this transaction back because of a conflict: run it again"
                    )
                    raise TransactionConflict(message)

                if client.depth == 0:
                    await self._commit_outermost()
                elif self._name is not None:
                    await client.control(f"RELEASE SAVEPOINT {self._name}")
            finally:
                if client.depth == 0:
                    client.ended()

    async def rollback(self) -> None:
        """
        Roll back now.

        Raises:
            UsageError: The transaction has ended.
        """
        client = self._client

        async with client.turn():
            self._end()

            try:
                await self._undo()
            finally:
                if client.depth == 0:
                    client.ended()

    async def _begin(self, client: Session) -> None:
        client.check_own()

        if client.depth:
            if self._isolation is not None:
                message = "an isolation level can only be set for the outermost transaction"
                raise UsageError(message)

            if self._savepoint:
                client.savepoints += 1
                self._name = f"ws_{client.savepoints}"
                await client.control(f"SAVEPOINT {self._name}")
        else:
            await client.begin_outermost(self._isolation, read_only=self._read_only)

        client.depth += 1
        self._open = True

    async def _give_up(self, client: Session, error: BaseException) -> None:
        """Roll back, but not for ever: who was cancelled must not hang, and the server undoes it anyway."""
        limit = client.patience

        try:
            async with asyncio.timeout(limit):
                await self.rollback()
        except WsError as second:
            error.add_note(f"the rollback failed too: {second}")
        except TimeoutError:
            error.add_note(f"no answer to the rollback within {limit} s: the connection is given up")

    async def _commit_outermost(self) -> None:
        client = self._client

        try:
            await client.control("COMMIT")
        except UnavailableError as error:
            text = "the connection was lost during COMMIT: look at the data to know whether it happened"
            message = f"{text} ({error})"
            raise CommitUnknown(message) from error
        except asyncio.CancelledError as error:
            error.add_note("cancelled during COMMIT: the transaction may have been committed or not")
            raise
        except WsError:
            await self._undo()  # a refused COMMIT, such as of a busy database, leaves the transaction open
            raise

    async def _undo(self) -> None:
        client = self._client

        if not client.connection.alive:
            return  # the pool closes it, and the server rolls back

        if client.depth == 0:
            await client.control("ROLLBACK", always=True)
        elif self._name is not None and not client.doomed:
            await client.control(f"ROLLBACK TO SAVEPOINT {self._name}")

    def _end(self) -> None:
        if not self._open:
            message = "this transaction has ended"
            raise UsageError(message)

        self._open = False
        self._client.depth -= 1
