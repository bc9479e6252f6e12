"""Calling scripts through a blocking client; the twin of `ws_redislock._redis.script_client`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import redis
import redis.asyncio
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from ws_redislock._lease.lease import boot_time
from ws_redislock._redis.script_client import (
    HOPELESS,
    TRANSIENT,
    Argument,
    ClientHolder,
    CommandClient,
    Reply,
    refuse,
)
from ws_redislock._redis.scripts import Script
from ws_redislock.errors import UnavailableError, UsageError
from ws_redislock.sync._redis.cluster_nodes import Nodes
from ws_redislock.sync._redis.connection import send_all
from ws_redislock.sync._redis.spare_connection import SpareConnections, has_room, is_small

__all__ = (
    "HOPELESS",
    "TRANSIENT",
    "CommandClient",
    "RedisSource",
    "Reply",
    "ScriptClient",
    "check_flow",
    "refuse",
    "resolve",
    "script_client_for",
)

RedisSource: TypeAlias = "str | CommandClient | ClientHolder"
"""A URL, a blocking client, or a pool that holds one."""

PATIENCE = 5.0
"""Seconds that a client made from a URL waits for its server at most, unless the URL says otherwise."""

_ASYNC = (redis.asyncio.Redis, redis.asyncio.RedisCluster)


def resolve(source: RedisSource) -> tuple[CommandClient, bool]:
    """
    Find the client to use.

    Args:
        source: A URL, a blocking client, or anything with such a client as ``.redis``.

    Returns:
        The client, and whether it was made here (from a URL) and must be closed by its user.

    Raises:
        UsageError: It is none of these, or a client for asyncio.
    """
    if isinstance(source, str):
        # No retries of the driver's own, nor waiting without end: they would outlast the timeouts here.
        client_of_url = redis.from_url(
            source, retry=Retry(NoBackoff(), 0), socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE
        )
        return cast("CommandClient", client_of_url), True

    client = source if hasattr(source, "execute_command") else getattr(source, "redis", None)

    if client is None or not hasattr(client, "execute_command"):
        raise UsageError(f"{type(source).__name__!r} is no Redis client: pass a redis.Redis or a URL")

    if isinstance(client, _ASYNC):
        raise UsageError(f"{type(client).__name__!r} is for asyncio: pass a redis.Redis, or use ws_redislock")

    return cast("CommandClient", client), False


def check_flow(flow: object, what: str) -> None:
    """Allow use from any thread."""


def script_client_for(source: RedisSource) -> tuple[ScriptClient, object, CommandClient | None]:
    """Return a script client, nothing that it belongs to, and the client if it must be closed by its user."""
    client, owned = resolve(source)
    return ScriptClient(client), None, client if owned else None


class ScriptClient:
    """
    Calls scripts on one client.

    Args:
        client: The client; how it must be driven is found out once.
    """

    __slots__ = ("_nodes", "_pool", "client", "cluster")

    def __init__(self, client: CommandClient) -> None:
        self.client: CommandClient = client
        self.cluster: bool = hasattr(client, "get_node_from_key")
        plain = (
            isinstance(client, redis.Redis) and type(client).execute_command is redis.Redis.execute_command
        )
        # Any: the driver's pool is typed for its own use only.
        self._pool: Any = cast("Any", client).connection_pool if plain else None
        self._nodes = Nodes(client) if self.cluster else None

    def pubsub(self, *, beside: bool) -> Any:  # Any: untyped in the driver
        """
        Return a new subscription.

        Args:
            beside: Whether the client's pool was found to have no connection to spare.
        """
        pubsub: Any = cast("Any", self.client).pubsub()

        if self._pool is not None and (beside or is_small(self._pool) or not has_room(self._pool)):
            pubsub.connection_pool = SpareConnections(self._pool)

        return pubsub

    def once(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], within: float) -> Reply:
        """Call a script once; see the twin."""
        began = boot_time()

        try:
            return self._send(("EVALSHA", script.sha, len(keys), *keys, *args), keys[0], within)
        except exceptions.NoScriptError:
            within = max(0.001, within - (boot_time() - began))
            return self._send(("EVAL", script.text, len(keys), *keys, *args), keys[0], within)

    def call(  # noqa: PLR0913 - options, keyword-only
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Argument],
        *,
        what: tuple[str, str],
        budget: float,
        attempt: float = 1.0,
        fast: object = None,  # noqa: ARG002 - only the twin sends calls together
        doubt: Callable[[], None] | None = None,
    ) -> tuple[float, Reply]:
        """Call a script, again and again until it is answered or the budget is spent; see the twin."""
        end = time.monotonic() + budget
        pause = 0.01

        while True:
            sent_at = boot_time()

            try:
                return sent_at, self.once(script, keys, args, min(attempt, max(0.01, end - time.monotonic())))
            except TRANSIENT as error:
                if doubt is not None:
                    doubt()

                left = end - time.monotonic()

                if left <= 0 or isinstance(error, HOPELESS):
                    raise UnavailableError(
                        f"{what[0]} {what[1]!r}: Redis gave no answer to {script.name.upper()} in time "
                        f"({type(error).__name__}: {error}); its outcome will be undone",
                        script=script.name,
                        name=what[1],
                    ) from error

                time.sleep(min(left, pause * (0.5 + random.random())))
                pause = min(2 * pause, 0.5)
                attempt *= 2
            except exceptions.ResponseError as error:
                refuse(error, script.name, what)
                raise

    def hit(  # noqa: PLR0913 - options, keyword-only
        self,
        script: Script,
        key: bytes,
        args: tuple[int, ...],
        cost: int,
        *,
        what: tuple[str, str],
        within: float,
    ) -> Sequence[int]:
        """Hit a limiter; see the twin."""
        return self.call(script, (key,), (*args, cost), what=what, budget=within, attempt=within)[1]

    def confirmed(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, replicas: int, within: float
    ) -> tuple[float, Reply, int]:
        """Call a script once, and have replicas confirm it on the same connection; see the twin."""
        sent_at = boot_time()
        reply, count = self._send_all(
            [
                ("EVAL", script.text, len(keys), *keys, *args),
                ("WAIT", replicas, max(1, int(within * 500))),
            ],
            within,
        )
        return sent_at, reply, int(count)

    def delete(self, key: bytes, within: float) -> None:
        """Delete one key within so many seconds."""
        try:
            self._send(("DEL", key), key, within)
        except TRANSIENT as error:
            raise UnavailableError(f"Redis gave no answer to DEL within {within:g} s: {error}") from error

    def _send(self, command: tuple[Argument, ...], key: bytes, within: float) -> Reply:
        if self._nodes is not None:
            return cast("Reply", self._nodes.send(command, key, within))

        if self._pool is None:
            return cast("Reply", self.client.execute_command(*command))

        return cast("Reply", send_all(self._pool, [command], within)[0])

    def _send_all(
        self, commands: Sequence[tuple[Argument, ...]], within: float
    ) -> list[Any]:  # Any: as Reply
        """Send commands over one connection; the first error reply is raised."""
        if self._pool is not None:
            return send_all(self._pool, commands, within)

        pipeline: Any = cast("Any", self.client).pipeline(transaction=False)  # Any: untyped in the driver

        for command in commands:
            pipeline.execute_command(*command)

        return cast("Reply", pipeline.execute())
