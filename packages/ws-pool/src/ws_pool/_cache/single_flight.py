"""Equal calls at the same time become one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(slots=True, eq=False, repr=False)  # its repr, as in a diagnosed traceback, would have the value
class Flight:
    """A call that is being answered, and its outcome."""

    owner: asyncio.Task[Any] | None
    done: asyncio.Event | None = None  # made by the first call that waits
    state: Literal["running", "value", "error", "abandoned"] = "running"
    value: object = None
    error: BaseException | None = None
    outdated: bool = False  # the value is from before an invalidation


class Flights:
    """
    The calls in flight, by key and event loop.

    The first call of a key leads: it does the work in its own task. The others wait for its
    outcome. When the leader is cancelled, the first of them to wake leads anew.
    """

    def __init__(self) -> None:
        self._flights: dict[tuple[int, str], Flight] = {}
        self.shared = 0

    async def run(self, key: str, work: Callable[[Flight], Awaitable[object]]) -> object:
        """Do the work, or wait for the call that does it."""
        flight_key = (id(asyncio.get_running_loop()), key)
        task = asyncio.current_task()

        # Three cases: no call does the work, so this one leads; another one does, so this one waits for
        # it; or it is this very task, which means that the work calls itself and must not wait.
        while (flight := self._flights.get(flight_key)) is not None:
            if flight.owner is task:
                return await work(flight)

            if flight.done is None:
                flight.done = asyncio.Event()

            await flight.done.wait()

            # A cancelled leader has no outcome. An outdated one may be from before this call began.
            if flight.state == "abandoned" or flight.outdated:
                continue

            self.shared += 1

            if flight.error is not None:
                raise flight.error

            return flight.value

        flight = self._flights[flight_key] = Flight(task)

        try:
            flight.value = await work(flight)
            flight.state = "value"
        except asyncio.CancelledError:
            flight.state = "abandoned"
            raise
        except BaseException as error:
            flight.state, flight.error = "error", error
            raise
        finally:
            if self._flights.get(flight_key) is flight:
                del self._flights[flight_key]

            if flight.done is not None:
                flight.done.set()

        return flight.value

    def detach(self, key: str | None = None) -> None:
        """Let later calls begin anew, of one key or of all; calls that wait already get the outcome."""
        for flight_key in [found for found in self._flights if key is None or found[1] == key]:
            self._flights.pop(flight_key, None)

    def outdate(self) -> None:
        """Do the same for all keys, and mark the outcomes as from before."""
        for flight in self._flights.values():
            flight.outdated = True

        self._flights.clear()
