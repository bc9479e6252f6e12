"""The load on the shop: buyers over our own HTTP pool, a progress bar, and the summary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wintersweet._cli.output import percentile
from wintersweet.demo.books import count, paid_orders
from wintersweet.demo.load import BUYERS, Crowd, Post, Reply, Tally, Unanswered
from wintersweet.demo.tables import CATALOGUE
from ws_pool.http import HttpError, HttpPool
from ws_web.server import Supervisor

__all__ = ("DEADLINE", "Summary", "rush", "shop_door", "sum_up")

DEADLINE = 15.0
"""Seconds in which the shop must answer a request."""


@dataclass(frozen=True, slots=True)
class Summary:
    """
    The JSON line. ``sold`` and ``oversold`` are counted from the database.

    ``errors`` counts buyers without a definite answer, orders in which the buyers and the database
    disagree, and pieces that the books lost; ``expired`` counts orders that were not paid in time.
    Latencies reach from a buyer's first attempt to the definite answer.
    """

    buyers: int
    stock: int
    sold: int
    oversold: int
    errors: int
    expired: int
    p50_ms: float
    p99_ms: float
    rps: float
    acknowledged: int
    retries: int
    workers_replaced: int
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether nothing was oversold or wrong."""
        return not (self.oversold or self.errors)


async def rush(url: str, supervisor: Supervisor, console: Console, *, buyers: int, at_once: int) -> Summary:
    """Send buyers in, ``at_once`` of them at the same time, show how it goes, and count in the end."""
    columns = (
        TextColumn("[bold]Buyers"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )

    with Progress(*columns, console=console, transient=False) as progress:
        bar = progress.add_task("buyers", total=buyers, note="")

        async with shop_door(url, at_once) as post:
            crowd = Crowd(
                post,
                [article.id for article in CATALOGUE],
                buyers,
                at_once=at_once,
                progress=lambda: progress.update(
                    bar, completed=crowd.tally.done, note=f"{len(crowd.tally.orders)} sold"
                ),
            )
            tally = await crowd.run()

    return await sum_up(tally, supervisor, console)


@asynccontextmanager
async def shop_door(url: str, at_once: int) -> AsyncIterator[Post]:
    """Yield what sends one request to the shop."""
    async with (
        HttpPool(base_url=url, limit=at_once, timeout=DEADLINE, retries=0, raise_for_status=False) as pool,
        pool.get_client() as http,
    ):

        async def post(path: str, body: Mapping[str, object], key: str) -> Reply:
            try:
                reply = await http.post(path, json=body, headers={"idempotency-key": key})
                envelope = reply.json()
            except (HttpError, ValueError) as error:
                raise Unanswered(str(error)) from error

            return Reply(reply.status_code, envelope, float(reply.headers.get("retry-after", 0)))

        yield post


async def sum_up(tally: Tally, supervisor: Supervisor, console: Console) -> Summary:
    """Count the sale from the database, and compare it with what the buyers saw; show the first complaint."""
    if tally.complaint:
        console.print(f"✗ {tally.complaint}", style="red", markup=False)

    totals = await count()
    disagreed = tally.orders ^ await paid_orders(BUYERS)

    return Summary(
        buyers=tally.done,
        stock=totals.stock,
        sold=totals.sold,
        oversold=totals.oversold,
        errors=tally.errors + len(disagreed) + totals.drift,
        expired=tally.expired,
        p50_ms=round(percentile(tally.latencies, 0.50) * 1000, 2),
        p99_ms=round(percentile(tally.latencies, 0.99) * 1000, 2),
        rps=round(tally.requests / tally.seconds, 1) if tally.seconds else 0.0,
        acknowledged=len(tally.orders),
        retries=tally.retries,
        workers_replaced=supervisor.replaced,
        seconds=round(tally.seconds, 3),
    )
