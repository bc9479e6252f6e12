"""redis-py's typed client over shared connections.

`SharedRedis` is a `redis.asyncio.Redis`: all typed commands, scripts, pipelines, pub/sub and locks
are redis-py's. What it replaces is how a command reaches the server.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import get_running_loop
from collections.abc import MutableMapping, Sequence
from copy import copy
from typing import Any, Final, Self

from redis import exceptions as driver
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.pipeline import SharedPipeline
from ws_pool._redis.client.round_trip import execute_on_dedicated
from ws_pool._redis.client.session import DedicatedPubSub, DedicatedRedis
from ws_pool._redis.commands.command_info import CommandInfo, ObservedCallbacks
from ws_pool._redis.commands.retry import RetryPolicy, checked_retry, retry_of
from ws_pool._redis.commands.table import Route, canonical, is_read_only, needs_arguments, routing_of
from ws_pool._redis.connection.replies import BatchReply
from ws_pool._redis.errors import ConnectionLost, MaybeExecuted
from ws_pool.errors import UsageError

__all__ = ("RETRIES", "SPECIAL", "ClientContext", "DedicatedRedis", "RetryPolicy", "SharedRedis")


RETRIES: Final = 3
_MAX_PLANS: Final = 2_000
SPECIAL: Final = frozenset({NEVER_DECODE, EMPTY_RESPONSE, "retry"})


class SharedRedis(Redis):
    """
    A `redis.asyncio.Redis` whose commands share a few connections with those of all other tasks.

    Made by `ws_pool.redis.RedisPool`.
    """

    def __init__(self, core: ClientContext, *, retry: RetryPolicy = "safe") -> None:
        super().__init__(connection_pool=core.leases)
        self._core = core
        self._retry_policy: RetryPolicy = checked_retry(retry)
        self._lane = core.lane
        self._loop = core.loop
        self._create_future = core.loop.create_future
        self._plans: dict[Any, CommandInfo] = {}
        self.use_callbacks(self.response_callbacks)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of redis pool {self._core.name!r}>"

    @property
    def decodes(self) -> bool:
        """Whether replies are text."""
        return self._core.decodes

    def use_callbacks(self, callbacks: MutableMapping[Any, Any]) -> None:
        """
        Take other response callbacks, such as those of another protocol version.

        Args:
            callbacks: Command names to functions of the reply.
        """
        own = ObservedCallbacks(dict(callbacks))
        own.changed = self._plans.clear
        self.response_callbacks: Any = own  # Any: as redis-py declares it
        self._plans.clear()

    def with_retry(self, retry: RetryPolicy) -> Self:
        """
        Give a client on the same connections with another rule for lost connections.

        Args:
            retry: ``"safe"`` repeats a command only when it was not sent or only reads;
                ``"at_least_once"`` repeats every command, which may then be executed twice.

        Returns:
            The client.

        Raises:
            UsageError: It is no rule.
        """
        client = copy(self)  # all that a subclass has is kept, such as a cache
        client._retry_policy = checked_retry(retry)  # noqa: SLF001 - its own kind
        client._plans = {}  # noqa: SLF001 - as above
        client.use_callbacks(self.response_callbacks)
        return client

    # The hot path is one function on purpose. Any: redis-py's own signature.
    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: C901, PLR0912 - see above
        """
        Execute a command and return its parsed reply.

        Args:
            *args: The command's name and arguments.
            **options: Of redis-py's response callbacks; and ``retry``, see `with_retry`.

        Returns:
            The reply.

        Raises:
            MaybeExecuted: The connection was lost after the command was sent.
            UnavailableError: The server cannot be reached; the command was not sent.
            AcquireTimeout: There was no room in time; the command was not sent.
            redis.exceptions.ResponseError: The server refused the command.
        """
        plan = self._plans.get(args[0]) or self._learn(args)

        if plan.elsewhere:
            return await self._execute_elsewhere(plan, args, options)

        if options:
            options.pop("keys", None)

            if options and not SPECIAL.isdisjoint(options):
                return await self._execute_special(plan, args, options)

        if get_running_loop() is not self._loop:
            self._refuse_loop()

        lane = self._lane or self._core.pick(args)
        link = lane.link
        free = len(link.pending) < link.limit

        if not free:
            lane.check()  # before the command is packed, so that a refused one costs no memory

        try:
            data = plan.pack(args)
        except TypeError:
            data = self._core.packer.pack(args)

        slot = self._create_future()

        if free:
            link.send(slot, data)
        else:
            lane.submit(slot, data)

        try:
            reply = await slot
        except (ConnectionLost, driver.ReadOnlyError) as error:
            del slot  # it holds the error, whose traceback holds all that is in here
            reply = await self._recover(error, plan.read_only, args, data)
        except asyncio.CancelledError:
            lane.abandon(args)
            raise
        except BaseException:
            del slot, data
            raise

        callback = plan.callback

        if callback is None:
            return reply

        result = callback(reply, **options)

        if plan.may_await and inspect.isawaitable(result):
            return await result

        return result

    def set(self, name: Any, value: Any, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Set a key; the plain form skips redis-py's look at its many options, all others are redis-py's."""
        if args or options:
            return super().set(name, value, *args, **options)

        return self.execute_command("SET", name, value)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> SharedPipeline:  # noqa: FBT001, FBT002 - redis-py's signature
        """
        Make a pipeline.

        Args:
            transaction: Wrap the commands into MULTI and EXEC.
            shard_hint: Ignored, as by redis-py.

        Returns:
            The pipeline; it shares the connection too, unless it watches keys or is very long.
        """
        return SharedPipeline(self, self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def pubsub(self, **options: Any) -> PubSub:  # Any: redis-py's own signature
        """Make a PubSub, which takes a connection of its own."""
        return DedicatedPubSub(self._core.leases, **options)

    def client(self) -> DedicatedRedis:
        """Make a client with a connection of its own, which is taken at its first use."""
        return DedicatedRedis(
            self._core, connection_pool=self._core.leases, callbacks=self.response_callbacks
        )

    async def send_batch(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """
        Send commands as one piece and collect their raw replies.

        Args:
            commands: The commands, none of which may block or change the session.

        Returns:
            The replies in order, errors among them.

        Raises:
            MaybeExecuted: The connection was lost after they were sent.
        """
        if get_running_loop() is not self._loop:
            self._refuse_loop()

        lane = self._lane or self._core.pick(*commands)
        lane.check()
        data = self._core.packer.pack_many(commands)
        safe = all(map(is_read_only, commands))
        attempts = 0

        while True:
            attempts += 1
            future: asyncio.Future[list[Any]] = self._create_future()
            lane.submit(BatchReply(future, len(commands)), data, count=len(commands))

            try:
                return await future
            except asyncio.CancelledError:
                lane.abandon(*commands)
                raise
            except ConnectionLost as lost:
                self._check_retry(lost, safe, attempts, commands[0], self._retry_policy)

    def forget(self, commands: Sequence[Sequence[Any]]) -> None:
        """
        Forget what commands may change; called before and after those that another connection sends.

        Args:
            commands: The commands.
        """

    def lost(self, args: Sequence[object], reason: str) -> MaybeExecuted:
        """Build the error for a command whose reply never came."""
        return self._core.lost(args, reason)

    async def ask(self, args: Sequence[Any]) -> Any:
        """
        Execute a command and return its reply as the server gave it.

        Args:
            args: The command, which must not block or change the session.

        Returns:
            The reply, without redis-py's response callback.
        """
        data = self._core.packer.pack(args)
        lane = self._lane or self._core.pick(args)
        slot = self._create_future()
        lane.submit(slot, data)

        try:
            return await slot
        except (ConnectionLost, driver.ReadOnlyError) as error:
            return await self._recover(error, is_read_only(args), args, data)
        except asyncio.CancelledError:
            lane.abandon(args)
            raise
        finally:
            del slot, data  # an error that the slot holds would keep all of this

    # Inside -----------------------------------------------------------------------------------

    def _learn(self, args: Sequence[Any]) -> CommandInfo:
        name = args[0]
        core = self._core
        one_word = isinstance(name, str) and " " not in name
        late = needs_arguments(name)
        plan = CommandInfo(
            core.packer.pack_plain if one_word else core.packer.pack,
            self.response_callbacks.get(name),
            elsewhere=late or routing_of(args) is not Route.SHARED,
            read_only=is_read_only(args),
        )

        keeps = one_word or (isinstance(name, str) and canonical((name,)) == name)  # "GET a" is not worth it

        if keeps and len(self._plans) < _MAX_PLANS:
            self._plans[name] = plan

        return plan

    async def _execute_elsewhere(
        self, plan: CommandInfo, args: Sequence[Any], options: dict[str, Any]
    ) -> Any:
        """Execute what needs a closer look: blocking, of the session, or with subcommands."""
        route = routing_of(args)

        if route is Route.SHARED:
            return await self._execute_special(plan, args, options)

        return await self._execute_leased(args, options)

    async def _execute_special(self, plan: CommandInfo, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Execute on the shared connection with redis-py's special options."""
        if get_running_loop() is not self._loop:
            self._refuse_loop()

        core = self._core
        options.pop("keys", None)
        retry = retry_of(options, self._retry_policy)
        raw = NEVER_DECODE in options and core.decodes
        options.pop(NEVER_DECODE, None)
        data = core.packer.pack(args)
        lane = self._lane or core.pick(args)
        slot = self._create_future()
        lane.submit(slot, data, raw=raw)

        try:
            try:
                reply = await slot
            except (ConnectionLost, driver.ReadOnlyError) as error:
                reply = await self._recover(error, is_read_only(args), args, data, raw=raw, retry=retry)
            except asyncio.CancelledError:
                lane.abandon(args)
                raise
            finally:
                del slot, data  # an error that the slot holds would keep all of this
        except driver.ResponseError:
            if EMPTY_RESPONSE in options:
                return options[EMPTY_RESPONSE]
            raise

        options.pop(EMPTY_RESPONSE, None)

        if plan.callback is None:
            return reply

        result = plan.callback(reply, **options)
        return await result if inspect.isawaitable(result) else result

    async def _execute_leased(self, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Execute on a connection lent for this one command."""
        retry = retry_of(options, self._retry_policy)
        again = RETRIES if retry == "at_least_once" or is_read_only(args) else 0
        moves = RETRIES if self._core.follow_master else 0
        leases = self._core.leases

        while True:
            lane = self._lane or self._core.pick(args)

            try:
                return await execute_on_dedicated(self, self._core, leases, lane, args, dict(options))
            except MaybeExecuted:
                if not again:
                    raise

                again -= 1
            except driver.ReadOnlyError:
                if not moves:
                    raise

                moves -= 1
                await leases.disconnect()  # none of them leads to a master any more

    async def _recover(  # noqa: PLR0913 - one call site's whole state
        self,
        error: Exception,
        read_only: bool,  # noqa: FBT001 - on the way of every failed command
        args: Sequence[Any],
        data: bytes,
        *,
        raw: bool = False,
        retry: RetryPolicy | None = None,
    ) -> Any:
        """Repeat a command after its connection was lost, or its master has moved, if that is safe."""
        attempts = 0
        policy = retry or self._retry_policy

        while True:
            attempts += 1

            if isinstance(error, ConnectionLost):
                self._check_retry(error, read_only, attempts, args, policy)
            elif not self._core.follow_master or attempts > RETRIES:
                raise error

            lane = self._lane or self._core.pick(args)

            if not isinstance(error, ConnectionLost):
                lane.drop_link("the server is no master any more")

            slot = self._create_future()
            lane.submit(slot, data, raw=raw)

            try:
                return await slot
            except (ConnectionLost, driver.ReadOnlyError) as again:
                error = again
            except asyncio.CancelledError:
                lane.abandon(args)
                raise

    def _check_retry(
        self,
        lost: ConnectionLost,
        read_only: bool,  # noqa: FBT001 - internal
        attempts: int,
        args: Sequence[Any],
        policy: RetryPolicy,
    ) -> None:
        if lost.sent and not read_only and policy != "at_least_once":
            raise self._core.lost(args, lost.reason) from None

        if attempts > RETRIES:
            raise (self._core.lost if lost.sent else self._core.unsent)(args, lost.reason) from None

    def _refuse_loop(self) -> None:
        message = f"redis pool {self._core.name!r} belongs to another event loop: start a pool in each loop"
        raise UsageError(message, pool=self._core.name)
