"""``atomic``: a block or a function that happens as a whole or not at all."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, cast

from ws_core.backoff import delay
from ws_pool.context import TaskBinding
from ws_pool.errors import TransactionConflict, UsageError

if TYPE_CHECKING:  # ws_pool.atomic is imported without SQLAlchemy
    from ws_pool._sql.transaction import Transaction


logger = logging.getLogger("ws_pool.sql")

P = ParamSpec("P")
R = TypeVar("R")
ClientT_co = TypeVar("ClientT_co", bound="AtomicClient", covariant=True)

_FIRST_BACKOFF, _MAX_BACKOFF = 0.02, 1.0  # seconds, of which a random share is waited


class AtomicClient(Protocol):
    """What `Atomic` needs of an `SqlClient`."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...
    def begin(self, *, isolation: str | None, read_only: bool, savepoint: bool) -> Transaction: ...


class AtomicPool(Protocol[ClientT_co]):
    """What `Atomic` needs of an `SqlPool`."""

    @property
    def bound(self) -> TaskBinding[Any]: ...  # Any: clients; a dict of them is of one type only
    def get_client(self) -> ClientT_co: ...


class Atomic(Generic[ClientT_co]):
    """
    An async context manager that returns the client, and a decorator for coroutine functions.

    ``find`` returns the pool, when the block begins; for the other options see `ws_pool.atomic`.
    """

    def __init__(
        self,
        find: Callable[[], AtomicPool[ClientT_co]],
        *,
        savepoint: bool = True,
        isolation: str | None = None,
        retry_deadlocks: int = 0,
        read_only: bool = False,
    ) -> None:
        asked: object = retry_deadlocks  # whatever the caller gave: the annotation binds nobody

        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
            message = f"retry_deadlocks is a number of times from 0, not {asked!r}"
            raise UsageError(message)

        self._find = find
        self._retries = retry_deadlocks
        self._options: dict[str, Any] = {  # Any: those of `begin`
            "savepoint": savepoint,
            "isolation": isolation,
            "read_only": read_only,
        }
        self._blocks: list[tuple[asyncio.Task[object] | None, AtomicClient, Transaction]] = []

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """
        Decorate a coroutine function.

        It runs in a transaction from now on; with ``retry_deadlocks`` it may run several times, so
        it must do nothing that cannot be undone outside of the database.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            message = f"atomic decorates coroutine functions, and {function.__qualname__} is a generator's"
            raise UsageError(message)

        @functools.wraps(function)
        async def run(*args: P.args, **kwargs: P.kwargs) -> R:
            attempt = 0

            while True:
                try:
                    async with Atomic(self._find, **self._options):
                        result: Any = function(*args, **kwargs)  # Any: the annotation binds nobody

                        if not inspect.isawaitable(result):
                            message = f"atomic decorates coroutine functions, and {function} is not one"
                            raise UsageError(message)

                        return cast("R", await result)
                except TransactionConflict as error:
                    bound = self._find().bound.current()

                    if attempt >= self._retries or (bound is not None and bound.in_transaction):
                        raise  # only the outermost transaction can be run again

                    attempt += 1
                    logger.debug("%s: running again after a conflict: %s", function, error)

                await asyncio.sleep(delay(attempt, _FIRST_BACKOFF, _MAX_BACKOFF, jitter=1.0))

        return run

    async def __aenter__(self) -> ClientT_co:
        if self._retries:
            message = "a block cannot be run again: use retry_deadlocks with atomic as a decorator"
            raise UsageError(message)

        block = self._find().get_client()
        client = await block.__aenter__()

        try:
            transaction = client.begin(**self._options)
            await transaction.__aenter__()
        except BaseException as error:
            await block.__aexit__(type(error), error, error.__traceback__)
            raise

        self._blocks.append((asyncio.current_task(), block, transaction))
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        mine = [n for n, (owner, _, _) in enumerate(self._blocks) if owner is task]
        position = mine[-1] if mine else -1  # a block may end in another task, as fixtures of tests do
        _, block, transaction = self._blocks.pop(position)

        try:
            await transaction.__aexit__(kind, error, trace)
        finally:
            await block.__aexit__(kind, error, trace)
