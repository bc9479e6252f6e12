"""Transactions that are repeated, for Motor.

Motor's own ``with_transaction`` commits in a block around the function, where no error of the commit is
caught: it repeats neither a commit whose result is unknown nor a transaction that conflicts at its commit.
PyMongo's does both, as MongoDB's specification of the convenient API wants it, and so does this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from pymongo.errors import OperationFailure, PyMongoError

from ws_core.backoff import delay

ResultT = TypeVar("ResultT")

_LIMIT: Final = 120.0  # seconds, the specification's
_MAX_TIME_EXPIRED: Final = 50  # the server's code for a commit that took longer than maxTimeMS
_PAUSES: Final = (
    0.005,
    0.5,
)  # seconds before another attempt, the specification's: the first and the longest


async def run_transaction(
    session: Any, function: Callable[[Any], Awaitable[ResultT]], options: Mapping[str, Any]
) -> ResultT:  # Any: Motor has no types
    """Run a function in a transaction until one is committed, or fails for good."""
    deadline = time.monotonic() + _LIMIT
    attempt = 0

    while True:
        session.start_transaction(**options)

        try:
            result = await function(session)
        except BaseException as error:
            if session.in_transaction:
                await session.abort_transaction()

            if not _has_label(error, "TransientTransactionError") or time.monotonic() >= deadline:
                raise
        else:
            # A function may end its transaction by itself.
            if not session.in_transaction or await _commit(session, deadline):
                return result

        attempt += 1
        await asyncio.sleep(delay(attempt, *_PAUSES))


async def _commit(session: Any, deadline: float) -> bool:
    """Commit, and return whether it is; False when the transaction must be run again."""
    attempt = 0

    while True:
        try:
            await session.commit_transaction()
        except PyMongoError as error:
            expired = isinstance(error, OperationFailure) and error.code == _MAX_TIME_EXPIRED

            if time.monotonic() >= deadline:
                raise

            if not error.has_error_label("UnknownTransactionCommitResult") or expired:
                if not error.has_error_label("TransientTransactionError"):
                    raise

                return False
        else:
            return True

        attempt += 1
        await asyncio.sleep(delay(attempt, *_PAUSES))


def _has_label(error: BaseException, label: str) -> bool:
    return isinstance(error, PyMongoError) and error.has_error_label(label)
