"""Health for orchestrators: ``/livez``, ``/readyz`` and ``/startupz``.

Alive means that the process answers at all; it never looks at anything outside, because a
restart heals no database. Ready means that every component can work. Started means that the
start-up has been finished once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.requests import Request

from ws_core.component import Component, Health
from ws_web.response import Response

__all__ = ("HealthMonitor", "add_health_routes")


@dataclass(frozen=True, slots=True)
class Readiness:
    """
    The result of one round of checks.

    Args:
        ok: Whether every component can work.
        parts: The health of each component by name.
        checked_at: The monitor's clock when the round ended.
    """

    ok: bool
    parts: Mapping[str, Health] = field(default_factory=dict)
    checked_at: float = 0.0


class HealthMonitor:
    """
    Ask all components at once, each within a time limit, and remember the answer for a while.

    However many probes arrive, one round of checks runs at a time.

    Args:
        cache: Seconds for which an answer is used again.
        timeout: Seconds for which one component may take to answer; then it counts as ill.
        clock: Returns monotonic seconds.

    Example:
        ```python
        from ws_web.health import HealthMonitor

        monitor = HealthMonitor(cache=1.0, timeout=2.0)
        assert not monitor.started
        monitor.mark_started([])
        assert (await monitor.readiness()).ok
        ```
    """

    def __init__(
        self, *, cache: float = 1.0, timeout: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cache = cache
        self._timeout = timeout
        self._clock = clock
        self._components: tuple[Component, ...] = ()
        self._last: Readiness | None = None
        self._lock = asyncio.Lock()
        self.started: bool = False
        self.draining: bool = False

    def mark_started(self, components: Iterable[Component]) -> None:
        """Begin to report: the start-up is finished, and these are to be watched."""
        self._components = tuple(components)
        self._last = None
        self._lock = asyncio.Lock()  # a new lifespan may run on a new loop
        self.started = True
        self.draining = False

    def mark_stopped(self) -> None:
        """Report not ready from now on: the application is being closed."""
        self.draining = True
        self._components = ()
        self._last = None

    async def readiness(self) -> Readiness:
        """Return whether work can be done: a remembered answer, or that of a new round."""
        if not self.started or self.draining:
            return Readiness(ok=False)

        async with self._lock:
            last = self._last

            if last is None or self._clock() - last.checked_at >= self._cache:
                last = self._last = await self._check()

            return last

    async def _check(self) -> Readiness:
        components = self._components
        answers = await asyncio.gather(*(self._ask(component) for component in components))
        parts = {component.name: answer for component, answer in zip(components, answers, strict=True)}
        return Readiness(all(answer.ok for answer in answers), parts, self._clock())

    async def _ask(self, component: Component) -> Health:
        began = self._clock()

        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await component.health()
        except Exception as error:  # noqa: BLE001 - an ill component is an answer, not a failure of the probe
            late = f"no answer within {self._timeout:g} s"
            detail = late if limit.expired() else type(error).__name__
            return Health(ok=False, detail=detail, latency=self._clock() - began)


def add_health_routes(app: FastAPI, monitor: HealthMonitor) -> None:
    """
    Add the three routes to an application; they are not part of its OpenAPI.

    Args:
        app: The application. With its ``debug`` on, replies name each component's health.
        monitor: Answers them.
    """

    async def livez(request: Request) -> Response:
        _keep_quiet(request)
        return Response({"status": "alive"})

    async def startupz(request: Request) -> Response:
        _keep_quiet(request)
        return Response({"status": "started"}) if monitor.started else _ill("starting")

    async def readyz(request: Request) -> Response:
        _keep_quiet(request)
        readiness = await monitor.readiness()
        details = {name: _show(health) for name, health in readiness.parts.items()} if app.debug else None

        if readiness.ok:
            return Response({"status": "ready"}, extra=details)

        return _ill("draining" if monitor.draining else "not ready", details)

    for path, endpoint in (("/livez", livez), ("/readyz", readyz), ("/startupz", startupz)):
        app.add_route(path, endpoint, methods=["GET"], include_in_schema=False)


def _keep_quiet(request: Request) -> None:
    """Leave a probe out of the access log."""
    request.scope["ws_web.quiet"] = True


def _ill(status: str, details: object = None) -> Response:
    return Response({"status": status}, 503, 503, details)


def _show(health: Health) -> dict[str, object]:
    parts = {name: _show(part) for name, part in health.parts.items()}
    return {"ok": health.ok, "detail": health.detail, "latency": health.latency, "parts": parts}
