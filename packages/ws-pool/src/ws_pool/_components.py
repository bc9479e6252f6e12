"""The components that this distribution publishes under the entry points ``wintersweet.components``.

A component wraps one of the ready-made managers. Nothing of a driver is imported before
`configure`, and a missing driver is a `MissingExtraError` that says what to install.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from ws_core.component import Health
from ws_pool.base import BasePoolManager
from ws_pool.errors import MissingExtraError, NotReadyError, UsageError

Manager = BasePoolManager[Any, Any]  # Any: a component treats all pools alike

_running: Final[dict[str, PoolComponent]] = {}  # by target: the components whose pools are started


class PoolComponent:
    """
    A manager as the application layer sees it.

    ``target`` is the ready-made manager, as ``module:attribute``; ``extra`` returns the requirement to
    install for a section whose driver is missing.
    """

    def __init__(self, name: str, settings_key: str, target: str, extra: Callable[[object], str]) -> None:
        self.name = name
        self.settings_key = settings_key
        self.after: Collection[str] = ()
        self._target = target
        self._extra = extra
        self._manager: Manager | None = None
        self._section: Mapping[str, object] = {}

    def __repr__(self) -> str:
        return f"<PoolComponent {self.name!r} for {self.settings_key}>"

    @property
    def manager(self) -> Manager:
        """The manager; a `NotReadyError` before `configure`."""
        if self._manager is None:
            message = f"component {self.name!r} is not configured: call configure() first"
            raise NotReadyError(message, component=self.name)

        return self._manager

    def configure(self, section: object) -> None:
        """Check and take the settings section; a `MissingExtraError` when its driver is not installed."""
        entries: Any = section  # whatever a user has written: the manager checks it
        module, _, attribute = self._target.partition(":")

        try:
            manager: Manager = getattr(importlib.import_module(module), attribute)
            manager.register(entries)
        except ImportError as error:
            raise MissingExtraError.for_extra(self.settings_key, self._extra(section)) from error

        self._manager, self._section = manager, entries

    async def start(self) -> None:
        """
        Start all pools; when one fails, the others are closed again.

        A manager is that of the process. A second application at the same time would answer from the pools of
        the first, and close them at its end: that is a `UsageError`.
        """
        manager = self.manager

        if self._target in _running or (manager.ready and not manager.has(self._section)):
            message = (
                f"{self.settings_key}: the pools of another application are running in this process: end that"
                " application first, or run each in a process of its own"
            )
            raise UsageError(message, setting=self.settings_key)

        if not manager.ready:
            manager.register(self._section)  # another application may have registered its own since

        _running[self._target] = self

        try:
            await manager.initialize()
        except BaseException:
            del _running[self._target]
            raise

    async def close(self) -> None:
        """Close all pools; may be called again, and before the start."""
        if _running.get(self._target) is not self:
            return

        try:
            await self.manager.close()
        finally:
            del _running[self._target]

    async def health(self) -> Health:
        """Check all pools."""
        return await self.manager.health()

    def status(self) -> Mapping[str, object]:
        """Describe all pools, without I/O."""
        manager = self.manager

        if not manager.ready:
            return {}

        return {name: manager.pool_status(name) for name in manager.names}


def sql() -> PoolComponent:
    """Return the component of DATABASES."""
    return PoolComponent("sql", "DATABASES", "ws_pool.mysql:sql_pool_manager", _sql_extra)


def redis() -> PoolComponent:
    """Return the component of REDIS_CONFIG."""
    return PoolComponent(
        "redis", "REDIS_CONFIG", "ws_pool.redis:redis_pool_manager", lambda _: "ws-pool[redis]"
    )


def mongo() -> PoolComponent:
    """Return the component of MONGO_CONFIG."""
    return PoolComponent(
        "mongo", "MONGO_CONFIG", "ws_pool.mongo:mongo_pool_manager", lambda _: "ws-pool[mongo]"
    )


def http() -> PoolComponent:
    """Return the component of HTTP_CONFIG."""
    return PoolComponent("http", "HTTP_CONFIG", "ws_pool.http:http_pool_manager", lambda _: "ws-pool[http]")


def es() -> PoolComponent:
    """Return the component of ES_CONFIG."""
    return PoolComponent("es", "ES_CONFIG", "ws_pool.es:es_pool_manager", lambda _: "ws-pool[es]")


def _sql_extra(section: object) -> str:
    """Return the extra of the first pool whose driver is missing, which depends on its URL."""
    if isinstance(section, Mapping):
        for value in section.values():
            url = value.get("url", "") if isinstance(value, Mapping) else value

            if str(url).startswith("sqlite"):
                driver, extra = "aiosqlite", "ws-pool[sqlite]"
            elif str(url).startswith("postgres") and "+psycopg:" in str(url):
                driver, extra = "psycopg", "ws-pool[psycopg]"
            elif str(url).startswith("postgres"):
                driver, extra = "asyncpg", "ws-pool[postgres]"
            elif "asyncmy" in str(url):
                driver, extra = "asyncmy", "ws-pool[asyncmy]"
            else:
                driver, extra = "aiomysql", "ws-pool[mysql]"

            if any(importlib.util.find_spec(name) is None for name in (driver, "sqlalchemy")):
                return extra

    return "ws-pool[mysql]"
