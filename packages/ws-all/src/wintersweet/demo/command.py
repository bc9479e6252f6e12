"""``wintersweet demo`` from beginning to end: backends, workers, buyers, and the way out."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from wintersweet._cli.output import print_json
from ws_web.server import Supervisor, WorkerCommand, bind

if TYPE_CHECKING:
    from wintersweet.demo.backends import Backends

__all__ = ("Options", "run")


_APP = "wintersweet.demo.app:create"


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


def run(options: Options) -> int:
    """
    Run the demo.

    Args:
        options: What to run.

    Returns:
        The exit status: 0 after ``--exit`` or SIGTERM, 1 when the sale was not right, 130 after Ctrl-C.

    Raises:
        WsError: The demo could not start; nothing is left behind.
    """
    # What goes wrong in this process becomes its one message; the workers have the log.
    logging.getLogger("ws_pool").addHandler(logging.NullHandler())

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_told(options))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # pragma: no cover - on Windows
        return None

    return uvloop.new_event_loop


async def _until_told(options: Options) -> int:
    """Run the demo as a task that a signal cancels, so that everything is undone in order."""
    loop = asyncio.get_running_loop()
    told: list[int] = []
    work = asyncio.ensure_future(_demo(options))

    def stop(number: int) -> None:
        if not told:
            work.cancel()

        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)

    try:
        return await work
    except asyncio.CancelledError:
        if not told:
            raise

        return 130 if told[0] == signal.SIGINT else 0
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
        from wintersweet.demo.chaos import chaos
        from wintersweet.demo.faults import REDIS_NAME, check_commands, faults
        from wintersweet.demo.rush import rush

        url = _url(options.host, sock.getsockname()[1])
        found = await stack.enter_async_context(backends(options.state_dir, durable=options.chaos > 0))
        commands = options.restart_redis, options.restart_database
        check_commands(found, *commands)
        await open_sale(options.stock)
        env = {**found.env, "WINTERSWEET_DEMO_ENGINE": options.engine}

        if options.chaos and "client_name" not in found.redis:
            env["WS_REDIS_CONFIG__default__client_name"] = REDIS_NAME

        supervisor = await stack.enter_async_context(
            Supervisor(
                WorkerCommand(
                    os.environ.get("WINTERSWEET_DEMO_APP", _APP), {"timeout_graceful_shutdown": 5}, env
                ),
                sock,
                options.workers,
                say=lambda line: console.print(f"[yellow]●[/] {line}"),
            )
        )
        _show_start(console, url, found, supervisor)
        status = 0

        if options.load:
            summary = await rush(url, supervisor, console, buyers=options.load, at_once=options.at_once)
            print_json(asdict(summary))
            status = int(summary.oversold > 0 or summary.errors > 0)

        if options.chaos:
            outcome = await chaos(
                url,
                supervisor,
                console,
                faults(supervisor, found, *commands),
                seconds=options.chaos,
                at_once=options.at_once,
            )
            print_json(asdict(outcome))
            status = int(not outcome.is_right)

        if not options.exit:
            await supervisor.failed.wait()

        if supervisor.failure is not None:
            raise supervisor.failure

        return status

    raise AssertionError  # pragma: no cover - the stack swallows nothing


def _url(host: str, port: int) -> str:
    """Return where a browser on this machine finds the shop."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"

    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _show_start(console: Console, url: str, found: Backends, supervisor: Supervisor) -> None:
    database, redis = found.names
    pids = ", ".join(str(pid) for pid in supervisor.pids)
    console.print(f"[bold yellow]✿[/] [bold]Winter flash sale[/] on {database} and {redis}")
    console.print(f"  Page     [bold cyan]{url}[/]")
    console.print(f"  Workers  {pids}")

    if "WS_LOGGING_CONFIG__file_name" in found.env:
        console.print(f"  Log      {found.state / found.env['WS_LOGGING_CONFIG__file_name']}")

    console.print("  Stop     Ctrl-C")
