"""redis-py's pipeline, sent as one piece over a shared connection."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis import exceptions as driver
from redis.asyncio.client import Pipeline
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from ws_pool._redis.client.context import BatchSender
from ws_pool._redis.client.instrumented import STAND_IN, observed
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.prefix import KeyPrefix
from ws_pool._redis.commands.table import Route
from ws_pool.errors import WsError

MAX_SHARED: Final = 2_000
"""A pipeline of more commands runs on a dedicated connection, so that others need not wait for it."""

_MULTI, _EXEC = Command(("MULTI",)), Command(("EXEC",))

_Entry = tuple[tuple[str | bytes, ...], Mapping[str, Any]]  # Any: redis-py's own types


class PrefixedPipeline(Pipeline):
    """redis-py's pipeline, with the prefix of its pool before all keys."""

    prefix: KeyPrefix | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Execute at once while keys are watched, else queue the command."""
        if self.prefix is not None:
            args = tuple(self.prefix.apply(args))

        return super().execute_command(*args, **options)


class SharedPipeline(PrefixedPipeline):
    """
    A pipeline that shares its connection, unless it watches keys or is very long.

    Made by ``pool.redis.pipeline()``. A transaction is written as one piece, so nothing of other
    tasks comes between its MULTI and its EXEC.
    """

    def __init__(self, client: BatchSender, *args: Any) -> None:
        super().__init__(*args)
        self._client = client
        self.prefix: KeyPrefix | None = client.key_prefix
        self._commands: list[Command] = []

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands and return their parsed replies; errors as of `SharedRedis.execute_command`."""
        replies: list[Any] = await observed(
            self._client.on_command, "PIPELINE", self._execute_all(raise_on_error)
        )
        return replies

    async def _execute_all(self, raise_on_error: bool) -> list[Any]:
        stack = self.command_stack
        commands = [Command(args) for args, _ in stack]

        if not self._may_share(stack, commands):
            return await self._execute_dedicated(commands, raise_on_error)

        if not stack:
            await self.reset()  # type: ignore[no-untyped-call]  # redis-py's
            return []

        # redis-py's execute() is what tracing libraries wrap. With this stand-in for a connection it comes
        # back to load_scripts, _execute_transaction and _execute_pipeline below, and resets in the end.
        self.connection = STAND_IN
        self._commands = commands
        replies: list[Any] = await super().execute(raise_on_error)
        return replies

    async def load_scripts(self) -> None:
        """Load the scripts that the server does not know."""
        if self.connection is not STAND_IN:
            await super().load_scripts()  # type: ignore[no-untyped-call]  # redis-py's
            return

        scripts = list(self.scripts)
        known = await self._client.script_exists(*(script.sha for script in scripts))

        for script, exists in zip(scripts, known, strict=True):
            if not exists:
                script.sha = await self._client.script_load(script.script)

    async def _execute_pipeline(self, connection: Any, commands: Any, raise_on_error: bool) -> Any:
        if connection is not STAND_IN:
            return await super()._execute_pipeline(connection, commands, raise_on_error)

        return await self._share_pipeline(commands, self._commands, raise_on_error)

    async def _execute_transaction(self, connection: Any, commands: Any, raise_on_error: bool) -> Any:
        if connection is not STAND_IN:
            return await super()._execute_transaction(connection, commands, raise_on_error)

        return await self._share_transaction(commands, self._commands, raise_on_error)

    async def immediate_execute_command(
        self, *args: Any, **options: Any
    ) -> Any:  # Any: redis-py's own signature
        """Execute at once, on the connection that watches."""
        command = Command(args)
        self._client.forget([command])

        try:
            return await super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]
        finally:
            self._client.forget([command])

    def _may_share(self, stack: list[_Entry], commands: list[Command]) -> bool:
        """Return whether the commands may be written to a connection that others use as well."""
        if self.connection is not None or self.watching or len(stack) > MAX_SHARED:
            return False

        if any(command.route is not Route.SHARED for command in commands):
            return False

        # The shared connection decodes all replies or none; a dedicated one decides for each.
        return not (self._client.decodes and any(NEVER_DECODE in options for _, options in stack))

    async def _execute_dedicated(self, commands: list[Command], raise_on_error: bool) -> list[Any]:
        self._client.forget(commands)

        try:
            replies: list[Any] = await super().execute(raise_on_error)
        except (driver.ConnectionError, driver.TimeoutError) as error:
            if isinstance(error, driver.BusyLoadingError | WsError):
                raise

            raise self._client.lost(commands[0] if commands else _EXEC, str(error)) from error
        finally:
            self._client.forget(commands)

        return replies

    async def _share_pipeline(
        self,
        stack: list[_Entry],
        commands: list[Command],
        raise_on_error: bool,
    ) -> list[Any]:
        replies = await self._client.send_batch(commands)
        results = [
            await self._parsed(reply, args, options)
            for reply, (args, options) in zip(replies, stack, strict=True)
        ]

        if raise_on_error:
            self.raise_first_error(stack, results)

        return results

    async def _share_transaction(
        self,
        stack: list[_Entry],
        commands: list[Command],
        raise_on_error: bool,
    ) -> list[Any]:
        # What follows is redis-py's _execute_transaction, over replies that are all here already.
        # A command with EMPTY_RESPONSE is not sent: its reply is that option's value.
        sent = [
            command
            for command, (_, options) in zip(commands, stack, strict=True)
            if EMPTY_RESPONSE not in options
        ]
        first, *queued, last = await self._client.send_batch([_MULTI, *sent, _EXEC])
        errors: list[tuple[int, Any]] = [(0, first)] if isinstance(first, driver.ResponseError) else []
        answers = iter(queued)

        for index, (args, options) in enumerate(stack):
            if EMPTY_RESPONSE in options:
                errors.append((index, options[EMPTY_RESPONSE]))
            elif isinstance(answer := next(answers), driver.ResponseError):
                self.annotate_exception(answer, index + 1, args)
                errors.append((index, answer))

        if isinstance(last, driver.ExecAbortError) and errors:
            raise errors[0][1] from last

        if isinstance(last, Exception):
            raise last

        if last is None:
            raise driver.WatchError("Watched variable changed.")

        results: list[Any] = list(last)

        # EXEC has no reply for a command that was refused when it was queued.
        for index, error in errors:
            results.insert(index, error)

        if len(results) != len(stack):
            raise driver.ResponseError("Wrong number of response items from pipeline execution")

        if raise_on_error:
            self.raise_first_error(stack, results)

        return [
            reply if isinstance(reply, Exception) else await self._called_back(reply, args, options)
            for reply, (args, options) in zip(results, stack, strict=True)
        ]

    async def _parsed(self, reply: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Do what redis-py's parse_response does, with a reply that was received already."""
        if isinstance(reply, driver.ResponseError):
            return options.get(EMPTY_RESPONSE, reply)

        if isinstance(reply, Exception):
            raise reply

        rest = {key: value for key, value in options.items() if key not in {NEVER_DECODE, EMPTY_RESPONSE}}

        try:
            return await self._called_back(reply, args, rest)
        except driver.ResponseError as error:
            return error

    async def _called_back(self, reply: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
        callback = self.response_callbacks.get(args[0])

        if callback is None:
            return reply

        result = callback(reply, **{key: value for key, value in options.items() if key != "keys"})
        return await result if inspect.isawaitable(result) else result
