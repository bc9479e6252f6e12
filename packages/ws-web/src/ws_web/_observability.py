"""What an application shows of itself, as its settings say: access log, metrics, traces, ops page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from starlette.middleware import Middleware

from ws_core import inspection
from ws_core.component import Component
from ws_core.errors import MissingExtraError, describe
from ws_core.metrics import register, unregister
from ws_web._access_log import AccessLog
from ws_web._observation import Observation
from ws_web._publishing import Publisher
from ws_web._request_metrics import EventLoopLag, RequestMetrics
from ws_web.conf import Settings
from ws_web.conf import settings as current_settings
from ws_web.errors import SettingsError
from ws_web.middlewares import get_request_id

if TYPE_CHECKING:
    from ws_web.ops._page import Ops


_GROUP: Final = "wintersweet.otel"
"""Entry points: functions that begin, and return what ends it: a function, or an object with ``close``."""


class Observability:
    """The parts that observe one application."""

    def __init__(self, settings: Settings, components: Mapping[str, Component]) -> None:
        self.observation = Observation()
        self.publisher = Publisher()
        self._settings = settings
        self._access_log = (
            None
            if settings.ACCESS_LOG == "off"
            else AccessLog(settings.ACCESS_LOG, behind_proxies=bool(settings.TRUSTED_PROXIES))
        )
        self._measures: tuple[EventLoopLag, RequestMetrics] | None = None
        self._ops: Ops | None = None

        if self._access_log is not None:
            self.observation.ends.append(self._access_log)

        if settings.METRICS or settings.OPS:
            lag, requests = self._measures = (EventLoopLag(), RequestMetrics(self.observation))

            if settings.OPS:
                from ws_web.ops._page import Ops  # noqa: PLC0415 - needed only where it is on

                self._ops = Ops(self.publisher, requests.in_flight, components, lag)

    def add_routes(self, app: FastAPI) -> None:
        """Add the routes that the settings ask for; a missing library is an error."""
        if self._settings.METRICS:
            from ws_web.metrics import add_metrics_route  # noqa: PLC0415 - an extra

            token = self._settings.METRICS_TOKEN.get_secret_value()
            add_metrics_route(app, self.publisher.samples, token=token)

        if self._ops is not None:
            self._ops.add_routes(app, self._settings)

    def server_spans(self) -> list[Middleware]:
        """Return the middleware that makes a span for each request, unless FastAPI does."""
        if not self._settings.OTEL:
            return []

        import ws_core.otel  # noqa: PLC0415, F401 - an extra: it says what to install
        from ws_web import _server_span  # noqa: PLC0415 - the same

        if not _server_span.is_needed():
            return []

        self.observation.ends.append(_server_span.describe)
        return [Middleware(_server_span.ServerSpanMiddleware)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Observe for the length of a lifespan, inside of that of the components."""
        async with AsyncExitStack() as stack:
            if self._access_log is not None:
                stack.enter_context(self._access_log.running(_has_access_log))

            if self._settings.OTEL:
                stack.enter_context(instrumented())

            if self._measures is not None:
                inspection.watch()

                for source in self._measures:
                    register(source)
                    stack.callback(unregister, source)

                await stack.enter_async_context(self._measures[0].running())

                if self._ops is not None:
                    await stack.enter_async_context(self._ops.running())

                await stack.enter_async_context(self.publisher.running())

            yield


@contextmanager
def instrumented() -> Iterator[None]:
    """Report the operations and numbers of every library for the length of a block."""
    from ws_core.otel import observe  # noqa: PLC0415 - an extra

    with ExitStack() as stack:
        stack.callback(observe().close)

        for entry in sorted(metadata.entry_points(group=_GROUP), key=lambda entry: entry.name):
            try:
                begun = entry.load()()
                stack.callback(getattr(begun, "close", begun))
            except MissingExtraError:
                raise
            except Exception as error:
                message = f"OTEL: {entry.value} cannot be started: {describe(error, with_type=True)}"
                raise SettingsError(message) from error

        yield


def _has_access_log() -> bool:
    """Return whether the present request is one of an application of ours that has an access log."""
    return get_request_id() != "" and current_settings.current.ACCESS_LOG != "off"
