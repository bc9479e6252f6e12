"""The buyers: many at once, each wants one piece, pays for it, and never gives up on a lost reply.

What makes a retry safe is the idempotency key: a buyer draws one key and sends it with every attempt,
so an attempt whose reply was lost returns the same order again instead of a second piece. A buyer is
satisfied by a definite answer only: a paid order, or "sold out" for every item.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ("BUYERS", "Crowd", "Reply", "Tally", "Unanswered")

BUYERS = "buyer-"
"""What the names of these buyers begin with."""

_TIMEOUT = 60.0
"""Seconds after which a buyer without a definite answer counts as an error."""

_RETRY = frozenset({408, 425, 429, 500, 502, 503, 504})


class Unanswered(Exception):
    """No reply arrived: whether the shop acted is unknown."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the shop answered: the HTTP status and the envelope."""

    status: int
    envelope: Mapping[str, Any]  # JSON from the shop
    retry_after: float = 0.0


class Post(Protocol):
    """One request to the shop; raises `Unanswered` when no reply came."""

    async def __call__(self, path: str, body: Mapping[str, object], key: str) -> Reply:
        """Send the body as JSON under the idempotency key."""
        ...


@dataclass(slots=True)
class Tally:
    """What all buyers together saw; latencies in seconds from first attempt to definite answer."""

    latencies: list[float] = field(default_factory=list)
    orders: set[int] = field(default_factory=set)
    sold_out: int = 0
    expired: int = 0
    errors: int = 0
    retries: int = 0
    requests: int = 0
    seconds: float = 0.0
    complaint: str = ""

    @property
    def done(self) -> int:
        """Buyers that have finished, with or without success."""
        return len(self.orders) + self.sold_out + self.expired + self.errors


async def _at_once(_: int) -> bool:
    return True


class Crowd:
    """
    A number of buyers, some of them in the shop at the same time.

    Args:
        post: Sends one request.
        items: Ids of what is on sale; each buyer has a favourite and takes another when it is sold out.
        buyers: How many in all.
        at_once: How many are in the shop at the same time.
        progress: Called after each buyer.
        admit: Returns when the buyer of this number may come in; False when the shop has closed.
        clock: Seconds, monotonic.
        sleep: How a buyer pauses before asking again.
        seed: Of the keys and the jitter; None for keys that no one else has.
    """

    def __init__(
        self,
        post: Post,
        items: list[int],
        buyers: int,
        *,
        at_once: int = 64,
        progress: Callable[[], None] = lambda: None,
        admit: Callable[[int], Awaitable[bool]] = _at_once,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        seed: int | None = None,
    ) -> None:
        self.tally: Tally = Tally()
        self._post = post
        self._items = items
        self._buyers = buyers
        self._at_once = at_once
        self._progress = progress
        self._admit = admit
        self._clock = clock
        self._sleep = sleep
        self._random = random.Random(seed)

    async def run(self) -> Tally:
        """Send all buyers through the shop and return what they saw."""
        began = self._clock()
        numbers = iter(range(self._buyers))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._at_once, self._buyers)):
                group.create_task(self._visit(numbers))

        self.tally.seconds = self._clock() - began

        return self.tally

    async def _visit(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            if not await self._admit(number):
                return

            try:
                await self._shop(number)
            except TimeoutError as error:
                self.tally.errors += 1
                self.tally.complaint = self.tally.complaint or str(error)

            self._progress()

    async def _shop(self, number: int) -> None:
        """Buy and pay; raises `TimeoutError` when no definite answer came."""
        began = self._clock()
        buyer, key = f"{BUYERS}{number}", f"{self._random.getrandbits(128):032x}"
        wanted = self._items[number % len(self._items)]
        order = None

        while order is None:
            reply = await self._ask("/api/buy", {"item": wanted, "buyer": buyer}, key, began)

            if reply.status == 409:
                others = (reply.envelope.get("extra") or {}).get("available") or []

                if not others:
                    self.tally.sold_out += 1
                    self.tally.latencies.append(self._clock() - began)
                    return

                wanted = others[number % len(others)]
            else:
                order = int(reply.envelope["data"]["order"])

        self.tally.latencies.append(self._clock() - began)
        reply = await self._ask("/api/pay", {"order": order, "buyer": buyer}, key, began)

        if reply.status == 200:
            self.tally.orders.add(order)
            return

        self.tally.expired += 1
        problem = f"{buyer} could not pay for order {order}: {reply.envelope.get('msg')}"
        self.tally.complaint = self.tally.complaint or problem

    async def _ask(self, path: str, body: Mapping[str, object], key: str, began: float) -> Reply:
        """Repeat a request until the shop returns a definite answer."""
        pause, last = 0.02, "no reply"

        while self._clock() - began < _TIMEOUT:
            self.tally.requests += 1

            try:
                reply = await self._post(path, body, key)
            except Unanswered as lost:
                last, wait = f"no reply: {lost}", 0.0
            else:
                if reply.status in {200, 409, 410}:
                    return reply

                last, wait = f"status {reply.status}: {reply.envelope.get('msg')}", reply.retry_after

                if reply.status not in _RETRY:
                    break

            self.tally.retries += 1
            await self._sleep(max(wait, pause * self._random.uniform(0.5, 1.0)))
            pause = min(pause * 2, 1.0)

        raise TimeoutError(f"{body['buyer']} got no definite answer from {path}; the last was {last}")
