"""``wintersweet bench``: load on one route, and how fast and how well it answers."""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from wintersweet._cli.embedded import embedded_servers
from wintersweet._cli.event_loop import new_runner
from wintersweet._cli.output import percentile, print_json, stderr, stdout
from wintersweet._cli.project import load, use
from wintersweet._cli.service import base_url, is_local
from ws_core.errors import ConfigError, UnavailableError, UsageError
from ws_pool.http import HttpClient, HttpConnectionError, HttpError, HttpPool, HttpTimeout
from ws_web.server import Supervisor, WorkerCommand, bind

_SHOW: Final = 0.2  # seconds between two looks at the progress
_AFTER_LOSS: Final = 0.05  # seconds
_LOOK: Final = 30.0  # seconds for the first answer


@dataclass(frozen=True, slots=True)
class Load:
    """The options of ``wintersweet bench``, checked by the command line."""

    method: str = "GET"
    body: str | None = None
    headers: tuple[str, ...] = ()
    seconds: float = 10.0
    at_once: int = 10
    timeout: float = 10.0


@dataclass(slots=True)
class Measured:
    """What came of the requests; latencies in seconds, of answers of any status."""

    latencies: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:  # Any: JSON
        """Return the figures, as they are printed."""
        values = sorted(self.latencies)
        shares = {
            name: percentile(values, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        }
        return {
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "rps": round(len(values) / self.seconds, 1) if self.seconds else 0.0,
            **{f"{name}_ms": round(value * 1000, 3) for name, value in shares.items()},
            "max_ms": round(values[-1] * 1000, 3) if values else 0.0,
            "errors": dict(self.errors.most_common()),
        }


def measure(
    target: str | None, wanted: Load, *, path: str | None, workers: int, remote: bool, as_json: bool
) -> int:
    """Send requests for some time, print what came of them, and return 1 when there was any error."""
    project = use()

    with ExitStack() as stack:
        name = url = None

        if target is not None and _is_url(target):
            url = _route(target, path)

            if not remote and not is_local(url):
                message = f"{urlsplit(url).hostname} is not this machine, and load may be an attack"
                raise UsageError(f"{message}: add --remote if the service is yours")
        else:
            name, _ = load(target, project)
            stack.enter_context(embedded_servers(Path.cwd()))

        with new_runner() as runner:
            url, found = runner.run(_measure(url, name, path or "/", workers, wanted))

    answer = {"url": url, "method": wanted.method, "concurrency": wanted.at_once, **found.summary()}

    if as_json:
        print_json(answer)
    else:
        _print(answer)

    return int(bool(found.errors))


def _is_url(target: str) -> bool:
    """Whether a target is a URL or HOST:PORT, not MODULE:NAME."""
    return "://" in target or re.fullmatch(r"[^:]+:\d+(/.*)?|\[.*", target) is not None


def _route(target: str, path: str | None) -> str:
    """Return the URL of the route."""
    url = base_url(target)
    own = urlsplit(url).path

    if path is None:
        return url if own else f"{url}/"

    if own:
        raise UsageError(f"the URL has the path {own} already: leave --path {path} out")

    return url + _with_slash(path)


def _with_slash(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


async def _measure(
    url: str | None, name: str | None, path: str, workers: int, wanted: Load
) -> tuple[str, Measured]:
    """Send requests to a URL, or to an application that is started for this."""
    headers = dict(_header(line) for line in wanted.headers)

    if name is None:
        assert url is not None
        return url, await _send(url, headers, wanted)

    async with _serving(name, workers) as base:
        url = base + _with_slash(path)
        return url, await _send(url, headers, wanted)

    raise AssertionError  # pragma: no cover - the block swallows nothing


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")

    if not (colon and name.strip()):
        raise ConfigError(f"--header {line!r} is wrong: write 'NAME: VALUE'")

    return name.strip(), value.strip()


@asynccontextmanager
async def _serving(name: str, workers: int) -> AsyncIterator[str]:
    """Serve an application in processes of its own; a line per request would bury the result."""
    with bind("127.0.0.1", 0) as sock:
        say = stderr()

        async with Supervisor(
            WorkerCommand(name, {"timeout_graceful_shutdown": 2}, {"WS_ACCESS_LOG": "off"}),
            sock,
            workers,
            say=lambda line: say.print(line, markup=False),
        ):
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"


async def _send(url: str, headers: dict[str, str], wanted: Load) -> Measured:
    """Keep so many requests under way for some time."""
    found = Measured()

    async with (
        HttpPool(
            limit=wanted.at_once,
            timeout=wanted.timeout,
            retries=0,
            raise_for_status=False,
            breaker_failures=0,
        ) as pool,
        pool.get_client() as http,
    ):
        await _look(http, url)
        began = time.perf_counter()
        until = began + wanted.seconds

        async def caller() -> None:
            await _request(http, url, headers, wanted, found)

            while time.perf_counter() < until:
                await _request(http, url, headers, wanted, found)

        with _progress(wanted) as bar:
            task = bar.add_task("load", total=wanted.seconds, note="")
            callers = [asyncio.create_task(caller()) for _ in range(wanted.at_once)]

            try:
                while any(not one.done() for one in callers):
                    await asyncio.wait(callers, timeout=_SHOW)
                    note = f"{found.requests} requests, {found.errors.total()} errors"
                    bar.update(task, completed=min(wanted.seconds, time.perf_counter() - began), note=note)

                await asyncio.gather(*callers)
            finally:
                for one in callers:
                    one.cancel()

                await asyncio.gather(*callers, return_exceptions=True)

        found.seconds = time.perf_counter() - began

    return found


async def _look(http: HttpClient, url: str) -> None:
    """Find out whether anybody answers at all, without a request that changes something."""
    try:
        await http.head(url, allow_redirects=False, timeout=_LOOK)
    except HttpError as error:
        raise UnavailableError(
            f"nobody answers at {url} ({error}): start the service, or correct the URL"
        ) from error


async def _request(
    http: HttpClient, url: str, headers: dict[str, str], wanted: Load, found: Measured
) -> None:
    """Send one request, and note what came of it."""
    found.requests += 1
    sent = time.perf_counter()

    try:
        # Redirects are answers: where they lead to is not what is measured.
        reply = await http.request(
            wanted.method, url, data=wanted.body, headers=headers, allow_redirects=False
        )
    except HttpTimeout:
        found.errors["timeout"] += 1
    except HttpConnectionError:
        found.errors["connection"] += 1
        await asyncio.sleep(_AFTER_LOSS)  # a service that is away is not asked as fast as it refuses
    except HttpError as error:
        found.errors[type(error).__name__] += 1
    else:
        found.latencies.append(time.perf_counter() - sent)

        if reply.status_code >= 400:
            found.errors[f"status {reply.status_code}"] += 1


def _progress(wanted: Load) -> Progress:
    columns = (
        TextColumn(f"[bold]{wanted.at_once} at once"),
        BarColumn(bar_width=40),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=stderr())


def _print(answer: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    rows = {
        "Requests": f"{answer['requests']} in {answer['seconds']:.1f} s",
        "Answers/s": f"{answer['rps']:.1f}",
        **{name: f"{answer[f'{name}_ms']:.2f} ms" for name in ("p50", "p95", "p99")},
        "Slowest": f"{answer['max_ms']:.2f} ms",
        "Errors": str(sum(answer["errors"].values())),
    }

    for name, value in rows.items():
        table.add_row(name, value)

    for kind, number in answer["errors"].items():
        table.add_row(f"  {kind}", str(number), style="red")

    stdout().print(f"{answer['method']} {answer['url']}, {answer['concurrency']} at once", markup=False)
    stdout().print(table)
