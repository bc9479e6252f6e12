"""redis-py's typed client over shared connections.

`SharedRedis` is a `redis.asyncio.Redis`: all typed commands, scripts, pipelines, pub/sub and locks
are redis-py's. What it replaces is how a command reaches the server.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from asyncio import get_running_loop
from collections.abc import Callable, MutableMapping, Sequence
from copy import copy
from typing import Any, Final, Self

from redis import exceptions as driver
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.instrumented import Uninstrumented, execute_instrumented, observed, original_method
from ws_pool._redis.client.pipeline import SharedPipeline
from ws_pool._redis.client.pubsub import SharedPubSub
from ws_pool._redis.client.round_trip import Unblocked, execute_on_dedicated, parsed
from ws_pool._redis.client.session import DedicatedPubSub, DedicatedRedis
from ws_pool._redis.commands.command import Command, CommandInfo, ObservedCallbacks, verb_is_enough
from ws_pool._redis.commands.prefix import KeyPrefix
from ws_pool._redis.commands.retry import RetryPolicy, checked_retry, retry_of
from ws_pool._redis.commands.table import Route
from ws_pool._redis.connection.reconnecting import ReconnectingConnection
from ws_pool._redis.connection.replies import BatchReply
from ws_pool._redis.errors import ConnectionLost, MaybeExecuted
from ws_pool.errors import UsageError

_BEHIND: Final = (driver.BusyLoadingError, driver.MasterDownError)  # of a replica without data to return
_FAILED: Final = (ConnectionLost, driver.ReadOnlyError, *_BEHIND)
RETRIES: Final = 3
_MAX_INFOS: Final = 2_000
SPECIAL: Final = frozenset({NEVER_DECODE, EMPTY_RESPONSE, "retry"})


class SharedRedis(Redis):
    """
    A `redis.asyncio.Redis` whose commands share a few connections with those of all other tasks.

    Made by `ws_pool.redis.RedisPool`.
    """

    applies_prefix = True

    def __init__(self, context: ClientContext, *, retry: RetryPolicy = "safe") -> None:
        super().__init__(connection_pool=context.dedicated)
        self._context = context
        self._retry_policy: RetryPolicy = checked_retry(retry)
        self._shared = context.shared if context.pick_reader is None else None
        self._pick = context.pick_reader or context.pick
        self._loop = context.loop
        self._create_future = context.loop.create_future
        self._infos: dict[Any, CommandInfo] = {}
        self._base: Any = Redis  # where tracing libraries put their wrapper in the place of this method:
        # With a hook every command takes the slower way, that of commands which others trace.
        self._method = original_method() if context.on_command is None else None
        self.use_callbacks(self.response_callbacks)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of redis pool {self._context.name!r}>"

    @property
    def decodes(self) -> bool:
        """Whether replies are text."""
        return self._context.decodes

    @property
    def key_prefix(self) -> KeyPrefix | None:
        """The prefix of keys and channels; None for none."""
        return self._context.prefix if self.applies_prefix else None

    @property
    def unprefixed(self) -> SharedRedis:
        """The same client without the pool's ``prefix``."""
        return self

    def use_callbacks(self, callbacks: MutableMapping[Any, Any]) -> None:
        """Use other response callbacks, such as those of another protocol version."""
        own = ObservedCallbacks(dict(callbacks))
        own.changed = self._infos.clear
        self.response_callbacks: Any = own  # Any: as redis-py declares it
        self._infos.clear()

    def with_retry(self, retry: RetryPolicy) -> Self:
        """
        Return a client on the same connections with another rule for lost connections.

        ``"safe"`` repeats a command only when it was not sent or only reads; ``"at_least_once"`` repeats
        every command, which may then be executed twice.
        """
        client = self._copy()
        client._retry_policy = checked_retry(retry)
        return client

    def reading_from_master(self) -> Self:
        """Return a client on the same connections that also reads from masters only."""
        client = self._copy()
        client._shared, client._pick = self._context.shared, self._context.pick
        return client

    # The hot path of every command is one function on purpose: each further call, and each local name
    # that is looked up twice, shows in the figures of tools/bench. Any: redis-py's own signature.
    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: C901, PLR0912 - see above
        """
        Execute a command and return its parsed reply.

        The options are those of redis-py's response callbacks, and ``retry``; see `with_retry`. An error
        is `MaybeExecuted` (the connection was lost after the command was sent), `UnavailableError` or
        `AcquireTimeout` (it was not sent), or an error of redis-py that the server has returned.
        """
        if self._base.execute_command is not self._method:
            return await self._execute_instrumented(args, options)

        info = self._infos.get(args[0]) or self._learn(args)

        if info.parse:
            return await self._execute_parsed(info, args, options)

        if options:
            options.pop("keys", None)

            if options and not SPECIAL.isdisjoint(options):
                return await self._execute_special(info, Command(args), options)

        if get_running_loop() is not self._loop:
            self._refuse_loop()

        shared = self._shared or self._pick(args)
        connection = shared.connection
        free = len(connection.pending) < connection.limit

        if not free:
            shared.check()  # before the command is packed, so that a refused one costs no memory

        try:
            data = info.pack(args)
        except TypeError:
            data = self._context.encoder.pack(args)

        future = self._create_future()

        # The same as shared.submit(future, data), without its call.
        if free:
            connection.send(future, data)
        else:
            shared.submit(future, data)

        try:
            reply = await future
        except _FAILED as error:
            del future  # it holds the error, whose traceback holds all that is in here
            reply = await self._recover(error, Command(args), data)
        except asyncio.CancelledError:
            shared.note_cancelled(args)
            raise
        except BaseException:
            del future, data
            raise

        callback = info.callback

        if callback is None:
            return reply

        result = callback(reply, **options)

        if info.may_await and inspect.isawaitable(result):
            return await result

        return result

    def set(self, name: Any, value: Any, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Set a key; the plain form skips redis-py's handling of its many options."""
        if args or options:
            return super().set(name, value, *args, **options)

        return self.execute_command("SET", name, value)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> SharedPipeline:
        """Make a pipeline; it shares the connection too, unless it watches keys or is very long."""
        return SharedPipeline(self, self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def pubsub(self, **options: Any) -> PubSub:  # Any: redis-py's own signature
        """Make a PubSub; all of a pool share a connection, but for those with a handler of pushes."""
        if options.get("push_handler_func") is not None:
            return DedicatedPubSub(self._context.dedicated, self.key_prefix, **options)

        context = self._context
        return SharedPubSub(context.subscriptions, context.dedicated, self.key_prefix, **options)

    def client(self) -> DedicatedRedis:
        """Make a client with a dedicated connection, which it acquires at its first use."""
        return DedicatedRedis(
            self._context, connection_pool=self._context.dedicated, callbacks=self.response_callbacks
        )

    async def send_batch(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, none of which may block, as one piece; return their raw replies and errors."""
        if get_running_loop() is not self._loop:
            self._refuse_loop()

        args = [command.args for command in commands]
        shared = self._shared or self._context.pick(*args)
        shared.check()
        data = self._context.encoder.pack_many(args)
        read_only = all(command.read_only for command in commands)

        for attempt in itertools.count(1):
            try:
                return await self._exchange_batch(shared, commands, data)
            except ConnectionLost as lost:
                self._check_retry(lost, attempt, commands[0], self._retry_policy, read_only=read_only)

        raise AssertionError("unreachable")

    def forget(self, commands: Sequence[Command]) -> None:
        """Drop cached replies that commands may change, before and after another connection sends them."""

    def lost(self, command: Command, reason: str) -> MaybeExecuted:
        """Build the error for a command whose reply never came."""
        return self._context.lost(command, reason)

    async def execute_raw(self, args: Sequence[Any]) -> Any:
        """Execute a command, which must not block, and return its reply without redis-py's callback."""
        command = Command(args)
        return await self._send(command, self._context.encoder.pack(args))

    # Inside -----------------------------------------------------------------------------------

    def _copy(self) -> Self:
        """Return a client on the same connections, with all that a subclass has, such as a cache."""
        client = copy(self)
        client._infos = {}
        client.use_callbacks(self.response_callbacks)
        return client

    def _learn(self, args: Sequence[Any]) -> CommandInfo:
        """Remember what a verb alone decides, for the next command with it."""
        verb = args[0]
        encoder = self._context.encoder
        one_word = isinstance(verb, str) and " " not in verb
        info = CommandInfo(
            encoder.pack_plain if one_word else encoder.pack,
            self.response_callbacks.get(verb),
            parse=not verb_is_enough(verb) or Command(args).route is not Route.SHARED,
        )

        # Names of several words are remembered when they hold no arguments: "CLIENT ID", but not "GET a".
        keeps = one_word or (isinstance(verb, str) and Command((verb,)).name == verb)

        if keeps and len(self._infos) < _MAX_INFOS:
            self._infos[verb] = info

        return info

    async def _execute_instrumented(self, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Let those who have wrapped redis-py's method see the command."""
        plain = copy(self)
        plain._base, plain._method = Uninstrumented, Uninstrumented.execute_command
        plain.applies_prefix = False  # it has been applied
        execution = execute_instrumented(self.connection_pool, plain.execute_command, args, options)
        return await observed(self._context.on_command, Command(args).name, execution)

    @property
    def on_command(self) -> Callable[[str, float, BaseException | None], object] | None:
        """The pool's hook."""
        return self._context.on_command

    async def _execute_parsed(self, info: CommandInfo, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Execute a command that blocks, changes the session or has subcommands."""
        command = Command(args)

        if command.route is Route.SHARED:
            return await self._execute_special(info, command, options)

        return await self._execute_dedicated(command, options)

    async def _execute_special(self, info: CommandInfo, command: Command, options: dict[str, Any]) -> Any:
        """Execute on the shared connection with redis-py's special options."""
        if get_running_loop() is not self._loop:
            self._refuse_loop()

        retry = retry_of(options, self._retry_policy)
        raw = options.pop(NEVER_DECODE, None) is not None and self._context.decodes
        data = self._context.encoder.pack(command.args)
        return await parsed(self._send(command, data, raw=raw, retry=retry), info.callback, options)

    async def _execute_dedicated(self, command: Command, options: dict[str, Any]) -> Any:
        """Execute on a dedicated connection, acquired for this one command."""
        retry = retry_of(options, self._retry_policy)
        repeats = RETRIES if retry == "at_least_once" or command.read_only else 0
        moves = RETRIES if self._context.follow_master else 0
        dedicated = self._context.dedicated

        while True:
            shared = self._shared or self._context.pick(command.args)

            try:
                return await execute_on_dedicated(
                    self, self._context, dedicated, shared, command, dict(options)
                )
            except Unblocked as unblocked:
                if not (unblocked.for_us or self._context.follow_master):
                    raise unblocked.error from None

                command = command.shortened(unblocked.seconds)
            except MaybeExecuted:
                if not repeats:
                    raise

                repeats -= 1
            except driver.ReadOnlyError:
                if not moves:
                    raise

                moves -= 1
                await dedicated.disconnect()  # none of them leads to a master any more

    async def _send(
        self, command: Command, data: bytes, *, raw: bool = False, retry: RetryPolicy | None = None
    ) -> Any:
        """Send a packed command and return its reply; repeat it after a loss when that is safe."""
        shared = self._shared or self._pick(command.args)

        try:
            return await self._exchange(shared, command, data, raw=raw)
        except _FAILED as error:
            return await self._recover(error, command, data, raw=raw, retry=retry)

    async def _exchange(
        self, shared: ReconnectingConnection, command: Command, data: bytes, *, raw: bool = False
    ) -> Any:
        """Send a packed command over a connection, once, and return its reply."""
        future = self._create_future()

        try:
            shared.submit(future, data, raw=raw)
            return await future
        except asyncio.CancelledError:
            shared.note_cancelled(command.args)
            raise
        finally:
            del future, data  # an error that the future holds would keep all of this

    async def _exchange_batch(
        self, shared: ReconnectingConnection, commands: Sequence[Command], data: bytes, *, raw: bool = False
    ) -> list[Any]:
        """Send packed commands as one piece, once, and return their replies; ``raw`` for the last of them."""
        future: asyncio.Future[list[Any]] = self._create_future()

        try:
            shared.submit(BatchReply(future, len(commands)), data, count=len(commands), raw=raw)
            return await future
        except asyncio.CancelledError:
            shared.note_cancelled(*(command.args for command in commands))
            raise
        finally:
            del future, data

    async def _recover(
        self,
        error: Exception,
        command: Command,
        data: bytes,
        *,
        raw: bool = False,
        retry: RetryPolicy | None = None,
    ) -> Any:
        """Repeat a command after its connection was lost, or its master has moved, if that is safe."""
        attempts = 0
        policy = retry or self._retry_policy
        pick = self._pick

        while True:
            attempts += 1

            if isinstance(error, ConnectionLost):
                self._check_retry(error, attempts, command, policy, read_only=command.read_only)
            elif isinstance(error, _BEHIND):
                if pick is self._context.pick:
                    raise error

                pick = self._context.pick  # the master has it
            elif not self._context.follow_master or attempts > RETRIES:
                raise error

            shared = self._shared or pick(command.args)

            if isinstance(error, driver.ReadOnlyError):
                shared.drop("the server is not a master any more")

            try:
                return await self._exchange(shared, command, data, raw=raw)
            except _FAILED as again:
                error = again

    def _check_retry(
        self, lost: ConnectionLost, attempts: int, command: Command, policy: RetryPolicy, *, read_only: bool
    ) -> None:
        """Raise unless a command may be repeated after its connection was lost."""
        if lost.sent and not read_only and policy != "at_least_once":
            raise self._context.lost(command, lost.reason) from None

        if attempts > RETRIES:
            raise (self._context.lost if lost.sent else self._context.unsent)(command, lost.reason) from None

    def _refuse_loop(self) -> None:
        message = (
            f"redis pool {self._context.name!r} belongs to another event loop: start a pool in each loop"
        )
        raise UsageError(message, pool=self._context.name)
