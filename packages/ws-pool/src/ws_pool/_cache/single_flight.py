"""Equal calls at the same time become one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

__all__ = ("Flights",)


class _Flight:
    """A call that is being answered, and what came of it."""

    __slots__ = ("done", "error", "owner", "state", "value")

    def __init__(self, owner: asyncio.Task[Any] | None) -> None:
        self.owner = owner
        self.done: asyncio.Event | None = None
        self.state: Literal["running", "value", "error", "abandoned"] = "running"
        self.value: object = None
        self.error: BaseException | None = None


class Flights:
    """
    The calls under way, by key and event loop.

    The first call of a key leads: it does the work in its own task. The others wait for its
    outcome. When the leader is cancelled, the first of them to wake leads anew.
    """

    __slots__ = ("_flights", "shared")

    def __init__(self) -> None:
        self._flights: dict[tuple[int, str], _Flight] = {}
        self.shared = 0

    async def run(self, key: str, work: Callable[[], Awaitable[object]]) -> object:
        """
        Do the work, or wait for the one who does.

        There are three cases: nobody is at it, so this call leads; another call is, so this one
        waits for it, and begins again when that one was cancelled; or it is this very task, which
        means that the work calls itself and must not wait.
        """
        flight_key = (id(asyncio.get_running_loop()), key)
        task = asyncio.current_task()

        while (flight := self._flights.get(flight_key)) is not None:
            if flight.owner is task:
                return await work()

            if flight.done is None:
                flight.done = asyncio.Event()

            await flight.done.wait()

            if flight.state == "abandoned":
                continue

            self.shared += 1

            if flight.error is not None:
                raise flight.error

            return flight.value

        flight = self._flights[flight_key] = _Flight(task)

        try:
            flight.value = await work()
            flight.state = "value"
        except asyncio.CancelledError:
            flight.state = "abandoned"
            raise
        except BaseException as error:
            flight.state, flight.error = "error", error
            raise
        finally:
            del self._flights[flight_key]

            if flight.done is not None:
                flight.done.set()

        return flight.value
