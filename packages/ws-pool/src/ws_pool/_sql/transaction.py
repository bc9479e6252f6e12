"""Transactions: a block that commits at its end, and rolls back on an error or a cancellation."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, Self

from ws_pool._sql.connection import SqlConnection
from ws_pool.errors import (
    CommitUnknown,
    ConnectionBusy,
    QueryTimeout,
    UnavailableError,
    UsageError,
    WsError,
)

ISOLATION_LEVELS = frozenset({"READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"})


class TransactionHost(Protocol):
    """What a transaction needs of the `Session` that it is open on."""

    connection: SqlConnection
    depth: int
    doomed: bool
    isolation: str | None
    restricted: bool
    savepoints: int

    @property
    def rollback_timeout(self) -> float: ...
    def doom(self) -> WsError: ...
    def turn(self) -> AbstractAsyncContextManager[object]: ...
    async def control(self, sql: str, *, always: bool = False) -> None: ...
    async def begin_outermost(self, isolation: str | None, *, read_only: bool) -> None: ...
    def check_own(self) -> None: ...
    def set_restricted(self, *, restricted: bool) -> None: ...
    def end_transaction(self) -> None: ...


class Transaction:
    """
    One transaction, or one savepoint inside of another transaction. Made by ``client.begin()``.

    Leaving the block commits; an error or a cancellation rolls back. `commit` and `rollback` end
    it earlier.
    """

    __slots__ = ("_host", "_isolation", "_name", "_open", "_read_only", "_restricts", "_savepoint")

    def __init__(
        self, host: TransactionHost, *, isolation: str | None, read_only: bool, savepoint: bool
    ) -> None:
        if isolation is not None:
            asked: object = isolation  # whatever the caller gave: the annotation binds nobody
            isolation = asked.upper().replace("_", " ") if isinstance(asked, str) else ""

            if isolation not in ISOLATION_LEVELS:
                known = ", ".join(sorted(ISOLATION_LEVELS))
                message = f"no isolation level is called {asked!r}: use one of {known}"
                raise UsageError(message)

        self._host = host
        self._isolation = isolation
        self._read_only = read_only
        self._savepoint = savepoint
        self._name: str | None = None
        self._open = False
        self._restricts = False

    async def __aenter__(self) -> Self:
        host = self._host

        async with host.turn():
            await self._begin(host)

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return

        host = self._host

        try:
            if error is None:
                await self.commit()
            else:
                await self._give_up(host, error)
        finally:
            if self._open:  # cancelled before its turn came
                self._end()
                self._spoil()

                if host.depth == 0:
                    host.end_transaction()

    @property
    def open(self) -> bool:
        """Whether the transaction can still be committed or rolled back."""
        return self._open

    async def commit(self) -> None:
        """
        Commit now.

        `CommitUnknown` means that the connection was lost before the answer, or that it did not come
        within ``query_timeout``: the commit may have happened or not. `TransactionConflict` means
        that the server has rolled the transaction back before.
        """
        host = self._host

        async with host.turn():
            self._end()

            try:
                if host.doomed:
                    error = host.doom()
                    await self._undo()
                    raise error

                if host.depth == 0:
                    await self._commit_outermost()
                elif self._name is not None:
                    await host.control(f"RELEASE SAVEPOINT {self._name}")
            finally:
                if host.depth == 0:
                    host.end_transaction()

    async def rollback(self) -> None:
        """Roll back now."""
        host = self._host

        async with host.turn():
            self._end()

            try:
                await self._undo()
            finally:
                if host.depth == 0:
                    host.end_transaction()

    async def _begin(self, host: TransactionHost) -> None:
        host.check_own()

        if host.depth:
            if self._isolation not in {None, host.isolation}:
                message = (
                    f"this block asks for {self._isolation}, and the transaction around it has "
                    f"{host.isolation or 'the isolation of its session'}: ask for it in the outermost block"
                )
                raise UsageError(message)

            if self._savepoint:
                host.savepoints += 1
                self._name = f"ws_{host.savepoints}"
                await host.control(f"SAVEPOINT {self._name}")

            if self._read_only and not host.restricted:
                self._restricts = True
                host.set_restricted(restricted=True)
        else:
            await host.begin_outermost(self._isolation, read_only=self._read_only)

        host.depth += 1
        self._open = True

    async def _give_up(self, host: TransactionHost, error: BaseException) -> None:
        """Roll back, but not for ever: a cancelled task must not hang, and the server undoes it anyway."""
        limit = host.rollback_timeout

        try:
            async with asyncio.timeout(limit):
                await self.rollback()
        except WsError as second:
            error.add_note(f"the rollback failed too: {second}")
        except TimeoutError:
            error.add_note(f"no answer to the rollback within {limit} s: the connection is given up")

    async def _commit_outermost(self) -> None:
        try:
            await self._host.control("COMMIT")
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
        host = self._host

        try:
            if host.depth == 0:
                if host.connection.in_transaction or not host.doomed:  # SQLite refuses a ROLLBACK of nothing
                    await host.control("ROLLBACK", always=True)
            elif self._name is not None and not host.doomed:
                await host.control(f"ROLLBACK TO SAVEPOINT {self._name}")
        except ConnectionBusy:  # an iteration was left early, or another task is at work on it
            self._spoil()
        except UnavailableError as error:
            if error.code != "cut_short":
                raise

    def _spoil(self) -> None:
        """Let nothing more run where a transaction could not be ended: the release resets the connection."""
        self._host.connection.cut = True

    def _end(self) -> None:
        """Note the end before it is sent: whatever comes of it, nothing can be committed twice."""
        if not self._open:
            message = "this transaction has ended"
            raise UsageError(message)

        self._open = False
        self._host.depth -= 1

        if self._restricts:
            self._host.set_restricted(restricted=False)
