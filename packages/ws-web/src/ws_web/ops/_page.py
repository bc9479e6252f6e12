"""The ops page of one application: what it shows, and what runs for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ws_core.component import Component
from ws_web._observation import Exchange
from ws_web._publishing import Publisher
from ws_web._request_metrics import EventLoopLag
from ws_web.conf import Settings
from ws_web.ops._logs import Logs
from ws_web.ops._routes import Actions, add_ops_routes
from ws_web.ops._state import WorkerState
from ws_web.ops._watchdog import Watchdog


class Ops:
    """The parts of the page."""

    def __init__(
        self,
        publisher: Publisher,
        in_flight: Collection[Exchange],
        components: Mapping[str, Component],
        lag: EventLoopLag,
    ) -> None:
        self._logs = Logs(components)
        self._watchdog = Watchdog()
        self._publisher = publisher
        self._actions = Actions(publisher, self._logs)
        publisher.state = WorkerState(in_flight, components, lag, self._watchdog, self._logs)

    def add_routes(self, app: FastAPI, settings: Settings) -> None:
        """Add the page to an application."""
        add_ops_routes(app, settings, self._publisher, self._actions)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Note what the page shows, for the length of a lifespan."""
        with self._logs.running():
            async with self._watchdog.running():
                yield
