"""What one worker shows on the ops page."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ws_core import inspection
from ws_core.component import Component
from ws_core.redaction import mask, mask_text
from ws_web._observation import Exchange
from ws_web._request_metrics import EventLoopLag
from ws_web.conf import Settings
from ws_web.ops._logs import Logs
from ws_web.ops._watchdog import Watchdog

# Any below: JSON values.

_KINDS: Final = ("tasks", "locks", "jobs", "slow statements")
_MOST: Final = 100  # rows of one kind


@dataclass(slots=True)
class WorkerState:
    """Collects what this process is doing, without I/O and without secrets."""

    in_flight: Collection[Exchange]
    components: Mapping[str, Component]
    lag: EventLoopLag
    watchdog: Watchdog
    logs: Logs
    clock: Callable[[], float] = time.perf_counter
    started_at: float = field(default_factory=time.time, init=False)

    def __call__(self) -> dict[str, Any]:
        """Return the state now."""
        return {
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "started_at": self.started_at,
            "lag": self.lag.recent,
            "requests": self._requests(),
            "components": {key: _status(component) for key, component in self.components.items()},
            "slow_callbacks": self.watchdog.slow(),
            "log": self.logs.tail(),
            "levels": self.logs.levels(),
            **{kind.replace(" ", "_"): _rows(kind) for kind in _KINDS},
        }

    def _requests(self) -> list[dict[str, Any]]:
        now = self.clock()
        exchanges = sorted(self.in_flight, key=lambda exchange: exchange.began)
        return [
            {
                "method": exchange.method,
                "route": exchange.route or "",
                "age": now - exchange.began,
                "id": exchange.scope.get("ws_web.request_id", ""),
            }
            for exchange in exchanges[:_MOST]
            if not exchange.is_quiet
        ]


def _status(component: Component) -> Any:
    try:
        return _plain(mask("", component.status()))
    except Exception as error:  # noqa: BLE001 - a component of somebody else; the page shows it
        return {"error": type(error).__name__}


def _rows(kind: str) -> list[Any]:
    return [_plain(mask("", row)) for row in inspection.inspect(kind)[:_MOST]]


def _plain(value: object) -> Any:
    """Return a value as JSON can have it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}

    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]

    if value is None or isinstance(value, bool | int | float | str):
        return value

    return mask_text(str(value))


def shown_settings(settings: Settings) -> list[dict[str, Any]]:
    """Return every setting with its masked value and where it came from."""
    return [
        {"name": name, "value": _plain(setting.value), "source": setting.source}
        for name, setting in settings.describe().items()
    ]
