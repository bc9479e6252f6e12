"""Faults that wait for a certain request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Loses = Literal["request", "reply", "half of the reply", "nothing"]
_GRAVEST_FIRST: Final[tuple[Loses, ...]] = get_args(Loses)

Then = Literal["close", "cut", "silence", "continue"]
"""
What becomes of a connection that has lost something: an orderly end (FIN) that lets earlier replies
arrive, a reset (RST), silence until `FaultProxy.heal`, or nothing, as if the bytes had never been.
"""


@dataclass(slots=True, eq=False)
class Fault:
    """A fault that hits the n-th request from when it was armed."""

    left: int  # matching requests until it hits, the one that it hits included
    match: str | None  # the name of the requests that count, in upper case, or None for all
    loses: Loses  # what it loses
    then: Then  # what becomes of the connection
    happened: asyncio.Event = field(default_factory=asyncio.Event)  # set when it has hit


class Armed:
    """The faults that have not hit yet."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let a fault count from now on."""
        if fault.left < 1:
            raise ValueError(f"the first request from now is number 1, not {fault.left}")

        self._faults.append(fault)

    def clear(self) -> None:
        """Forget all."""
        self._faults.clear()

    def hits(self, name: str) -> list[Fault]:
        """Count a request; return the faults that hit it, the gravest first."""
        hits: list[Fault] = []

        for fault in self._faults:
            if fault.match in {None, name}:
                fault.left -= 1

                if fault.left == 0:
                    hits.append(fault)

        self._faults = [fault for fault in self._faults if fault.left > 0]
        return sorted(hits, key=lambda fault: _GRAVEST_FIRST.index(fault.loses))
