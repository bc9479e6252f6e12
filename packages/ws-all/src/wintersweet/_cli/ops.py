"""``wintersweet ops``: what the ops page of a running service shows, at the terminal."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wintersweet._cli.event_loop import new_runner
from wintersweet._cli.output import add_row, new_table, print_json, stdout
from wintersweet._cli.project import use
from wintersweet._cli.service import base_url, url_of_settings
from ws_core.errors import ConfigError, UnavailableError, WsError
from ws_pool.http import HttpError, HttpPool
from ws_web import Settings

# Any below: JSON of the service.

_TIMEOUT: Final = 10.0
_OPS: Final = "/_ops"
_POOL: Final = "db.client.connection."
_HTTP_POOL: Final = "wintersweet.http.client.name"

State = Mapping[str, Any]


def show_ops(url: str | None, *, token: str | None, watch: float | None, as_json: bool) -> int:
    """Print what a service is doing, once or until Ctrl-C; return 1 when it is not ready."""
    use()
    settings = Settings()
    found = url_of_settings(settings) if url is None else base_url(url, _OPS)
    secret = settings.OPS_TOKEN.get_secret_value() if token is None else token

    with new_runner() as runner:
        state = runner.run(_read(found, secret))

        if watch is None:
            _print(state, as_json=as_json)
        elif as_json or not stdout().is_terminal:
            runner.run(_follow(state, secret, watch, as_json=as_json))
        else:
            runner.run(_refresh(state, secret, watch))

    return int(state["status"] != "ready")


async def _read(url: str, token: str) -> State:
    """Query a service for its state and its readiness."""
    headers = {"authorization": f"Bearer {token}"} if token else {}

    async with (
        HttpPool(base_url=url, timeout=_TIMEOUT, retries=0, raise_for_status=False) as pool,
        pool.get_client() as http,
    ):
        try:
            # Redirects are not followed: the token is for this service.
            reply = await http.get(f"{_OPS}/state", headers=headers, allow_redirects=False)
            probe = await http.get("/readyz", allow_redirects=False)
        except HttpError as error:
            message = f"no service answers at {url} ({error}): start it, or name its URL"
            raise UnavailableError(message, url=url) from error

    if reply.status_code == 401:
        how = "the token is wrong" if token else "a token is needed"
        raise ConfigError(f"{url} refuses, {how}: use --token, or its OPS_TOKEN (WS_OPS_TOKEN=…)", url=url)

    if reply.status_code == 404:
        raise UnavailableError(f"the service at {url} has no ops page: set OPS = True (WS_OPS=true)", url=url)

    state = _parse(reply.content)

    if not isinstance(state.get("workers"), list):
        message = f"{url}{_OPS}/state is not that of a service on wintersweet (status {reply.status_code})"
        raise UnavailableError(f"{message}: correct the URL", url=url)

    status = (_parse(probe.content).get("data") or {}).get("status", f"unknown (status {probe.status_code})")
    return {"url": url, "status": status, **state}


def _parse(content: bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one in place of anything else."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}

    return found if isinstance(found, dict) else {}


async def _follow(state: State, token: str, seconds: float, *, as_json: bool) -> None:
    """Print one state after the other, for a file or another program."""
    while True:
        _print(state, as_json=as_json)
        await asyncio.sleep(seconds)
        state = await _read_or_report(state, token)


async def _refresh(state: State, token: str, seconds: float) -> None:
    """Show the newest state in the place of the one before."""
    with Live(render(state), console=stdout(), screen=True, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(seconds)
            state = await _read_or_report(state, token)
            live.update(render(state), refresh=True)


async def _read_or_report(last: State, token: str) -> State:
    """Read the state again; a service that is restarted is shown as what it is."""
    try:
        return await _read(last["url"], token)
    except WsError as error:
        return {"url": last["url"], "status": str(error), "workers": [], "metrics": []}


def _print(state: State, *, as_json: bool) -> None:
    if as_json:
        print_json(state)
    else:
        stdout().print(render(state))


def render(state: State) -> RenderableType:
    """Return the tables of a state."""
    good = state["status"] == "ready"
    workers = state["workers"]
    count = f"{len(workers)} worker{'' if len(workers) == 1 else 's'}"
    head = Text.assemble((f"{'✓' if good else '✗'} {state['status']}", "green" if good else "red"))
    head.append(f"  {state['url']}, {count}")
    tables = [_workers(workers), _pools(state), _down(workers), _tasks(workers), _locks(workers)]
    return Group(head, *(part for table in tables if table.row_count for part in (Text(), table)))


def _workers(workers: Iterable[State]) -> Table:
    table = new_table("Workers", "Process", "Python", "#Up", "#Loop lag", "#Requests", "Oldest request")

    for worker in workers:
        requests = worker.get("requests") or []
        oldest = max(requests, key=lambda request: request["age"], default=None)
        up = max(0.0, time.time() - worker["started_at"])
        lag = f"{worker['lag'] * 1000:.1f} ms"
        shown = oldest and f"{oldest['method']} {oldest['route']} {oldest['age']:.3f} s"
        add_row(table, worker["pid"], worker["python"], _span(up), lag, len(requests), shown)

    return table


def _pools(state: State) -> Table:
    """Show the connections of all workers, by pool, from their metrics."""
    table = new_table("Pools", "Pool", "#In use", "#Idle", "#Most", "#Waiting", "#Timeouts")
    pools: dict[str, dict[str, Any]] = {}

    for metric in state["metrics"]:
        labels = metric["labels"]

        if _HTTP_POOL in labels:
            name, where = f"http {labels[_HTTP_POOL]}", labels.get("http.connection.state", "")
        elif metric["name"].startswith(_POOL):
            name = f"{labels.get('db.system.name', '')} {labels.get(f'{_POOL}pool.name', '')}"
            where = labels.get(f"{_POOL}state", "")
        else:
            continue

        pools.setdefault(name, {})[f"{metric['name'].removeprefix(_POOL)} {where}".strip()] = metric["value"]

    for name, found in sorted(pools.items()):
        add_row(
            table,
            name,
            found.get("count used", found.get("http.client.open_connections active")),
            found.get("count idle", found.get("http.client.open_connections idle")),
            found.get("max"),
            found.get("pending_requests"),
            found.get("timeouts", found.get("wintersweet.http.client.failures")),
        )

    return table


def _down(workers: Iterable[State]) -> Table:
    """Show what cannot be reached, as each worker sees it."""
    table = new_table("Not reached", "Pool", "Process", "Why")

    for worker in workers:
        for section, pools in worker["components"].items():
            for name, pool in pools.items() if isinstance(pools, dict) else ():
                if isinstance(pool, dict) and pool.get("down"):
                    add_row(table, f"{section}.{name}", worker["pid"], pool["down"])

    return table


def _tasks(workers: Iterable[State]) -> Table:
    """Show tasks and jobs, those of all workers together."""
    table = new_table("Tasks", "Task", "State", "Next run", "#Running", "#Succeeded", "#Failed", "Last error")
    tasks: dict[str, dict[str, Any]] = {}

    for worker in workers:
        for row in (*worker["tasks"], *worker["jobs"]):
            found = tasks.setdefault(row["name"], {"running": 0, "succeeded": 0, "failed": 0})

            for figure in ("running", "succeeded", "failed"):
                found[figure] += row.get(figure) or 0

            for text in ("state", "next_run", "last_error"):
                found[text] = row.get(text) or found.get(text)

            found["dead"] = row.get("dead")

    for name, row in sorted(tasks.items()):
        state = f"{row['state'] or ''}, {row['dead']} dead" if row["dead"] is not None else row["state"]
        counts = (row["running"], row["succeeded"], row["failed"])
        add_row(table, name, state, _moment(row["next_run"]), *counts, row["last_error"])

    return table


def _locks(workers: Iterable[State]) -> Table:
    table = new_table("Locks that are held", "Lock", "Process", "#Held for")

    for worker in workers:
        for row in worker["locks"]:
            add_row(table, row["name"], worker["pid"], f"{row['seconds']:.3f} s")

    return table


def _moment(text: str | None) -> str:
    """Return a time of today as a clock on the wall shows it, any other with its date."""
    if text is None:
        return ""

    moment = datetime.fromisoformat(text).astimezone()
    today = datetime.now(moment.tzinfo).date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%Y-%m-%d %H:%M}"


def _span(seconds: float) -> str:
    """
    Return a span of time, to be read at a glance.

    Example:
        >>> [_span(s) for s in (5, 65, 3700, 90000)]
        ['5 s', '1 min 5 s', '1 h 1 min', '1 d 1 h']
    """
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    rest, parts = int(seconds), []

    for name, size in units:
        number, rest = divmod(rest, size)
        parts.append((number, name))

    first = next((at for at, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {name}" for number, name in parts[first : first + 2])
