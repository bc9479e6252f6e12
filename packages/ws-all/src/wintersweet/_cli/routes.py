"""``wintersweet routes``: what an application answers to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from fastapi import FastAPI
from rich.table import Table
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from wintersweet._cli.output import stdout
from wintersweet._cli.project import load, use
from ws_core.errors import ConfigError

__all__ = ("Line", "lines", "show")


@dataclass(frozen=True, slots=True)
class Line:
    """One route: its methods, path, the function behind it, and what it is for."""

    methods: str
    path: str
    endpoint: str
    summary: str


def show(target: str | None, *, as_json: bool = False) -> None:
    """
    Print the routes.

    Args:
        target: The application as ``module:name``, or None for the project's.
        as_json: JSON instead of a table.

    Raises:
        ConfigError: There is no such application.
    """
    name, thing = load(target, use())
    app = thing if isinstance(thing, FastAPI) else thing()

    if not isinstance(app, FastAPI):
        raise ConfigError(f"{name} gives a {type(app).__name__}, not a FastAPI application")

    found = list(lines(app.routes))
    console = stdout()

    if as_json:
        print(json.dumps({"app": name, "routes": [asdict(line) for line in found]}))  # noqa: T201 - the result
        return

    table = Table(title=f"{app.title} · {name}", title_justify="left", box=None, header_style="bold")

    for column in ("Methods", "Path", "Endpoint", "Summary"):
        table.add_column(column, overflow="fold")

    for line in found:
        table.add_row(line.methods, line.path, line.endpoint, line.summary)

    console.print(table)


def lines(routes: list[BaseRoute], prefix: str = "") -> Iterator[Line]:
    """
    Describe routes in the order in which they are matched.

    Args:
        routes: Routes of an application, router or mount.
        prefix: Path in front of them.
    """
    for route in routes:
        if isinstance(route, Route):
            methods = ",".join(sorted(set(route.methods or ()) - {"HEAD"}))
            yield Line(methods, prefix + route.path, _endpoint(route.endpoint), _summary(route.endpoint))
        elif isinstance(route, WebSocketRoute):
            yield Line("WS", prefix + route.path, _endpoint(route.endpoint), _summary(route.endpoint))
        elif isinstance(route, Mount):
            yield Line("MOUNT", prefix + route.path, type(route.app).__name__, "")
            yield from lines(list(route.routes), prefix + route.path)


def _endpoint(function: object) -> str:
    name = getattr(function, "__qualname__", type(function).__name__).replace("<locals>.", "")

    return f"{getattr(function, '__module__', '')}.{name}"


def _summary(function: object) -> str:
    text = (getattr(function, "__doc__", None) or "").strip()

    return text.partition("\n")[0]
