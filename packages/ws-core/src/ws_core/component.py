"""The seam between libraries and the application: the `Component` protocol.

A component is what an application starts, watches and closes: a set of pools, the logging
set-up, a scheduler. A distribution publishes its components under the entry-point group
``wintersweet.components``, each under the settings key it serves::

    [project.entry-points."wintersweet.components"]
    REDIS_CONFIG = "ws_pool._components:redis"

The application layer starts those whose settings section is not empty. This module knows no
library by import, only by the names in `KNOWN_SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ws_core.errors import ConfigError, MissingExtraError, WsError, describe

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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

    @classmethod
    def combine(cls, parts: Mapping[str, Health]) -> Health:
        """
        Build the health of a whole, which is as well as its least part.

        Args:
            parts: The health of the parts by name.

        Returns:
            A health whose detail names the parts that are not well, and whose latency is the longest.

        Example:
            >>> Health.combine({"a": Health(ok=True), "b": Health(ok=False, detail="refused")}).detail
            'b: refused'
        """
        ill = [f"{name}: {part.detail or 'not well'}" for name, part in parts.items() if not part.ok]
        latencies = [part.latency for part in parts.values() if part.latency is not None]
        return cls(
            ok=not ill,
            detail="; ".join(ill),
            latency=max(latencies, default=None),
            parts=dict(parts),
        )

    def as_dict(self) -> dict[str, object]:
        """
        Return plain values, for JSON; what is empty is left out.

        Example:
            >>> Health.combine({"default": Health(ok=True, latency=0.002)}).as_dict()
            {'ok': True, 'latency': 0.002, 'parts': {'default': {'ok': True, 'latency': 0.002}}}
        """
        plain: dict[str, object] = {"ok": self.ok}

        if self.detail:
            plain["detail"] = self.detail

        if self.latency is not None:
            plain["latency"] = self.latency

        if self.parts:
            plain["parts"] = {name: part.as_dict() for name, part in self.parts.items()}

        return plain


@runtime_checkable
class Component(Protocol):
    """
    What an application starts, watches and closes.

    ``after`` names the components that must be started earlier (and are closed later) when
    they are in use; names that are not in use are ignored.

    Example:
        ```python
        from ws_core import ConfigError, Health

        class Ticker:
            name = "ticker"
            settings_key = "TICKER"
            after = ("sql",)

            def configure(self, section):
                if not isinstance(section, dict):
                    raise ConfigError("TICKER must be a mapping", setting="TICKER")

            async def start(self): ...
            async def close(self): ...
            async def health(self):
                return Health(ok=True)

            def status(self):
                return {"ticks": 0}

        from ws_core import Component
        assert isinstance(Ticker(), Component)
        ```
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
    point is loaded only when asked for, so nothing that is not needed is imported.

    Args:
        sections: The settings keys in use, or None for all that is installed. Keys that nobody
            serves are ignored, save those of `KNOWN_SECTIONS`.

    Returns:
        New components, in the order in which they must be started.

    Raises:
        MissingExtraError: A key of `KNOWN_SECTIONS` is in use, and what serves it is not installed.
        ConfigError: Two distributions serve the same settings key, an entry point is broken, or the
            order of starting is contradictory.

    Example:
        >>> discover([])
        []
    """
    from importlib import metadata  # noqa: PLC0415 - takes longer to import than all of ws_core

    found: dict[str, EntryPoint] = {}

    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        if sections is not None and entry.name not in sections:
            continue

        if entry.name in found:
            owners = " and ".join(sorted((_owner(entry), _owner(found[entry.name]))))
            message = f"{entry.name} is served by two installed distributions: remove one of {owners}"
            raise ConfigError(message, setting=entry.name)

        found[entry.name] = entry

    for key, requirement in KNOWN_SECTIONS.items():
        if sections is not None and key in sections and key not in found:
            raise MissingExtraError.for_extra(key, requirement)

    # The order in which a file system lists distributions must not decide anything.
    known = list(KNOWN_SECTIONS)
    keys = sorted(found, key=lambda key: (known.index(key) if key in known else len(known), key))
    return start_order(_load(found[key]) for key in keys)


def start_order(components: Iterable[Component]) -> list[Component]:
    """
    Put components in the order in which they must be started.

    Args:
        components: Components with distinct names; each ``after`` names earlier ones.

    Returns:
        The same components, each behind all it names; otherwise in the given order.

    Raises:
        ConfigError: Two components have the same name, or the names of ``after`` form a circle.
    """
    by_name: dict[str, Component] = {}

    for component in components:
        if component.name in by_name:
            keys = f"{by_name[component.name].settings_key} and {component.settings_key}"
            message = f"two components are named {component.name!r}, of {keys}: rename one"
            raise ConfigError(message, component=component.name)

        by_name[component.name] = component

    ordered: dict[str, Component] = {}

    for name in by_name:
        _place(name, by_name, ordered, path=[])

    return list(ordered.values())


def _place(
    name: str, by_name: Mapping[str, Component], ordered: dict[str, Component], path: list[str]
) -> None:
    """Place a component behind those that it names."""
    if name in ordered or name not in by_name:
        return

    if name in path:
        circle = [*path[path.index(name) :], name]
        message = f"components wait for each other in a circle: {' after '.join(circle)}"
        raise ConfigError(message, components=tuple(circle))

    for earlier in by_name[name].after:
        _place(earlier, by_name, ordered, [*path, name])

    ordered[name] = by_name[name]


def _load(entry: EntryPoint) -> Component:
    try:
        factory: Callable[[], object] = entry.load()
        component = factory()
    except WsError:
        raise
    except Exception as error:
        message = (
            f"{entry.name} cannot be served: {entry.value} of {_owner(entry)} is broken"
            f" ({describe(error, with_type=True)}): reinstall or remove it"
        )
        raise ConfigError(message, setting=entry.name, distribution=_owner(entry)) from error

    if not isinstance(component, Component):
        message = (
            f"{entry.name} cannot be served: {entry.value} of {_owner(entry)}"
            f" returns a {type(component).__name__}, which is not a Component"
        )
        raise ConfigError(message, setting=entry.name, distribution=_owner(entry))

    return component


def _owner(entry: EntryPoint) -> str:
    return "an unnamed distribution" if entry.dist is None else entry.dist.name
