"""Copies to read from: which one a client that only reads is sent to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ws_core.component import Health
from ws_pool.errors import ConfigError, UnavailableError
from ws_pool.pool import Lease, Pool


class Replicas:
    """A primary's pool, and those of its replicas."""

    __slots__ = ("_primary", "_replicas", "_turn")

    def __init__(self, primary: Pool[Any], replicas: Sequence[Pool[Any]]) -> None:
        self._primary = primary
        self._replicas = tuple(replicas)
        self._turn = itertools.count()

    def __iter__(self) -> Iterator[Pool[Any]]:
        return iter(self._replicas)

    def __bool__(self) -> bool:
        return bool(self._replicas)

    @property
    def pools(self) -> tuple[Pool[Any], ...]:
        """All pools, the primary's first."""
        return (self._primary, *self._replicas)

    async def choose(self) -> tuple[Pool[Any], Lease[Any]]:
        """Take a connection to read over: a replica's, or the primary's."""
        # Replicas that are up take turns. One that has no connection free is passed over, and the
        # primary takes its place; when that has none either, wait for one of those that are up.
        healthy = self._healthy()
        free = [pool for pool in healthy if not pool.full]

        for pool in free or (healthy if self._primary.full else ()):
            try:
                return pool, await pool.acquire()
            except UnavailableError:
                continue

        return self._primary, await self._primary.acquire()

    async def health(self) -> Health:
        """Check that the primary answers; replicas are parts of the answer."""
        health = await self._primary.health()

        if not self._replicas:
            return health

        parts = {pool.name: await pool.health() for pool in self._replicas}
        return Health(ok=health.ok, detail=health.detail, latency=health.latency, parts=parts)

    def _healthy(self) -> list[Pool[Any]]:
        """Return the replicas that are up, beginning with another one each time."""
        up = [pool for pool in self._replicas if not pool.down]
        turn = next(self._turn) % len(up) if up else 0
        return [*up[turn:], *up[:turn]]


def replica_options(
    entry: object, primary: Mapping[str, object], where: str, inherited: Sequence[str]
) -> dict[str, object]:
    """Return the options of a replica; those of ``inherited`` that it leaves out are as the primary's."""
    if isinstance(entry, str):
        entry = {"url": entry}

    if not isinstance(entry, Mapping):
        message = f"{where} must be a URL or a mapping of options, not a value of type {type(entry).__name__}"
        raise ConfigError(message, setting=where)

    own = {key: primary[key] for key in inherited if key in primary and "url" not in entry}
    return {**own, **entry}
