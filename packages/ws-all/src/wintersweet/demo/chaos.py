"""A sale during which workers, servers and connections are killed, and how fast it recovers each time.

Buyers come in bursts, and pieces are delivered a little more slowly, so that a fault meets many requests
under way and the struggle for the last piece. One fault at a time: the next one comes when a buyer has got
an answer and all workers serve again. What is counted in the end comes from the database.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from wintersweet.demo.books import deliver, paid_orders
from wintersweet.demo.faults import Fault
from wintersweet.demo.load import BUYERS, Crowd, Post, Reply, Tally, Unanswered
from wintersweet.demo.rush import DEADLINE, Summary, shop_door, sum_up
from wintersweet.demo.tables import CATALOGUE
from ws_core.errors import UnavailableError
from ws_web.server import Supervisor

__all__ = ("ChaosSummary", "Struck", "Timeline", "chaos")

_BURST: Final = 32  # buyers that come at the same time
_EVERY: Final = 0.5  # seconds from one burst to the next
_DELIVERIES: Final = 0.8 * _BURST / _EVERY  # pieces in a second
_PAUSE: Final = 4.0  # seconds between two faults, less in a short sale
_HOPELESS: Final = 60.0  # seconds without an answer after which nobody waits any more
_MANY: Final = 10**9

_logger = logging.getLogger("wintersweet.demo")


@dataclass(frozen=True, slots=True)
class Struck:
    """
    What one fault did, in seconds.

    ``at_s`` counts from the beginning of the sale. ``away_s`` is how long a server was away;
    ``recovery_s`` lasts from its return, or from the fault, to the next answer to a buyer, of workers of
    jobs to the next receipt.
    """

    kind: str
    at_s: float
    away_s: float
    recovery_s: float


@dataclass(frozen=True, slots=True)
class ChaosSummary(Summary):
    """
    The JSON line of a sale with faults.

    ``lost`` counts confirmed orders that are not in the database, ``stuck`` requests without an answer
    within ``deadline_s``; ``slowest_s`` is the longest request, ``recovery_s`` the longest recovery.
    ``not_tried`` names the faults for which there were no means.
    """

    lost: int
    stuck: int
    deadline_s: float
    slowest_s: float
    recovery_s: float
    faults: list[Struck]
    not_tried: list[str]

    @property
    def is_right(self) -> bool:
        """Whether nothing was oversold, lost or stuck."""
        return not (self.oversold or self.errors or self.lost or self.stuck)


class _Sent(NamedTuple):
    """One request: when it was sent and answered, in monotonic seconds."""

    sent: float
    ended: float
    answered: bool
    needs_all: bool  # Redis and the database: a payment needs the database only


class Timeline:
    """Every request of a sale: when it was sent, when it ended, and whether the shop answered it."""

    def __init__(self) -> None:
        self.stuck = 0
        self._requests: list[_Sent] = []

    @property
    def slowest(self) -> float:
        """Seconds that the longest request took."""
        return max((one.ended - one.sent for one in self._requests), default=0.0)

    def watch(self, post: Post) -> Post:
        """Return the same door, with each request through it noted."""

        async def watched(path: str, body: Mapping[str, object], key: str) -> Reply:
            sent, answered = time.monotonic(), False

            try:
                reply = await post(path, body, key)
                answered = reply.status < 500
            except Unanswered as error:
                self.stuck += isinstance(error.__cause__, TimeoutError)
                raise
            finally:
                self._requests.append(_Sent(sent, time.monotonic(), answered, path == "/api/buy"))

            return reply

        return watched

    def next_answer(self, begin: float, back: float) -> float | None:
        """Return when a request sent after ``begin`` was answered first, not before ``back``."""
        return min(
            (one.ended for one in self._requests if self._shows_life(one, begin) and one.ended >= back),
            default=None,
        )

    def _shows_life(self, one: _Sent, begin: float) -> bool:
        return one.answered and one.needs_all and one.sent >= begin


async def chaos(
    url: str,
    supervisors: Sequence[Supervisor],
    console: Console,
    faults: Sequence[Fault],
    *,
    seconds: float,
    at_once: int,
) -> ChaosSummary:
    """
    Hold a sale with faults for so many seconds, show how it goes, and count in the end.

    The shop's supervisor is the first. Each fault that has the means comes at least once.
    A shop that does not recover raises `UnavailableError`.
    """
    columns = (TextColumn("[bold]Chaos "), BarColumn(bar_width=40), TextColumn("{task.fields[note]}"))

    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        async with shop_door(url, at_once) as post:
            sale = _Sale(post, supervisors, progress, seconds)

            try:
                tally = await sale.run(faults, at_once)
            except ExceptionGroup as group:  # of the task group, which nobody but us knows
                raise group.exceptions[0] from None

    summary = await sum_up(tally, supervisors[0], console)

    return ChaosSummary(
        **asdict(summary),
        lost=len(tally.orders - await paid_orders(BUYERS)),
        stuck=sale.timeline.stuck,
        deadline_s=DEADLINE,
        slowest_s=round(sale.timeline.slowest, 3),
        recovery_s=max((one.recovery_s for one in sale.struck), default=0.0),
        faults=sale.struck,
        not_tried=[fault.kind for fault in faults if fault.strike is None],
    )


class _Sale:
    """Buyers, deliveries and faults beside each other."""

    def __init__(
        self, post: Post, supervisors: Sequence[Supervisor], progress: Progress, seconds: float
    ) -> None:
        self.timeline = Timeline()
        self.struck: list[Struck] = []
        self._post = self.timeline.watch(post)
        self._progress = progress
        self._seconds = seconds
        self._bar = progress.add_task("chaos", total=seconds, note="")
        self._began = time.monotonic()
        self._closed = False
        self._supervisors = [(supervisor, len(supervisor.pids)) for supervisor in supervisors]

    async def run(self, faults: Sequence[Fault], at_once: int) -> Tally:
        """Let buyers in until the faults are over, and return what they saw."""
        crowd = Crowd(
            self._post,
            [article.id for article in CATALOGUE],
            _MANY,
            at_once=at_once,
            progress=lambda: self._show(f"{len(crowd.tally.orders)} sold"),
            admit=self._admit,
        )

        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver())
            group.create_task(self._break([fault for fault in faults if fault.strike is not None]))
            return await crowd.run()

        raise AssertionError  # pragma: no cover - the group swallows nothing

    def _show(self, note: str) -> None:
        self._progress.update(
            self._bar, note=note, completed=min(self._seconds, time.monotonic() - self._began)
        )

    async def _admit(self, number: int) -> bool:
        await asyncio.sleep(self._began + number // _BURST * _EVERY - time.monotonic())
        return not self._closed

    async def _deliver(self) -> None:
        """Deliver each second; when the database is away, the next delivery brings all."""
        while not self._closed:
            await asyncio.sleep(1.0)

            try:
                await deliver(round(_DELIVERIES * (time.monotonic() - self._began)))
            except Exception:
                _logger.info("a delivery failed: the next one brings its pieces", exc_info=True)

    async def _break(self, faults: list[Fault]) -> None:
        """Cause faults until the time is over, each at least once."""
        pause = min(_PAUSE, self._seconds / (len(faults) + 1))
        order = random.Random()
        waiting: list[Fault] = []
        first = True

        while first or time.monotonic() - self._began < self._seconds - pause:
            await asyncio.sleep(pause)

            if not waiting:
                waiting = order.sample(faults, len(faults))

            await self._strike(waiting.pop())
            first = first and bool(waiting)

        self._closed = True

    async def _strike(self, fault: Fault) -> None:
        """Cause one fault, and wait until what it struck works again."""
        assert fault.strike is not None
        elapsed = time.monotonic() - self._began
        await asyncio.sleep(_EVERY - elapsed % _EVERY + random.uniform(0, 0.1))  # in the middle of a burst
        begin = time.monotonic()
        away = await fault.strike()
        back = begin if away is None else time.monotonic()
        answer = await self._recovered(fault, begin, back)
        struck = Struck(
            fault.kind, round(begin - self._began, 3), round(back - begin, 3), round(answer - back, 3)
        )
        self.struck.append(struck)
        sign = "answer" if fault.recovered is None else "receipt"
        what = f"{fault.kind}, away for {struck.away_s:.2f} s" if struck.away_s else fault.kind
        self._progress.console.print(
            f"  [red]✸[/] {struck.at_s:6.1f} s  {what}: next {sign} after {struck.recovery_s:.2f} s"
        )

        # A service without workers is another fault than these.
        for supervisor, workers in self._supervisors:
            while supervisor.serving < workers and supervisor.failure is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _recovered(self, fault: Fault, begin: float, back: float) -> float:
        """Wait until what was struck works again, and return since when."""
        try:
            async with asyncio.timeout(_HOPELESS):
                if fault.recovered is not None:
                    await fault.recovered()
                    return time.monotonic()

                while (answer := self.timeline.next_answer(begin, back)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

                return answer
        except TimeoutError:
            message = f"the shop did not recover within {_HOPELESS:g} s of: {fault.kind}"
            raise UnavailableError(message, fault=fault.kind) from None
