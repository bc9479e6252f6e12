"""Shared clients of a pool with a key prefix."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from ws_pool._redis.client.caching import CachingRedis
from ws_pool._redis.client.shared import SharedRedis
from ws_pool._redis.commands.prefix import KeyPrefix


class Prefixed(SharedRedis):
    """Adds the prefix to what is executed, so that all below it sees whole keys only."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Execute a command with the prefix before its keys; errors as of `SharedRedis.execute_command`."""
        if (prefix := self.key_prefix) is not None:
            args = tuple(prefix.apply(args))

        return await super().execute_command(*args, **options)

    def use_callbacks(self, callbacks: MutableMapping[Any, Any]) -> None:
        """Use other response callbacks, and take the prefix off the keys of replies."""
        prefix = self.key_prefix
        super().use_callbacks(callbacks if prefix is None else prefix.callbacks(callbacks))

    @property
    def unprefixed(self) -> SharedRedis:
        """The same client without the prefix: for keys and channels that were agreed on with others."""
        client = self._copy()
        client.applies_prefix = False
        client.use_callbacks(KeyPrefix.plain_callbacks(self.response_callbacks))
        return client


class PrefixedRedis(Prefixed):
    """Of one server."""


class PrefixedCachingRedis(Prefixed, CachingRedis):  # type: ignore[misc]  # as redis-py's mixins clash
    """Of one server, with a cache."""
