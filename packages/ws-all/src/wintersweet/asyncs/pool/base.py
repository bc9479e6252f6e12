"""Pools and managers of `ws_pool` with the methods and keyword arguments of 1.x."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

from wintersweet._eager import begin
from ws_core.metaclass import SafeSingleton
from ws_pool.base import BasePoolManager as LibraryManager

__all__ = ("BasePool", "BasePoolManager")

# Any below: a pool, or a manager of pools, of any kind.

_pools: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # those of 1.x, by those of the library


class BasePool:
    """What pools of 1.x have in common; what is missing is the library's."""

    library: Any
    """The pool of the library."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    def __repr__(self) -> str:
        return repr(self.library)

    @classmethod
    def of(cls, library: Any) -> Self:
        """Return the pool of 1.x for a started one of the library, the same each time."""
        if (found := _pools.get(library)) is None:
            found = _pools[library] = cls.__new__(cls)
            found._take_over(library, started=True)

        pool: Self = found
        return pool

    @property
    def name(self) -> str:
        """The pool's name."""
        return str(self.library.name)

    async def health(self) -> bool:
        """Check that the server answers."""
        return bool((await self.library.health()).ok)

    def close(self) -> Awaitable[None]:
        """Close all connections. It begins at once."""
        return begin(self.library.close(), f"closing pool {self.name!r}")

    def _take_over(self, library: Any, *, started: bool) -> None:
        """Become the pool of 1.x for one of the library."""
        self.library = library


class BasePoolManager(SafeSingleton):
    """
    All pools of one kind by name: one object, whatever its class was called for.

    Its pools are those of the library's manager, which `create_app` starts from the settings. What
    1.x did not have is the library's: attributes that are missing here are looked up there.

    Example:
        ```python no-run
        # needs a MySQL server
        from wintersweet.asyncs.pool.mysql import mysql_pool_manager

        mysql_pool_manager.register({"default": {"host": "localhost", "user": "root", "db": "test"}})
        await mysql_pool_manager
        ```
    """

    library: ClassVar[LibraryManager[Any, Any]]
    """The manager whose pools these are."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    def __repr__(self) -> str:
        return repr(self.library)

    def __str__(self) -> str:
        return str(self.library)

    def __await__(self) -> Generator[Any, Any, Self]:
        yield from self.initialize().__await__()
        return self

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._close()

    @property
    def ready(self) -> bool:
        """Whether the pools are started."""
        return self.library.ready

    def register(self, config: Mapping[str, object]) -> None:
        """Take the options of all pools by name; see `ws_pool.base.BasePoolManager.register`."""
        self.library.register(config)

    async def initialize(self) -> None:
        """Start all pools; a second call does nothing."""
        await self.library.initialize()

    def get_pool(self, pool_name: str = "default") -> Any:
        """Return a started pool by its name."""
        return self.library.get_pool(pool_name)

    def get_client(self, pool_name: str = "default", alone: bool = False) -> Any:
        """Return a client for the length of a block."""
        return self.get_pool(pool_name).get_context_manager_client(alone)

    def pool_status(self, pool_name: str = "default") -> str:
        """Describe a pool in one line of text; ``statistics()`` of the pool has the numbers."""
        return str(self.library.pool_status(pool_name))

    async def check_health(self) -> bool:
        """Check that the servers of all pools answer; without pools there is nothing to be ill."""
        return True if not self.library.names else await self.library.check_health()

    def close(self) -> Awaitable[None]:
        """Close all pools. It begins at once; await it to wait for the end."""
        return begin(self._close(), f"closing {type(self).__name__}")

    async def _close(self) -> None:
        await self.library.close()
