"""The seam between libraries and the application: the `Component` protocol.

A component is what an application starts, watches and closes: a set of pools, the logging
set-up, a scheduler. A distribution publishes its components under the entry-point group
``wintersweet.components``; the application layer starts those whose settings section is not
empty. This module knows no library by import, only by the names in `KNOWN_SECTIONS`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ws_core.errors import ConfigError

__all__ = ("ENTRY_POINT_GROUP", "KNOWN_SECTIONS", "Component", "Health", "discover", "start_order")

ENTRY_POINT_GROUP = "wintersweet.components"

KNOWN_SECTIONS: Mapping[str, str] = {
    "LOGGING_CONFIG": "ws-logging",
    "DATABASES": "ws-pool[mysql]",
    "REDIS_CONFIG": "ws-pool[redis]",
    "MONGO_CONFIG": "ws-pool[mongo]",
    "ES_CONFIG": "ws-pool[es]",
    "HTTP_CONFIG": "ws-pool[http]",
}
"""Settings sections of wintersweet's own libraries, with what provides each."""


@dataclass(frozen=True, slots=True)
class Health:
    """
    The answer of one health check.

    Args:
        ok: Whether the component can do its work.
        detail: One line for people; empty when there is nothing to say. Holds no secrets.
        latency: Seconds that the check took, or None when nothing was measured.
        parts: The health of named parts, such as each pool of a manager.

    Example:
        >>> Health(ok=True, parts={"default": Health(ok=True, latency=0.002)}).ok
        True
    """

    ok: bool
    detail: str = ""
    latency: float | None = None
    parts: Mapping[str, Health] = field(default_factory=dict)


@runtime_checkable
class Component(Protocol):
    """
    What an application starts, watches and closes.

    ``after`` names the components that must be started earlier (and are closed later) when
    they are in use; names that are not in use are ignored.
    """

    name: str
    settings_key: str
    after: Collection[str]

    def configure(self, section: object) -> None:
        """Check and take the settings section; raise `ConfigError` without any side effect."""

    async def start(self) -> None:
        """Start; on an error nothing may be left behind."""

    async def close(self) -> None:
        """Close; may be called again, and after a failed start."""

    async def health(self) -> Health:
        """Check that the work can be done now."""
        ...

    def status(self) -> Mapping[str, object]:
        """Return plain numbers and strings for metrics and the ops page, without I/O."""
        ...


def discover(sections: Collection[str] | None = None) -> list[Component]:
    """
    Load the components that installed distributions publish.

    Each entry point names a callable without arguments that returns a new component. An entry
    point is loaded only when asked for; its entry-point name is the settings key it serves, so
    nothing that is not needed is imported.

    Args:
        sections: The settings keys in use, or None for all that is installed.

    Returns:
        New components, in the order in which they must be started.

    Raises:
        ConfigError: Two distributions serve the same settings key, or an entry point is broken.
    """
    wanted = None if sections is None else set(sections)
    found: dict[str, Component] = {}

    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if wanted is not None and entry.name not in wanted:
            continue

        if entry.name in found:
            message = f"two installed distributions serve the setting {entry.name}: remove one of them"
            raise ConfigError(message, setting=entry.name)

        factory: Callable[[], Component] = entry.load()
        found[entry.name] = factory()

    return start_order(found.values())


def start_order(components: Iterable[Component]) -> list[Component]:
    """
    Put components in the order in which they must be started.

    Args:
        components: Components with distinct names; each ``after`` names earlier ones.

    Returns:
        The same components, each behind all it names; otherwise in the given order.

    Raises:
        ConfigError: The names of ``after`` form a circle.
    """
    waiting = {component.name: component for component in components}
    ordered: list[Component] = []

    while waiting:
        free = [c for c in waiting.values() if not any(other in waiting for other in c.after)]

        if not free:
            circle = ", ".join(sorted(waiting))
            message = f"components wait for each other in a circle: {circle}"
            raise ConfigError(message, components=tuple(sorted(waiting)))

        ordered.extend(free)

        for component in free:
            del waiting[component.name]

    return ordered
