"""Named pools: the manager that all kinds of pools share, and the protocol of a pool that it needs.

A manager is a named set of pools. It checks its whole configuration before anything starts,
starts its pools together and closes them together; everything else belongs to the pools.
"""

from __future__ import annotations

import asyncio
import difflib
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from ws_core.component import Health
from ws_pool._core.statistics import Histogram, PoolStatistics
from ws_pool.errors import ConfigError, NotReadyError, UsageError

__all__ = ("BasePoolManager", "Histogram", "ManagedPool", "PoolStatistics", "Statistics")


class Statistics(Protocol):
    """A pool's frozen snapshot of itself."""

    def status(self) -> Mapping[str, object]:
        """Return plain numbers and strings."""
        ...


ClientT_co = TypeVar("ClientT_co", covariant=True)


class ManagedPool(Protocol[ClientT_co]):
    """What a manager needs of a pool; every pool of this distribution provides it."""

    @property
    def name(self) -> str:
        """The pool's name."""
        ...

    async def start(self) -> None:
        """Start; after an error nothing is left behind."""

    async def close(self) -> None:
        """Close; may be called again."""

    def get_client(self, *, alone: bool = False) -> AbstractAsyncContextManager[ClientT_co]:
        """Return a context manager of a client."""
        ...

    def statistics(self) -> Statistics:
        """Return a frozen snapshot."""
        ...

    async def health(self) -> Health:
        """Check that the server answers."""
        ...


# `object`: the client's type differs from pool to pool, and a TypeVar cannot bound another one.
PoolT = TypeVar("PoolT", bound="ManagedPool[object]")
ClientT = TypeVar("ClientT")


class BasePoolManager(ABC, Generic[PoolT, ClientT]):
    """
    A named set of pools of one kind.

    A subclass names its settings section, and builds a pool from one entry of it. Building must
    check every option and must not do any I/O.

    Example:
        ```python
        from ws_pool.sqlite import SqlitePoolManager

        manager = SqlitePoolManager()
        manager.register({"default": {"url": "sqlite:///:memory:"}})
        await manager
        async with manager.get_client("default") as client:
            print(await client.select("SELECT 1 AS one"))
        await manager.close()
        ```
    """

    settings_key: ClassVar[str] = "POOLS"
    """The settings section, which begins the names of options in errors."""

    def __init__(self) -> None:
        self._config: dict[str, Mapping[str, object]] = {}
        self._pools: dict[str, PoolT] = {}
        self._ready = False
        self._starting: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "ready" if self._ready else "not started"
        names = ", ".join(self._config) or "no pools"
        return f"<{type(self).__name__} {state}: {names}>"

    def __str__(self) -> str:
        """Return the state of every pool, one line each."""
        if not self._ready:
            return repr(self)

        lines = [
            f"{name}: "
            + ", ".join(f"{key}={value}" for key, value in self.pool_status(name).items() if key != "name")
            for name in self._pools
        ]
        return "\n".join([repr(self), *lines])

    def __await__(self) -> Generator[object, None, Self]:
        """Start the pools and return the manager: ``manager = await manager``."""
        yield from self.initialize().__await__()
        return self

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def ready(self) -> bool:
        """Whether the pools are started."""
        return self._ready

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the registered pools."""
        return tuple(self._config)

    def register(self, config: Mapping[str, object]) -> None:
        """
        Take the configuration of all pools; it is checked whole, and nothing starts.

        Args:
            config: Maps names of pools to their options; a string is short for ``{"url": string}``.

        Raises:
            ConfigError: A wrong option; the message names it, as ``DATABASES.default.port``.
            UsageError: The manager is started: close it first.
        """
        if self._ready:
            message = f"{type(self).__name__} is started: close it before registering another configuration"
            raise UsageError(message)

        entries: object = config  # settings come from users: the annotation is a wish

        if not isinstance(entries, Mapping):
            kind = type(config).__name__
            message = f"{self.settings_key} must map pool names to options, not a value of type {kind}"
            raise ConfigError(message, setting=self.settings_key)

        sections = {name: self._section(name, value) for name, value in entries.items()}

        for name, section in sections.items():  # built only to be checked: building does no I/O
            self._build(name, section, f"{self.settings_key}.{name}")

        self._config = sections

    def has(self, config: Mapping[str, object]) -> bool:
        """
        Return whether this is the configuration that was registered.

        Args:
            config: As of `register`.

        Returns:
            Whether the names and all of their options are the same.
        """
        return self._config == {name: self._section(name, value) for name, value in config.items()}

    async def add(self, name: str, options: Mapping[str, object] | str) -> PoolT:
        """
        Register one more pool, such as that of a new tenant, and start it if the manager is started.

        Args:
            name: The pool's name.
            options: Its options, or its URL.

        Returns:
            The pool; before the start of the manager, one that is not the manager's own.

        Raises:
            ConfigError: A wrong option.
            UsageError: A pool has that name; `remove` it before.
            UnavailableError: The server cannot be reached; nothing was added.
        """
        if name in self._config:
            message = f"{self.settings_key} has a pool {name!r}: remove() it before adding another one"
            raise UsageError(message, pool=name)

        section = self._section(name, options)
        pool = self._build(name, section, f"{self.settings_key}.{name}")
        self._config[name] = section  # now, so that the name is taken while the pool starts

        if not self._ready:
            return pool

        try:
            await pool.start()
        except BaseException:
            self._config.pop(name, None)
            await pool.close()
            raise

        # Removed, or closed with all others, while it was starting: it must not be left behind.
        if self._config.get(name) is not section or not self._ready:
            await pool.close()
            message = f"{self.settings_key}: pool {name!r} was removed while it was starting"
            raise UsageError(message, pool=name)

        self._pools[name] = pool
        return pool

    async def remove(self, name: str) -> None:
        """
        Close a pool and forget it; blocks that use it may end before, for as long as its ``close`` waits.

        Args:
            name: The pool's name.

        Raises:
            UsageError: No pool has that name.
        """
        if name not in self._config:
            raise self._unknown(name)

        del self._config[name]

        if (pool := self._pools.pop(name, None)) is not None:
            await pool.close()

    async def initialize(self) -> None:
        """
        Start all registered pools; when one fails, the others are closed again.

        A second call does nothing; a call beside one that is still starting the pools waits for it.

        Raises:
            UsageError: Nothing was registered.
            UnavailableError: A server cannot be reached.
        """
        if self._ready:
            return

        if not self._config:
            message = f"{type(self).__name__} has no pools: call register() first"
            raise UsageError(message)

        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
            self._starting.add_done_callback(self._started)

        # One start serves all callers: a caller that is cancelled must not cancel it for the others.
        await asyncio.shield(self._starting)

    def get_pool(self, name: str = "default") -> PoolT:
        """
        Return a started pool.

        Args:
            name: The pool's name.

        Returns:
            The pool.

        Raises:
            UsageError: No pool has that name; the message lists those that exist.
            NotReadyError: The manager was not started.
        """
        pool = self._pools.get(name)

        if pool is not None:
            return pool

        if name not in self._config:
            raise self._unknown(name)

        message = f"{type(self).__name__} is not started: await its initialize() before using pool {name!r}"
        raise NotReadyError(message, pool=name)

    def get_client(self, name: str = "default", alone: bool = False) -> AbstractAsyncContextManager[ClientT]:  # noqa: FBT001, FBT002 - the original's signature
        """
        Return a client of a pool for the length of a block.

        Args:
            name: The pool's name.
            alone: Take a connection for this block, even inside another block of the same task.

        Returns:
            An async context manager of the client.

        Raises:
            UsageError: No pool has that name.
            NotReadyError: The manager was not started.
        """
        return self._client(self.get_pool(name), alone=alone)

    def pool_status(self, name: str = "default") -> Mapping[str, object]:
        """
        Describe a pool in plain numbers and strings, without I/O.

        Args:
            name: The pool's name.

        Returns:
            The values of the pool's ``statistics()``.
        """
        return self.get_pool(name).statistics().status()

    async def check_health(self) -> bool:
        """
        Check that every pool's server answers.

        Returns:
            Whether all do; `health` names those that do not, and the reason.
        """
        return (await self.health()).ok

    async def health(self) -> Health:
        """
        Check every pool.

        Returns:
            The health with one part per pool; not ok before the start and after the close.
        """
        if not self._ready:
            return Health(ok=False, detail=f"{type(self).__name__} is not started")

        names = list(self._pools)
        checks = await asyncio.gather(*(pool.health() for pool in self._pools.values()))
        return Health.combine(dict(zip(names, checks, strict=True)))

    async def close(self) -> None:
        """Close all pools; may be called again. `initialize` starts them anew."""
        if self._starting is not None:
            await asyncio.gather(asyncio.shield(self._starting), return_exceptions=True)

        self._ready = False
        pools, self._pools = list(self._pools.values()), {}
        await _close_all(pools)

    @abstractmethod
    def _build(self, name: str, section: Mapping[str, object], where: str) -> PoolT:
        """Return a pool built from its section, without I/O; ``where`` is the section's name in errors."""

    def _unknown(self, name: str) -> UsageError:
        """Return the error of a name that no pool has."""
        if not self._config:
            missing = f"{self.settings_key} has no pools, so none is named {name!r}"
            return UsageError(f"{missing}: set it in the settings, or call register()", pool=name)

        known = ", ".join(repr(other) for other in self._config)
        close = difflib.get_close_matches(name, self._config, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        message = f"{self.settings_key} has no pool {name!r} (registered: {known}){hint}"
        return UsageError(message, pool=name)

    def _client(self, pool: PoolT, *, alone: bool) -> AbstractAsyncContextManager[ClientT]:
        """Return a pool's client, with the type that the pool's type variable cannot name."""
        client: AbstractAsyncContextManager[ClientT] = pool.get_client(alone=alone)  # type: ignore[assignment]
        return client

    def _section(self, name: object, value: object) -> Mapping[str, object]:
        where = f"{self.settings_key}.{name}"

        if not isinstance(name, str) or not name:
            message = f"{where}: a pool's name must be a string that is not empty"
            raise ConfigError(message, setting=where)

        if isinstance(value, str):
            return {"url": value}

        if isinstance(value, Mapping):
            return dict(value)

        message = f"{where} must be a mapping of options or a URL, not a value of type {type(value).__name__}"
        raise ConfigError(message, setting=where)

    async def _start(self) -> None:
        pools = {
            name: self._build(name, section, f"{self.settings_key}.{name}")
            for name, section in self._config.items()
        }

        try:
            async with asyncio.TaskGroup() as group:
                for pool in pools.values():
                    group.create_task(pool.start())
        except BaseException as error:
            await _close_all(list(pools.values()))

            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None

            raise

        self._pools = pools
        self._ready = True

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting = None

        if not task.cancelled():
            task.exception()  # if every caller was cancelled: retrieved, or asyncio would log it


async def _close_all(pools: list[PoolT]) -> None:
    """Close pools together; a failing one never keeps the others open."""
    results = await asyncio.gather(*(pool.close() for pool in pools), return_exceptions=True)

    for result in results:
        if isinstance(result, BaseException):
            raise result
