"""The components of an application: found by its settings, started in order, closed in reverse."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ws_core.component import ENTRY_POINT_GROUP, KNOWN_SECTIONS, Component, discover
from ws_core.errors import MissingExtraError, WsError
from ws_web._negotiation import get_request_id
from ws_web._trace_context import get_span_id, get_trace_id
from ws_web.conf import Settings

logger = logging.getLogger("ws_web")


def used_sections(settings: Settings) -> dict[str, object]:
    """Return the sections that ask for a component: those that are not empty."""
    published = {entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
    names = [*(name for name in type(settings).model_fields if name != "extra"), *settings.extra]
    served = [name for name in names if name in published or name in KNOWN_SECTIONS]
    values = {name: settings.extra.get(name, getattr(settings, name, None)) for name in served}
    return {name: value for name, value in values.items() if value}


def prepare(settings: Settings) -> dict[str, Component]:
    """Build and configure the components that the settings ask for. No side effects."""
    sections = used_sections(settings)
    found: dict[str, Component] = {}

    # Logging first, as far as its own needs allow: what the others say while they start and close is heard.
    for component in sorted(
        discover(sections), key=lambda c: c.settings_key != "LOGGING_CONFIG" or bool(c.after)
    ):
        found[component.settings_key] = component

    for name in sections:
        if name not in found:
            raise MissingExtraError.for_extra(name, KNOWN_SECTIONS[name])

    for name, component in found.items():
        component.configure(sections[name])
        tell = getattr(component, "add_context", None)

        if callable(tell):  # a logging component: every line carries the ids of the request
            tell("request_id", get_request_id)
            tell("trace_id", get_trace_id)
            tell("span_id", get_span_id)

    return found


@asynccontextmanager
async def running(components: Sequence[Component]) -> AsyncIterator[None]:
    """
    Start components in order, and close those that were started in reverse.

    When one fails to start, or the start is cancelled, the earlier ones are closed and the error
    goes on. A component that fails to close is logged and does not keep the others from closing.
    """
    started: list[Component] = []

    try:
        for component in components:
            await component.start()
            started.append(component)

        yield
    finally:
        for component in reversed(started):
            await _close(component)


def manager_of(component: Any) -> Any:  # Any: components are of any type
    """Return what hands out clients: a component's manager of pools, or the component itself."""
    return getattr(component, "manager", component)


async def _close(component: Component) -> None:
    try:
        await component.close()
    except WsError as error:
        logger.error("component %s did not close: %s", component.name, error)  # noqa: TRY400 - the message says it
    except Exception:
        logger.exception("component %s did not close", component.name)
