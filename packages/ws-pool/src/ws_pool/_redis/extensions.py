"""What other distributions make of a Redis pool, found without importing them by name.

A distribution publishes a class under the entry-point group ``wintersweet.redis``; the pool manager's
shortcuts look it up when they are used. So ws-pool knows the services, and not who provides them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any, Final

from ws_pool.errors import MissingExtraError

__all__ = ("GROUP", "load_extension")

GROUP: Final = "wintersweet.redis"

_loaded: Final[dict[str, Callable[..., Any]]] = {}  # Any: another distribution's class


def load_extension(service: str, provider: str) -> Callable[..., Any]:
    """
    Find a service's class.

    Args:
        service: The entry point's name, such as ``"lock"``.
        provider: The distribution to install when there is none.

    Returns:
        What the entry point names.

    Raises:
        MissingExtraError: No installed distribution provides the service.
    """
    if service not in _loaded:
        found = importlib.metadata.entry_points(group=GROUP, name=service)

        if not found:
            message = (
                f"no installed distribution provides {service!r} for Redis pools: pip install '{provider}'"
            )
            raise MissingExtraError(message, service=service, requirement=provider)

        _loaded[service] = next(iter(found)).load()

    return _loaded[service]
