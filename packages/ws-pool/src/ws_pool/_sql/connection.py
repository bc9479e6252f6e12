"""What the client needs of a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ws_pool._core import tracing
from ws_pool._core.operation import Operation
from ws_pool.errors import ConnectionBusy, UnavailableError

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True, eq=False, repr=False)  # its repr, as in a diagnosed traceback, would be all rows
class Reply:
    """What the server answered to one statement."""

    rows: Sequence[tuple[Any, ...]] | None
    description: Sequence[Sequence[Any]] | None
    rowcount: int
    last_id: int
    more: list[Reply] = field(default_factory=list)  # results with rows that came after this one


class SqlConnection(Protocol):
    """A driver's connection under one interface."""

    raw: Any  # Any: the driver's own connection, which is the user's to know
    dirty: bool
    """Whether a statement may have changed the session's state."""
    cut: bool
    """Whether an exchange was cut short, so that nothing more may run."""

    @property
    def gathers(self) -> bool:
        """Whether `stream` is a good way to read a long result as a whole."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, as far as the driver knows."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the connection can be used; False when an exchange was cut short."""
        ...

    async def run(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run one statement; ``values`` fill its placeholders, None means it has none."""
        ...

    async def run_prepared(self, sql: str, values: Sequence[Any] | None) -> Reply:
        """Run a query that will be run again and again; a driver may know a shorter way for it."""
        ...

    async def run_many(self, sql: str, values: Sequence[Sequence[Any]]) -> int:
        """Run one statement once per row of values, and give the sum of rows matched."""
        ...

    def batches(
        self, sql: str, values: Sequence[Sequence[Any]], most_rows: int, most_bytes: int
    ) -> Iterator[str] | None:
        """Write an INSERT's rows into statements of many groups; None where `run_many` does as well."""
        ...

    def stream(self, sql: str, values: Sequence[Any] | None, size: int) -> AsyncIterator[Reply]:
        """Run one statement and give its rows in blocks."""
        ...

    def give_up(self) -> None:
        """Let nothing more run: somebody else's exchange on it was cut short."""

    def terminate(self) -> object:
        """Close at once."""


def busy(*, iterating: bool = False) -> ConnectionBusy:
    """Return the error of two statements on one connection at the same time, of which one is an iteration."""
    if iterating:
        message = (
            "an iteration over this connection has not ended: leave its loop or call its aclose() before the "
            "next statement, or take another client with get_client(alone=True)"
        )
    else:
        message = (
            "two tasks use one connection at the same time: take a client in each task, "
            "or share() this one so that they wait for each other"
        )

    return ConnectionBusy(message)


def cut_short() -> UnavailableError:
    """Return the error of a connection that cannot be used, because an exchange on it was cancelled."""
    message = "a statement on this connection was cut short: leave the block and take a new client"
    return UnavailableError(message, code="cut_short")


def remember(cache: dict[K, V], key: K, value: V, most: int) -> V:
    """Keep a value, and return it; a full cache forgets all, which costs less than to know the oldest."""
    if len(cache) >= most:
        cache.clear()

    cache[key] = value
    return value


def trace_statements(owner: type, system: str) -> None:
    """Declare the methods of a class of connections that run statements, for `ws_pool._core.tracing`."""

    def describe(_: object, sql: str, values: object = None, *__: object) -> Operation:
        return tracing.statement(system, sql, literal=values is None)

    for method in ("run", "run_prepared", "run_many", "stream", "load_records", "load_file", "dump"):
        if method in owner.__dict__:
            tracing.point(owner, method, describe, exclusive=method != "stream")
