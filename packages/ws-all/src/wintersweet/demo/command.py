"""``wintersweet demo`` from beginning to end: backends, workers, buyers, and the way out."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table

from wintersweet._cli.output import print_json
from wintersweet._cli.service import local_url
from ws_web.server import Supervisor, WorkerCommand, bind

if TYPE_CHECKING:
    from wintersweet.demo.backends import Backends
    from wintersweet.demo.jobs import JobSummary
    from wintersweet.demo.rush import Summary

__all__ = ("Options", "or_failure", "run")

T = TypeVar("T")

_APP = "wintersweet.demo.app:create"
_JOB_PROGRAM = "wintersweet.demo.worker"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of ``wintersweet demo``, checked by the command line."""

    host: str = "127.0.0.1"
    port: int | None = None
    workers: int = 2
    load: int = 0
    stock: int = 500
    at_once: int = 64
    chaos: float = 0.0
    restart_redis: str | None = None
    restart_database: str | None = None
    exit: bool = False
    quiet: bool = False
    state_dir: Path | None = None
    engine: str = "local"
    job_workers: int = 2


def run(options: Options) -> int:
    """
    Run the demo; a `WsError` says why it could not start, and nothing is left behind then.

    Returns:
        The exit status: 0 after ``--exit`` or SIGTERM, 1 when the sale was not right, 130 after Ctrl-C.
    """
    # What goes wrong in this process becomes its one message; the workers have the log.
    logging.getLogger("ws_pool").addHandler(logging.NullHandler())

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run_until_signal(options))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # pragma: no cover - on Windows
        return None

    return uvloop.new_event_loop


async def _run_until_signal(options: Options) -> int:
    """Run the demo as a task that a signal cancels, so that everything is undone in order."""
    loop = asyncio.get_running_loop()
    received: list[int] = []
    work = asyncio.ensure_future(_demo(options))

    def stop(number: int) -> None:
        if not received:  # a further signal does not disturb what undoes everything
            work.cancel()

        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)

    try:
        return await work
    except asyncio.CancelledError:
        if not received:
            raise

        return 130 if received[0] == signal.SIGINT else 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _demo(options: Options) -> int:
    console = Console(stderr=True, quiet=options.quiet, highlight=False)
    port = options.port if options.port is not None else (0 if options.exit else 8000)

    async with AsyncExitStack() as stack:
        sock = stack.enter_context(bind(options.host, port, names=("--host", "--port")))

        # The rest takes a while to load: a port that is taken is told before.
        from wintersweet.demo.backends import backends
        from wintersweet.demo.books import open_sale
        from wintersweet.demo.faults import REDIS_NAME, check_commands
        from wintersweet.demo.jobs import clear_queue

        url = local_url(options.host, sock.getsockname()[1])
        found = await stack.enter_async_context(backends(options.state_dir, durable=options.chaos > 0))
        check_commands(found, options.restart_redis, options.restart_database)
        await open_sale(options.stock)
        env = {**found.env, "WINTERSWEET_DEMO_ENGINE": options.engine}

        if options.chaos and "client_name" not in found.redis:
            env["WS_REDIS_CONFIG__default__client_name"] = REDIS_NAME

        def say(line: str) -> None:
            console.print(f"[yellow]●[/] {line}")

        shop = WorkerCommand(
            os.environ.get("WINTERSWEET_DEMO_APP", _APP), {"timeout_graceful_shutdown": 5}, env
        )
        supervisors = [Supervisor(shop, sock, options.workers, say=say)]

        if options.engine == "taskiq":
            await clear_queue(found.redis)
            command = WorkerCommand("", {}, env, program=_JOB_PROGRAM)
            supervisors.append(
                Supervisor(command, None, options.job_workers, say=lambda line: say(f"jobs: {line}"))
            )

        # Those that run jobs are there before the first is enqueued, and still when the last one was.
        for supervisor in reversed(supervisors):
            await stack.enter_async_context(supervisor)

        _show_start(console, url, found, supervisors)
        return await or_failure(_hold_sale(options, url, console, found, supervisors), supervisors)

    raise AssertionError  # pragma: no cover - the stack swallows nothing


async def _hold_sale(
    options: Options, url: str, console: Console, found: Backends, supervisors: Sequence[Supervisor]
) -> int:
    """Send buyers in as far as wanted, print what became of it, and return the exit status."""
    from wintersweet.demo.chaos import chaos
    from wintersweet.demo.faults import faults
    from wintersweet.demo.jobs import sum_up_jobs
    from wintersweet.demo.rush import rush

    shop, *jobs = supervisors
    summary: Summary | None = None

    if options.load:
        summary = await rush(url, shop, console, buyers=options.load, at_once=options.at_once)
    elif options.chaos:
        kinds = faults(supervisors, found, options.restart_redis, options.restart_database)
        summary = await chaos(
            url, supervisors, console, kinds, seconds=options.chaos, at_once=options.at_once
        )

    status = 0

    if summary is not None:
        line, is_right = asdict(summary), summary.is_right

        for supervisor in jobs:
            done = await sum_up_jobs(found.redis, supervisor)
            line["jobs"], is_right = asdict(done), is_right and done.is_right
            _show_jobs(console, done)

        print_json(line)
        status = int(not is_right)

    if not options.exit:
        await asyncio.Event().wait()

    return status


async def or_failure(work: Coroutine[Any, Any, T], supervisors: Sequence[Supervisor]) -> T:
    """Do some work, but not when there are no workers any more."""
    doing = asyncio.ensure_future(work)
    failing = [asyncio.ensure_future(supervisor.failed.wait()) for supervisor in supervisors]

    try:
        await asyncio.wait((doing, *failing), return_when=asyncio.FIRST_COMPLETED)

        for supervisor in supervisors:
            if supervisor.failure is not None:
                raise supervisor.failure

        return await doing
    finally:
        for task in (doing, *failing):
            task.cancel()

        await asyncio.gather(doing, *failing, return_exceptions=True)


def _show_start(console: Console, url: str, found: Backends, supervisors: Sequence[Supervisor]) -> None:
    database, redis = found.names
    console.print(f"[bold yellow]✿[/] [bold]Winter flash sale[/] on {database} and {redis}")
    console.print(f"  Page     [bold cyan]{url}[/]")

    for title, supervisor in zip(("Workers", "Jobs"), supervisors, strict=False):
        console.print(f"  {title:8} {', '.join(str(pid) for pid in supervisor.pids)}")

    if "WS_LOGGING_CONFIG__file_name" in found.env:
        console.print(f"  Log      {found.state / found.env['WS_LOGGING_CONFIG__file_name']}")

    console.print("  Stop     Ctrl-C")


def _show_jobs(console: Console, done: JobSummary) -> None:
    """Show which process wrote how many receipts, and what was lost."""
    table = Table("Jobs", "Receipts", box=None, header_style="bold")

    for pid, receipts in done.by_worker.items():
        table.add_row(f"process {pid}", str(receipts))

    table.add_row("lost", str(done.lost), style="red" if done.lost else None)
    table.add_row("dead letters", str(done.dead), style="red" if done.dead else None)
    console.print(table)
