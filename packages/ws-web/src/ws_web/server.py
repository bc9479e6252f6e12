"""`run`: serve an application with uvicorn, alone or with several worker processes.

Whatever keeps the server from starting is one line on stderr and exit code 1, without a
traceback: a wrong setting, a missing library, an occupied port, a database that does not answer.

SIGINT lets running requests finish, closes the components and exits with code 0. SIGTERM does the same
after DRAIN_DELAY seconds, in which ``/readyz`` fails and everything is still served. SIGHUP restarts
several workers one after the other, without a request being refused.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from starlette.types import ASGIApp

from ws_core.errors import ConfigError, MissingExtraError, UsageError, WsError
from ws_web._acceptor import Board
from ws_web._importing import load, search_working_directory
from ws_web._sockets import bind
from ws_web._supervisor import Supervisor, WorkerCommand, check_options
from ws_web._worker_process import run_worker_process
from ws_web.conf import settings

__all__ = ("Supervisor", "WorkerCommand", "bind", "load_app", "run", "run_worker_process", "serve_here")

# Any below: uvicorn's own options, passed on.


class StartupError(WsError):
    """The application's lifespan failed to start; the message is the cause."""

    default_code = "startup"


def run(
    app: ASGIApp | str,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    graceful_timeout: float = 10.0,
    read_timeout: float = 10.0,
    quiet: bool = False,
    **uvicorn_options: Any,
) -> NoReturn:
    """
    Serve until SIGINT or SIGTERM, then exit the process.

    Args:
        app: The application, or where it is: ``"shop.main:app"``, or ``"shop.main:create"`` for a
            function that returns it. Several workers need the latter two.
        host: The address to listen on; by default LISTEN_HOST.
        port: The TCP port; by default LISTEN_PORT. 0 takes a free one.
        workers: Worker processes; by default PROCESS_NUM. A worker that dies is replaced.
        graceful_timeout: Seconds that running requests get to finish when the server stops.
        read_timeout: Seconds in which the head of a request must arrive, and each part of its body.
        quiet: Do not print where the server listens.
        **uvicorn_options: Further options of `uvicorn.Config`; with several workers only JSON types.

    Raises:
        SystemExit: Always: code 0 after a clean stop, 1 when the server could not start.
    """
    try:
        _serve(
            app,
            host=host,
            port=port,
            workers=workers,
            options={
                "timeout_graceful_shutdown": max(1, round(graceful_timeout)),
                "read_timeout": read_timeout,
                **uvicorn_options,
            },
            quiet=quiet,
        )
    except WsError as error:
        _say(f"error: {error}")
        sys.exit(1)

    sys.exit(0)


def _serve(
    app: ASGIApp | str,
    *,
    host: str | None,
    port: int | None,
    workers: int | None,
    options: dict[str, Any],
    quiet: bool,
) -> None:
    if importlib.util.find_spec("uvicorn") is None:
        requirement = "ws-web[server]"
        message = f"a server is needed to run the application: pip install '{requirement}'"
        raise MissingExtraError(message, requirement=requirement)

    search_working_directory()
    loaded = load_app(app)
    state = getattr(loaded, "state", None)
    chosen = getattr(state, "settings", None) or settings.current
    count = chosen.PROCESS_NUM if workers is None else workers

    if count < 1:
        raise ConfigError(f"workers must be at least 1, not {count}", workers=count)

    if count > 1:
        if not isinstance(app, str):
            place = "the application's place, such as run('shop.main:app')"
            raise UsageError(f"{count} workers need {place}, not the object", workers=count)

        check_options(options)

    host = chosen.LISTEN_HOST if host is None else host
    port = chosen.LISTEN_PORT if port is None else port

    def announce(where: socket.socket) -> None:
        if not quiet:
            _say(f"serving on {_url(where)}, {count} worker{'s' if count > 1 else ''}; Ctrl-C stops")

    options.setdefault("drain_delay", chosen.DRAIN_DELAY)

    with bind(host, port) as listener:
        if count == 1 or not isinstance(app, str):
            serve_here(loaded, listener, options, ready=lambda: announce(listener))
            return

        supervisor = Supervisor(
            WorkerCommand(app, options),
            listener,
            count,
            stop_timeout=options["drain_delay"] + options["timeout_graceful_shutdown"] + 5,
            say=_say,
            on_ready=lambda: announce(listener),
        )
        asyncio.run(_supervise(supervisor))


async def _supervise(supervisor: Supervisor) -> None:
    """Run the workers until SIGINT or SIGTERM; SIGHUP restarts them."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(number: int) -> None:
        if not stopped.done():
            stopped.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)

    loop.add_signal_handler(signal.SIGHUP, supervisor.restart)
    starting = asyncio.create_task(supervisor.start(), name="start of the workers")
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)

    if not stopped.done():
        await starting

    await supervisor.stop(await stopped)
    await asyncio.gather(starting, return_exceptions=True)


def load_app(app: ASGIApp | str) -> ASGIApp:
    """Return the application; a function without parameters is called to make it."""
    loaded: Any = app

    if isinstance(app, str):
        if ":" not in app:
            raise ConfigError(f"'{app}' does not say where the application is: write 'module:name'", app=app)

        loaded = load(app, "application")

    if inspect.isfunction(loaded) and not inspect.signature(loaded).parameters:
        loaded = loaded()

    if not callable(loaded):
        raise ConfigError(f"{app!r} is not an ASGI application but {type(loaded).__name__}", app=str(app))

    application: ASGIApp = loaded
    return application


def serve_here(
    app: ASGIApp,
    listener: socket.socket,
    options: Mapping[str, Any],
    *,
    ready: Callable[[], None] | None = None,
    board: Board | None = None,
) -> None:
    """
    Serve on a socket in this process until SIGINT or SIGTERM.

    Args:
        app: The application.
        listener: A bound socket; it listens, at the latest, once requests are served.
        options: Options of `uvicorn.Config`, and ``drain_delay`` and ``read_timeout`` in seconds.
        ready: Called without arguments once requests are served.
        board: With several workers, where they write how many connections they have.

    Raises:
        StartupError: The lifespan failed; nothing was served.
    """
    import uvicorn  # noqa: PLC0415 - an extra, needed only to serve

    from ws_web._uvicorn import Guard, Server  # noqa: PLC0415 - the same

    guard = Guard(app)
    # The request id middleware decides about headers, `Request.client_ip` about proxies.
    defaults = {"access_log": False, "proxy_headers": False, "server_header": False, "log_level": "warning"}
    chosen = {**defaults, **options}
    drain_delay, read_timeout = chosen.pop("drain_delay", 0.0), chosen.pop("read_timeout", 10.0)
    config = uvicorn.Config(guard, lifespan="on", **chosen)
    config.load()
    server = Server(
        config, guard, ready=ready, drain_delay=drain_delay, read_timeout=read_timeout, board=board
    )
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.addFilter(_is_news)

    # uvicorn raises the signal once more when it has stopped. Our handler makes that harmless, so
    # that the process ends in the normal way: exit code 0, atexit functions run.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)

    try:
        server.run(sockets=[listener])
    except SystemExit:
        if guard.failure is None:
            raise
    finally:
        uvicorn_log.removeFilter(_is_news)

    # Older versions of uvicorn return after a failed start, newer ones exit.
    if guard.failure is not None:
        raise StartupError(guard.failure)


def _is_news(record: logging.LogRecord) -> bool:
    """Drop uvicorn's own line about a failed start; ours says why."""
    return record.getMessage() != "Application startup failed. Exiting."


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say(text: str) -> None:
    print(f"wintersweet: {text}", file=sys.stderr, flush=True)  # noqa: T201 - a program's message to its user
