"""``wintersweet routes``: what an application answers to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import fastapi.routing
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
    """Print the routes."""
    name, thing = load(target, use())
    app = thing if isinstance(thing, FastAPI) else thing()

    if not isinstance(app, FastAPI):
        raise ConfigError(f"{name} returns a {type(app).__name__}, not a FastAPI application")

    found = list(lines(app.routes))
    console = stdout()

    if as_json:
        print(json.dumps({"app": name, "routes": [asdict(line) for line in found]}))  # noqa: T201 - the result
        return

    table = Table(title=f"{app.title} · {name}", title_justify="left", box=None, header_style="bold")

    for column in ("Methods", "Path", "Endpoint"):
        table.add_column(column, overflow="fold", no_wrap=True)

    table.add_column("Summary")

    for line in found:
        table.add_row(line.methods, line.path, line.endpoint, line.summary)

    console.print(table)


def lines(routes: Sequence[BaseRoute]) -> Iterator[Line]:
    """Describe routes in the order in which they are matched."""
    # FastAPI resolves included routers late and has a function to look through them; before, it copied
    # their routes, which can be looked at as they are.
    look_through: Callable[[Sequence[BaseRoute]], Iterable[Any]] = (
        getattr(  # Any: either kind has these attributes
            fastapi.routing, "iter_route_contexts", lambda plain: plain
        )
    )

    for route in look_through(routes):
        own = getattr(route, "original_route", route)

        if isinstance(own, Mount):
            yield Line("MOUNT", route.path, type(own.app).__name__, "")
        elif isinstance(own, Route | WebSocketRoute):
            methods = (
                ",".join(sorted(set(route.methods or ()) - {"HEAD"})) if isinstance(own, Route) else "WS"
            )
            yield Line(methods, route.path, _endpoint(route.endpoint), _summary(route.endpoint))


def _endpoint(function: object) -> str:
    # A function that was made inside another one is known by its own name alone.
    name = getattr(function, "__qualname__", type(function).__name__).rpartition("<locals>.")[2]

    return f"{getattr(function, '__module__', '')}.{name}"


def _summary(function: object) -> str:
    text = (getattr(function, "__doc__", None) or "").strip()

    return text.partition("\n")[0]
