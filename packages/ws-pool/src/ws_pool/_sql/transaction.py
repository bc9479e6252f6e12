"""Transactions: a block that commits at its end, and rolls back on an error or a cancellation."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ws_pool.errors import (
    CommitUnknown,
    ConnectionBusy,
    QueryTimeout,
    TransactionConflict,
    UnavailableError,
    UsageError,
    WsError,
)

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

    __slots__ = ("_client", "_isolation", "_name", "_open", "_read_only", "_restricts", "_savepoint")

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
        self._restricts = False

    async def __aenter__(self) -> Self:
        client = self._client

        async with client._turn():
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
            if self._open:  # cancelled before its turn came
                self._end()
                self._spoil()

                if client.depth == 0:
                    client._ended()

    @property
    def open(self) -> bool:
        """Whether the transaction can still be committed or rolled back."""
        return self._open

    async def commit(self) -> None:
        """
        Commit now.

        Raises:
            CommitUnknown: The connection was lost before the answer, or it did not come within
                ``query_timeout``: it may have happened or not.
            TransactionConflict: The server has rolled the transaction back before.
            UsageError: The transaction has ended.
        """
        client = self._client

        async with client._turn():
            self._end()

            try:
                if client._doomed:
                    await self._undo()
                    message = (
                        "the server has rolled this transaction back because of a conflict: run it again"
                    )
                    raise TransactionConflict(message)

                if client.depth == 0:
                    await self._commit_outermost()
                elif self._name is not None:
                    await client._control(f"RELEASE SAVEPOINT {self._name}")
            finally:
                if client.depth == 0:
                    client._ended()

    async def rollback(self) -> None:
        """
        Roll back now.

        Raises:
            UsageError: The transaction has ended.
        """
        client = self._client

        async with client._turn():
            self._end()

            try:
                await self._undo()
            finally:
                if client.depth == 0:
                    client._ended()

    async def _begin(self, client: Session) -> None:
        client._check_own()

        if client.depth:
            if self._isolation is not None:
                message = "an isolation level can only be set for the outermost transaction"
                raise UsageError(message)

            if self._savepoint:
                client.savepoints += 1
                self._name = f"ws_{client.savepoints}"
                await client._control(f"SAVEPOINT {self._name}")

            if self._read_only and not client.restricted:
                self._restricts = True
                client._restrict(True)
        else:
            await client._begin_outermost(self._isolation, read_only=self._read_only)

        client.depth += 1
        self._open = True

    async def _give_up(self, client: Session, error: BaseException) -> None:
        """Roll back, but not for ever: who was cancelled must not hang, and the server undoes it anyway."""
        limit = client._patience

        try:
            async with asyncio.timeout(limit):
                await self.rollback()
        except WsError as second:
            error.add_note(f"the rollback failed too: {second}")
        except TimeoutError:
            error.add_note(f"no answer to the rollback within {limit} s: the connection is given up")

    async def _commit_outermost(self) -> None:
        try:
            await self._client._control("COMMIT")
        except (UnavailableError, QueryTimeout) as error:
            if error.code == "cut_short":  # it was before, so that no COMMIT was sent
                raise

            late = isinstance(error, QueryTimeout)
            what = "there was no answer to" if late else "the connection was lost during"
            message = f"{what} COMMIT: look at the data to know whether it happened ({error})"
            raise CommitUnknown(message) from error
        except asyncio.CancelledError as error:
            error.add_note("cancelled during COMMIT: the transaction may have been committed or not")
            raise
        except WsError:
            await self._undo()  # a refused COMMIT, such as of a busy database, leaves the transaction open
            raise

    async def _undo(self) -> None:
        client = self._client

        try:
            if client.depth == 0:
                await client._control("ROLLBACK", always=True)
            elif self._name is not None and not client._doomed:
                await client._control(f"ROLLBACK TO SAVEPOINT {self._name}")
        except ConnectionBusy:  # an iteration was left early, or another task is at work on it
            self._spoil()
        except UnavailableError as error:
            if error.code != "cut_short":
                raise

    def _spoil(self) -> None:
        """
        Have nothing more run on a connection whose transaction could not be ended.

        The pool gets it back with the end of the client's block, and ends the transaction by a
        reset, or by closing it.
        """
        self._client.connection.cut = True

    def _end(self) -> None:
        if not self._open:
            message = "this transaction has ended"
            raise UsageError(message)

        self._open = False
        self._client.depth -= 1

        if self._restricts:
            self._client._restrict(False)
