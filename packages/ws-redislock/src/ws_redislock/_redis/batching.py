"""Many calls in one script, when many tasks call at the same time.

What a free lock or a hit on a limiter costs then is not the work but the call. So the calls of one
turn of the loop go together. A call that is not the simple case, and every call after an error, is
made again by itself; all of them may be repeated.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from redis import exceptions

from ws_redislock._lease.lease import boot_time
from ws_redislock._redis.scripts import Script, load

_logger = logging.getLogger("ws_redislock")

Argument: TypeAlias = "str | bytes | int"
Send: TypeAlias = "Callable[[tuple[Argument, ...], float], Awaitable[Any]]"  # Any: a script's reply

Fast: TypeAlias = tuple[tuple[int, int, int, int], str]
"""What all calls of a batch have in common, and "E" or "R" with the token; see ``fast.lua``."""

BATCH_FROM = 6
"""Calls in flight from which further ones are sent together."""

SEVERAL = 32
"""Calls after which a batch is sent although the loop's turn goes on: the server works on it meanwhile."""

LONGEST = 1.0
"""Seconds that a batch may take at most."""

Call = TypeVar("Call")
Answer = TypeVar("Answer")


class Batch(ABC, Generic[Call, Answer]):
    """Collects calls and sends them together."""

    __slots__ = ("_calls", "_loop", "_script", "_send", "_tasks", "_within")

    def __init__(self, send: Send, script: Script) -> None:
        self._send = send
        self._script = script
        self._loop = asyncio.get_running_loop()
        self._calls: list[tuple[Call, asyncio.Future[Answer | None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._within = LONGEST

    def add(self, call: Call, within: float) -> asyncio.Future[Answer | None]:
        """Add a call."""
        future: asyncio.Future[Answer | None] = self._loop.create_future()
        self._calls.append((call, future))

        self._within = min(self._within, within)

        if len(self._calls) == 1:
            self._loop.call_soon(self._flush)
        elif len(self._calls) >= SEVERAL:
            self._flush()

        return future

    def _flush(self) -> None:
        if self._calls:
            calls, self._calls = self._calls, []
            within, self._within = self._within, LONGEST
            task = self._loop.create_task(self._run(calls, within))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, calls: list[tuple[Call, asyncio.Future[Answer | None]]], within: float) -> None:
        keys, args = self._command([call for call, _ in calls])
        began = sent_at = boot_time()
        reply: Sequence[int] = ()
        failure: Exception | None = None

        try:
            try:
                reply = await self._send(("EVALSHA", self._script.sha, len(keys), *keys, *args), within)
            except exceptions.NoScriptError:
                sent_at = boot_time()
                left = max(0.001, within - (sent_at - began))
                reply = await self._send(("EVAL", self._script.text, len(keys), *keys, *args), left)
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            failure = error
            _logger.debug("%d calls that went together were not answered: %r", len(calls), error)
        except Exception as error:  # noqa: BLE001 - each caller asks again, and sees then what is wrong
            _logger.debug("%d calls that went together failed: %r", len(calls), error)
        finally:
            for index, (call, future) in enumerate(calls):
                if future.done():
                    continue  # its caller was cancelled, and undoes whatever the call has done

                if failure is not None:
                    future.set_exception(failure)
                else:
                    future.set_result(self._answer(call, reply, index, sent_at) if reply else None)

    @abstractmethod
    def _command(self, calls: list[Call]) -> tuple[Sequence[bytes], Sequence[Argument]]:
        """Return the keys and arguments for many calls."""

    @abstractmethod
    def _answer(self, call: Call, reply: Sequence[int], index: int, sent_at: float) -> Answer | None:
        """Take one call's answer out of the reply."""


class FastBatch(Batch[tuple[Sequence[bytes], str], tuple[float, list[Any]]]):
    """
    ENTERs and RELEASEs of locks without other users, all with the same options.

    An answer is the time before the call was sent, and the reply that the script for it alone
    would have given. Any: as the replies of those.
    """

    __slots__ = ("_common",)

    def __init__(self, send: Send, common: tuple[int, int, int, int]) -> None:
        super().__init__(send, load("fast"))
        self._common = common

    def _command(
        self, calls: list[tuple[Sequence[bytes], str]]
    ) -> tuple[Sequence[bytes], Sequence[Argument]]:
        keys: list[bytes] = []
        args: list[Argument] = list(self._common)

        for of_lock, call in calls:
            keys += (of_lock[0], of_lock[1], of_lock[4])
            args.append(call)

            if call[0] == "E":
                keys.append(of_lock[3])

        return keys, args

    def _answer(
        self, call: tuple[Sequence[bytes], str], reply: Sequence[int], index: int, sent_at: float
    ) -> tuple[float, list[Any]] | None:
        done = reply[index]

        if not done:
            return None

        return sent_at, [1, done] if call[1][0] == "E" else [1]


class HitBatch(Batch[tuple[bytes, int], Sequence[int]]):
    """Hits on the keys of one limiter: key and cost of each."""

    __slots__ = ("_args",)

    def __init__(self, send: Send, script: Script, args: tuple[int, ...]) -> None:
        super().__init__(send, script)
        self._args = args

    def _command(self, calls: list[tuple[bytes, int]]) -> tuple[Sequence[bytes], Sequence[Argument]]:
        return [key for key, _ in calls], [*self._args, *(cost for _, cost in calls)]

    def _answer(
        self,
        call: tuple[bytes, int],
        reply: Sequence[int],
        index: int,
        sent_at: float,
    ) -> Sequence[int]:
        return reply[4 * index : 4 * index + 4]
