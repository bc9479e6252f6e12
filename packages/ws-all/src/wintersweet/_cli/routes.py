"""``wintersweet routes``: what an application answers to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import fastapi.routing
from rich.console import Console
from rich.table import Table
from rich.text import Text
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from wintersweet._cli.application import build
from wintersweet._cli.output import add_row, new_table, print_json, stdout

_FRAMEWORK = ("fastapi.", "starlette.", "ws_web.")
_WIDE = 120
"""Columns from which the endpoint and what it is for stand beside each other."""


@dataclass(frozen=True, slots=True)
class Line:
    """One route: its methods, path, the function behind it, and what it is for."""

    methods: str
    path: str
    endpoint: str
    summary: str


def show(target: str | None, *, as_json: bool = False) -> None:
    """Print the routes."""
    name, app = build(target)
    found = list(lines(app.routes))

    if as_json:
        print_json({"app": name, "routes": [asdict(line) for line in found]})
        return

    console = stdout()
    console.print(_table(f"{app.title} · {name}", found, console))


def _table(title: str, found: Sequence[Line], console: Console) -> Table:
    """Return the routes as a table: the user's own first, each kind in the order of matching."""
    is_wide = console.width >= _WIDE
    table = new_table(title, "Methods", "Path", "Endpoint", *(["Summary"] if is_wide else []))
    table.columns[0].no_wrap = True

    for line in sorted(found, key=lambda line: line.endpoint.startswith(_FRAMEWORK)):
        style = "dim" if line.endpoint.startswith(_FRAMEWORK) else ""
        below = Text.assemble(line.endpoint, *([("\n" + line.summary, "dim")] if line.summary else []))
        cells = (line.endpoint, line.summary) if is_wide else (below,)
        add_row(table, line.methods, line.path, *cells, style=style)

    return table


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
    while isinstance(function, functools.partial) and not hasattr(function, "__qualname__"):
        function = function.func

    # A function that was made inside another one is known by its own name alone.
    name = getattr(function, "__qualname__", type(function).__name__).rpartition("<locals>.")[2]

    return f"{getattr(function, '__module__', '')}.{name}"


def _summary(function: object) -> str:
    text = (getattr(function, "__doc__", None) or "").strip()

    return text.partition("\n")[0]
