"""The routes of the ops page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache, wraps
from importlib import resources
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from ws_core import inspection
from ws_core.metrics import Sample
from ws_web._json import dump
from ws_web._publishing import Publisher
from ws_web.conf import Settings
from ws_web.ops._access import has_token, may_act, may_read, why_not_act
from ws_web.ops._logs import LEVELS, Logs
from ws_web.ops._state import shown_settings

# Any below: JSON values.

_EVERY: Final = 1.0  # seconds between two events
_LONGEST: Final = 200  # characters of a name in an action
_FILES: Final = {
    "page.html": "text/html; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "uplot.js": "text/javascript; charset=utf-8",
    "uplot.css": "text/css; charset=utf-8",
}
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self';"
        " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

Endpoint = Callable[[Request], Awaitable[Response]]


class Actions:
    """What can be done from the page: in this worker, and, by notes, in all of them."""

    def __init__(self, publisher: Publisher, logs: Logs) -> None:
        self._publisher = publisher
        self._logs = logs
        self._known: dict[str, str] = {}
        publisher.on_tick.append(self.follow)

    def set_level(self, module: str, level: str) -> None:
        """Change a log level in every worker, within a second."""
        self._logs.set_level(module, level)

        if (group := self._publisher.group) is not None:
            notes = group.receive("levels") or {}
            group.send("levels", {**notes, module: level})

    def run(self, name: str) -> bool:
        """Run a task now, in this worker; return whether there is one of this name."""
        return any(
            isinstance(item, inspection.Actor) and item.act("run", name)
            for item in inspection.published("tasks")
        )

    def follow(self) -> None:
        """Do what another worker was asked to do."""
        group = self._publisher.group
        notes: dict[str, str] = (group.receive("levels") if group is not None else None) or {}

        for module, level in notes.items():
            if self._known.get(module) != level:
                self._known[module] = level
                self._logs.set_level(module, level)


def add_ops_routes(app: FastAPI, settings: Settings, publisher: Publisher, actions: Actions) -> None:
    """
    Add the page and what it reads to an application; they are not part of its OpenAPI.

    Args:
        app: The application.
        settings: Its settings: OPS_TOKEN, and those that are shown.
        publisher: Reads what all workers are doing.
        actions: What can be done.
    """
    routes = _Routes(settings, publisher, actions)
    declared: list[tuple[str, str, Endpoint]] = [
        ("GET", "/_ops", _page),
        ("GET", "/_ops/state", routes.state),
        ("GET", "/_ops/events", routes.events),
        ("GET", "/_ops/settings", routes.settings),
        ("POST", "/_ops/level", routes.level),
        ("POST", "/_ops/run", routes.run),
        ("GET", "/_ops/{name}", _file),
    ]

    for method, path, endpoint in declared:
        refuse = None if endpoint in (_page, _file) else routes.refuse_to_read
        refuse = routes.refuse_to_act if method == "POST" else refuse
        app.add_route(path, _served(endpoint, refuse), methods=[method], include_in_schema=False)


def _served(endpoint: Endpoint, refuse: Callable[[Request], Response | None] | None) -> Endpoint:
    """Return an endpoint that is kept out of the access log, and out of caches and other sites' frames."""

    @wraps(endpoint)
    async def serve(request: Request) -> Response:
        request.scope["ws_web.quiet"] = True
        response = None if refuse is None else refuse(request)

        if response is None:
            try:
                response = await endpoint(request)
            except _BadBody as error:
                response = JSONResponse({"error": str(error)}, 422)

        response.headers.update(_HEADERS)
        return response

    return serve


class _BadBody(Exception):
    """The client has sent something else than is wanted."""


class _Routes:
    """What needs to be allowed."""

    def __init__(self, settings: Settings, publisher: Publisher, actions: Actions) -> None:
        self._token = settings.OPS_TOKEN.get_secret_value()
        self._settings = settings
        self._publisher = publisher
        self._actions = actions

    def refuse_to_read(self, request: Request) -> Response | None:
        """Return the refusal of a request that may not read."""
        if may_read(request, self._token):
            return None

        return JSONResponse({"error": "the token is missing or wrong"}, 401, {"www-authenticate": "Bearer"})

    def refuse_to_act(self, request: Request) -> Response | None:
        """Return the refusal of a request that may not act."""
        if may_act(request, self._token):
            return None

        return JSONResponse({"error": why_not_act(self._token)}, 403)

    async def state(self, request: Request) -> Response:
        """Return the state of all workers."""
        return _json(await _state(self._publisher, acts=has_token(request, self._token)))

    async def settings(self, _: Request) -> Response:
        """Return the settings."""
        return _json(shown_settings(self._settings))

    async def events(self, request: Request) -> Response:
        """Return the state of all workers once a second."""
        acts = has_token(request, self._token)
        return StreamingResponse(_events(self._publisher, acts=acts), media_type="text/event-stream")

    async def level(self, request: Request) -> Response:
        """Change a log level."""
        module, chosen = await _texts(request, "module", "level")

        if chosen not in LEVELS:
            raise _BadBody(f"level must be one of {', '.join(LEVELS)}")

        self._actions.set_level(module, chosen)
        return JSONResponse({"ok": True})

    async def run(self, request: Request) -> Response:
        """Run a task now."""
        (name,) = await _texts(request, "name")

        if not self._actions.run(name):
            return JSONResponse({"error": "this worker has no task of this name: try again"}, 404)

        return JSONResponse({"ok": True})


async def _page(_: Request) -> Response:
    return RedirectResponse("_ops/page.html", 307)


async def _file(request: Request) -> Response:
    name = request.path_params["name"]

    if name not in _FILES:
        return JSONResponse({"error": "there is no such file"}, 404)

    return Response(_read(name), media_type=_FILES[name])


async def _texts(request: Request, *names: str) -> list[str]:
    """Return short texts of a JSON object; anything else is refused."""
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise _BadBody(str(error)) from None

    if not isinstance(given, dict) or not all(isinstance(given.get(name), str) for name in names):
        raise _BadBody(f"send a JSON object with the texts {', '.join(names)}")

    if any(len(given[name]) > _LONGEST or not given[name].isprintable() for name in names):
        raise _BadBody(f"a text has at most {_LONGEST} printable characters")

    return [given[name] for name in names]


def _json(value: object) -> Response:
    """Return a reply whose numbers may be NaN, which JSON does not have."""
    return Response(dump(value), media_type="application/json")


async def _state(publisher: Publisher, *, acts: bool) -> dict[str, Any]:
    samples, workers = await publisher.read()
    states = [worker["state"] for worker in workers if worker["state"]]
    return {"acts": acts, "workers": states, "metrics": [_row(sample) for sample in samples]}


def _row(sample: Sample) -> dict[str, Any]:
    return {
        "name": sample.metric.name,
        "kind": sample.metric.kind,
        "value": sample.value,
        "count": sample.count,
        "labels": dict(sample.attributes),
        "edges": sample.metric.buckets,
        "buckets": sample.buckets,
    }


async def _events(publisher: Publisher, *, acts: bool) -> AsyncIterator[str]:
    """Send the state as Server-Sent Events until the reader goes."""
    while True:
        yield f"data: {dump(await _state(publisher, acts=acts)).decode()}\n\n"
        await asyncio.sleep(_EVERY)


@lru_cache
def _read(name: str) -> bytes:
    return (resources.files("ws_web.ops") / "static" / name).read_bytes()
