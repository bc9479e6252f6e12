"""Calling scripts on whatever Redis client the user has, with own timeouts and own repetition.

All scripts of this package may be repeated, so a lost reply is answered by sending the script
again. Each attempt has its own timeout; the driver's retry policy, made for other commands, is
left out of it where the client is a plain ``redis.asyncio.Redis``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, cast

import redis.asyncio
from redis import exceptions
from redis.asyncio.client import PubSub

from ws_core.errors import UnavailableError
from ws_redislock._lease.cancel_scope import cancels_so_far, raise_if_cancelled
from ws_redislock._lease.lease import boot_time
from ws_redislock._lease.timers import Timers
from ws_redislock._redis.batching import Fast, FastBatch, HitBatch
from ws_redislock._redis.clients import (
    HOPELESS,
    TRANSIENT,
    ClientHolder,
    CommandClient,
    RedisSource,
    check_flow,
    refuse,
    resolve,
)
from ws_redislock._redis.connection import SharedConnection
from ws_redislock._redis.scripts import Script
from ws_redislock._redis.spare_connection import SpareConnections, has_room, is_small

__all__ = (
    "HOPELESS",
    "TRANSIENT",
    "ClientHolder",
    "CommandClient",
    "RedisSource",
    "Reply",
    "ScriptClient",
    "check_flow",
    "refuse",
    "resolve",
    "script_client_for",
)

Reply: TypeAlias = list[Any]  # Any: integers, and tokens as str or bytes, as the client decodes
Argument: TypeAlias = str | bytes | int

MANY = 6
"""Calls under way from which further ones are sent together."""

_log = logging.getLogger("ws_redislock")


def script_client_for(source: RedisSource) -> tuple[ScriptClient, object, CommandClient | None]:
    """
    Return a script client in the running loop.

    Args:
        source: What the user gave for Redis.

    Returns:
        The script client, the loop it belongs to, and the client if it must be closed by its user.
    """
    client, owned = resolve(source)
    return ScriptClient(client), asyncio.get_running_loop(), client if owned else None


class ScriptClient:
    """
    Calls scripts on one client.

    Args:
        client: The client; how it must be driven is found out once.
    """

    __slots__ = ("_calling", "_hits", "_locks", "_pool", "_shared", "_small", "client", "cluster", "timers")

    def __init__(self, client: CommandClient) -> None:
        self.client: CommandClient = client
        self.timers: Timers = Timers(asyncio.get_running_loop())
        self._calling = 0
        self._locks = FastBatch(self._send)
        self._hits: dict[tuple[str, tuple[int, ...]], HitBatch] = {}
        self.cluster: bool = hasattr(client, "get_node_from_key")
        plain = (
            isinstance(client, redis.asyncio.Redis)
            and type(client).execute_command is redis.asyncio.Redis.execute_command
            and not client.single_connection_client
        )
        # Any: the driver's pool is typed for its own use only.
        pool: Any = cast("Any", client).connection_pool if plain else None
        self._pool: Any = pool if SharedConnection.fits(pool) else None
        self._small = self._pool is not None and is_small(pool)
        self._shared = None if self._pool is None else SharedConnection.to(pool)

    def pubsub(self) -> Any:  # Any: the driver's PubSub is untyped, a cluster's is another class
        """Return a new subscription, on a connection that the application does not miss."""
        client: Any = self.client  # Any: as above

        if self.cluster:
            node = client.get_random_node()  # a publication reaches every node of a cluster
            kwargs = {k: v for k, v in node.connection_kwargs.items() if k not in {"host", "port"}}
            pool = redis.asyncio.ConnectionPool(
                connection_class=node.connection_class, host=node.host, port=node.port, **kwargs
            )
            return PubSub(pool)

        pubsub = client.pubsub()

        if self._small or not self._has_room():
            pubsub.connection_pool = SpareConnections(self._pool)

        return pubsub

    async def once(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], within: float
    ) -> Reply:
        """
        Call a script once.

        Args:
            script: The script.
            keys: Its keys, all in one slot.
            args: Its arguments.
            within: Seconds that the attempt may take.

        Returns:
            The reply.

        Raises:
            TimeoutError: There was no reply in time.
        """
        began = boot_time()

        try:
            return await self._send(("EVALSHA", script.sha, len(keys), *keys, *args), within)
        except exceptions.NoScriptError:
            within = max(0.001, within - (boot_time() - began))
            return await self._send(("EVAL", script.text, len(keys), *keys, *args), within)

    async def call(  # noqa: PLR0913 - options, keyword-only
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Argument],
        *,
        what: tuple[str, str],
        budget: float,
        attempt: float = 1.0,
        fast: Fast | None = None,
        doubt: Callable[[], None] | None = None,
    ) -> tuple[float, Reply]:
        """
        Call a script, again and again until it is answered or the budget is spent.

        Args:
            script: The script.
            keys: Its keys, all in one slot.
            args: Its arguments.
            what: Kind and name of what it is for, for the error.
            budget: Seconds for all attempts together.
            attempt: Seconds for the first attempt; each next one has twice as long.
            fast: The same for `Batch`, to be tried first when many call at once.
            doubt: Called when an attempt was not answered: it may still be on its way.

        Returns:
            The time just before the answered attempt was sent, and its reply.

        Raises:
            UnavailableError: No attempt was answered, or the server is in no state to do it.
        """
        self._calling += 1
        began = sent_at = boot_time()

        try:
            if fast is not None and self._calling > MANY and not self.cluster:
                done = await self._locks.add((keys, fast), min(attempt, budget))

                if done is not None:
                    return done

                sent_at = boot_time()
                budget = max(0.01, budget - (sent_at - began))
                began = sent_at

            return sent_at, await self._send(
                ("EVALSHA", script.sha, len(keys), *keys, *args), min(attempt, budget)
            )
        except exceptions.NoScriptError:
            pass
        except TRANSIENT as error:
            if doubt is not None:
                doubt()

            await self._pause(error, script, what, budget - (boot_time() - began), 0.01)
        except exceptions.ResponseError as error:
            refuse(error, script.name, what)
            raise
        finally:
            self._calling -= 1

        budget -= boot_time() - began
        return await self._call_again(script, keys, args, what, budget, attempt, doubt)

    async def _call_again(  # noqa: PLR0913, PLR0917 - the arguments of call
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Argument],
        what: tuple[str, str],
        budget: float,
        attempt: float,
        doubt: Callable[[], None] | None,
    ) -> tuple[float, Reply]:
        end = time.monotonic() + budget
        pause = 0.02

        while True:
            sent_at = boot_time()
            left = max(0.01, end - time.monotonic())

            try:
                return sent_at, await self.once(script, keys, args, min(attempt, left))
            except TRANSIENT as error:
                if doubt is not None:
                    doubt()

                await self._pause(error, script, what, end - time.monotonic(), pause)
                pause = min(2 * pause, 0.5)
                attempt *= 2
            except exceptions.ResponseError as error:
                refuse(error, script.name, what)
                raise

    async def _pause(
        self, error: Exception, script: Script, what: tuple[str, str], left: float, pause: float
    ) -> None:
        """Wait a little before the next attempt, or give up."""
        if left <= 0 or isinstance(error, HOPELESS):
            raise UnavailableError(
                f"{what[0]} {what[1]!r}: Redis gave no answer to {script.name.upper()} in time "
                f"({type(error).__name__}: {error}); its outcome will be undone",
                script=script.name,
                name=what[1],
            ) from error

        await asyncio.sleep(min(left, pause * (0.5 + random.random())))

    async def hit(  # noqa: PLR0913 - options, keyword-only
        self,
        script: Script,
        key: bytes,
        args: tuple[int, ...],
        cost: int,
        *,
        what: tuple[str, str],
        within: float,
    ) -> Sequence[int]:
        """
        Hit a limiter, together with others when many hit at once.

        Args:
            script: The limiter's script.
            key: The key.
            args: The script's arguments before the cost.
            cost: The cost.
            what: Kind and name of what it is for, for the error.
            within: Seconds for all attempts together.

        Returns:
            Whether it is allowed, what remains, and two times in microseconds.

        Raises:
            UnavailableError: No attempt was answered.
        """
        self._calling += 1

        try:
            if self._calling > MANY and not self.cluster:
                batch = self._hits.get((script.name, args))

                if batch is None:
                    batch = self._hits[script.name, args] = HitBatch(self._send, script, args)

                began = boot_time()

                try:
                    answer = await batch.add((key, cost), within)
                except TRANSIENT as error:
                    _log.debug("a hit that went with others is made by itself: %r", error)
                    answer = None

                if answer is not None:
                    return answer

                within = max(0.01, within - (boot_time() - began))

            _, reply = await self.call(
                script, (key,), (*args, cost), what=what, budget=within, attempt=within
            )
            return reply
        finally:
            self._calling -= 1

    async def confirmed(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Argument],
        *,
        replicas: int,
        within: float,
    ) -> tuple[float, Reply, int]:
        """
        Call a script once, and have replicas confirm it on the same connection.

        Args:
            script: The script.
            keys: Its keys.
            args: Its arguments.
            replicas: How many replicas must have it.
            within: Seconds for all of it.

        Returns:
            The time before it was sent, the reply, and the number of replicas that confirmed.
        """
        pipeline = self._pipeline()
        cancels = cancels_so_far()
        sent_at = boot_time()

        async with asyncio.timeout(within):
            pipeline.execute_command("EVAL", script.text, len(keys), *keys, *args)
            pipeline.execute_command("WAIT", replicas, max(1, int(within * 500)))
            reply, count = await pipeline.execute()

        raise_if_cancelled(cancels)
        return sent_at, reply, int(count)

    async def many(
        self, calls: Sequence[tuple[Script, Sequence[bytes], Sequence[Argument]]], within: float
    ) -> list[Reply | BaseException]:
        """
        Call several scripts in one round trip where the client can do that.

        Args:
            calls: Script, keys and arguments of each.
            within: Seconds for all of them.

        Returns:
            A reply or an error for each.
        """
        if len(calls) == 1 or self.cluster or (self._shared is not None and not self._small):
            return await asyncio.gather(*(self.once(*call, within) for call in calls), return_exceptions=True)

        pipeline = self._pipeline()
        cancels = cancels_so_far()

        async with asyncio.timeout(within):
            for script, keys, args in calls:
                pipeline.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)

            replies: list[Any] = await pipeline.execute(raise_on_error=False)

            for index, reply in enumerate(replies):
                if isinstance(reply, exceptions.NoScriptError):
                    replies[index] = await self.once(*calls[index], within)

        raise_if_cancelled(cancels)
        return replies

    async def delete(self, key: bytes, within: float) -> None:
        """Delete one key within so many seconds."""
        try:
            await self._send(("DEL", key), within)
        except TRANSIENT as error:
            raise UnavailableError(f"Redis gave no answer to DEL within {within:g} s: {error}") from error

    def _has_room(self) -> bool:
        """Tell whether the client's pool could give a connection, as far as that is known."""
        return self._pool is None or has_room(self._pool)

    def _pipeline(self) -> Any:  # Any: untyped in the driver
        pipeline: Any = cast("Any", self.client).pipeline(transaction=False)

        if not self._has_room():
            pipeline.connection_pool = SpareConnections(self._pool)

        return pipeline

    def _send(self, command: tuple[Argument, ...], within: float) -> Awaitable[Reply]:
        if self._shared is None or (self._small and self._has_room()):
            return self._bounded(command, within)

        return self._shared.call(command, within)

    async def _bounded(self, command: tuple[Argument, ...], within: float) -> Reply:
        """Do what asyncio.timeout does, at a third of its price."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        before = task.cancelling()
        timer = self.timers.call_later(within, task.cancel)
        cancelled = uncancelled = False

        try:
            return cast("Reply", await self.client.execute_command(*command))
        except asyncio.CancelledError:
            cancelled = True
            uncancelled = timer.function is None

            if uncancelled and task.uncancel() <= before:
                raise TimeoutError("no reply in time") from None

            raise
        except (AttributeError, TypeError) as error:
            # Another task has closed the connection meanwhile: https://github.com/redis/redis-py/issues/3546
            raise exceptions.ConnectionError(f"the driver closed a connection in use: {error}") from error
        finally:
            if timer.function is None and not uncancelled:
                task.uncancel()  # the client made an error of its own of the cancel

            self.timers.cancel(timer)

            if not cancelled and task.cancelling() > before:
                raise_if_cancelled(before)
