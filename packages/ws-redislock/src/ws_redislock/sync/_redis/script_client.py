# Written by tools/generate_sync_locks.py from ws_redislock/_redis/script_client.py; do not edit.
"""Calling scripts on whatever Redis client the user has, with own timeouts and own repetition.

All scripts of this package may be repeated, so a lost reply is answered by sending the script
again. Each attempt has its own timeout; the driver's retry policy, made for other commands, is
left out of it where the client is a plain client of redis-py.

What stands between ``tasks only`` and ``end``, here and elsewhere, has no use for threads: the generator of
the twin (tools/generate_sync_locks.py) leaves it out.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

from redis import exceptions

from ws_core.backoff import delay
from ws_core.errors import UnavailableError, describe
from ws_redislock.sync._concurrency import Loop, check_loop, current_loop, gather, is_closed, sleep
from ws_redislock._lease.lease import boot_time
from ws_redislock.sync._concurrency import Timers

from ws_redislock.sync._redis.clients import (
    HOPELESS,
    TRANSIENT,
    CommandClient,
    RedisSource,
    check_source,
    client_lookup,
    refuse,
    resolve,
)
from ws_redislock.sync._concurrency import CommandSender
from ws_redislock._redis.scripts import Script

Reply: TypeAlias = list[Any]  # Any: integers, and tokens as str or bytes, as the client decodes
Argument: TypeAlias = str | bytes | int


class ScriptClient:
    """Calls scripts on one client."""

    __slots__ = (
        "_sender",
        "client",
        "cluster",
        "timers",
    )

    def __init__(self, client: CommandClient) -> None:
        self.client: CommandClient = client
        self.timers: Timers = Timers(current_loop())
        self._sender = CommandSender(client, self.timers)
        self.cluster: bool = self._sender.cluster

    def subscription(self) -> Any:  # Any: the driver's PubSub is untyped
        """Return a new subscription."""
        return self._sender.subscription()

    def once(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], within: float
    ) -> Reply:
        """Call a script once within so many seconds; raise TimeoutError when no reply came in time."""
        began = boot_time()

        try:
            reply: Reply = self._sender.send(("EVALSHA", script.sha, len(keys), *keys, *args), within)
        except exceptions.NoScriptError:
            within = max(0.001, within - (boot_time() - began))
            reply = self._sender.send(("EVAL", script.text, len(keys), *keys, *args), within)

        return reply

    def call(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Argument],
        *,
        what: tuple[str, str],
        budget: float,
        attempt: float = 1.0,
        doubt: Callable[[], None] | None = None,
    ) -> tuple[float, Reply]:
        """
        Call a script, again and again until it is answered or the budget (seconds) is spent.

        The first attempt may take `attempt` seconds, each next one twice as long. `doubt` is called when an
        attempt was not answered, because it may still arrive. Returns the time just before the answered
        attempt was sent, and its reply.
        """
        # The first attempt is written out, although `once` does nearly the same: nearly all calls have no
        # other one, and this one needs no coroutine of its own.
        began = sent_at = boot_time()

        try:
            return sent_at, self._sender.send(
                ("EVALSHA", script.sha, len(keys), *keys, *args), min(attempt, budget)
            )
        except exceptions.NoScriptError:
            pass
        except TRANSIENT as error:
            if doubt is not None:
                doubt()

            self._pause(error, script, what, budget - (boot_time() - began), 0)
        except exceptions.ResponseError as error:
            refuse(error, script.name, what)
            raise

        budget -= boot_time() - began
        return self._call_again(script, keys, args, what, budget, attempt, doubt)

    def _call_again(
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
        failures = 0

        while True:
            sent_at = boot_time()
            left = max(0.01, end - time.monotonic())

            try:
                return sent_at, self.once(script, keys, args, min(attempt, left))
            except TRANSIENT as error:
                if doubt is not None:
                    doubt()

                failures += 1
                self._pause(error, script, what, end - time.monotonic(), failures)
                attempt *= 2
            except exceptions.ResponseError as error:
                refuse(error, script.name, what)
                raise

    def _pause(
        self, error: Exception, script: Script, what: tuple[str, str], left: float, failures: int
    ) -> None:
        """Wait a little before the next attempt, or give up."""
        if left <= 0 or isinstance(error, HOPELESS):
            raise UnavailableError(
                f"{what[0]} {what[1]!r}: Redis did not answer {script.name.upper()} in time "
                f"({describe(error, with_type=True)}); its outcome will be undone",
                script=script.name,
                name=what[1],
            ) from error

        sleep(min(left, delay(failures + 1, 0.015, 0.75)))

    def hit(
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
        Hit a limiter within so many seconds.

        Returns whether it is allowed, what remains, and two times in microseconds.
        """
        _, reply = self.call(script, (key,), (*args, cost), what=what, budget=within, attempt=within)
        return reply

    def confirmed(
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

        Returns the time before it was sent, the reply, and the number of replicas that confirmed.
        """
        sent_at = boot_time()

        # EVAL, not EVALSHA: a script that the server has forgotten would be sent again after the WAIT for it.
        reply, count = self._sender.send_all(
            [
                ("EVAL", script.text, len(keys), *keys, *args),
                ("WAIT", replicas, max(1, int(within * 500))),  # milliseconds: half of the time
            ],
            within,
        )
        return sent_at, reply, int(count)

    def many(
        self, calls: Sequence[tuple[Script, Sequence[bytes], Sequence[Argument]]], within: float
    ) -> list[Reply | BaseException]:
        """Call scripts within so many seconds, in one round trip where the client can; return errors too."""
        return gather([functools.partial(self.once, *call, within) for call in calls])

    def delete(self, key: bytes, within: float, *, what: tuple[str, str]) -> None:
        """Delete one key within so many seconds."""
        try:
            self._sender.send(("DEL", key), within)
        except TRANSIENT as error:
            raise UnavailableError(f"Redis did not answer DEL within {within:g} s: {error}") from error
        except exceptions.ResponseError as error:
            refuse(error, "del", what)
            raise


class ScriptUser:
    """Calls scripts on a source's client, which is found at the first use, and closed if it was made here."""

    def __init__(self, source: RedisSource, what: str) -> None:
        check_source(source)
        self._source = source
        self._what = what  # it is, for messages
        self._lookup = client_lookup(source)
        self._scripts: ScriptClient | None = None
        self._loop: Loop | None = None
        self._owned: Any = None  # Any: the client made from a URL, of the driver's untyped make

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close an own client."""
        client, self._owned, self._scripts = self._owned, None, None

        if client is not None:
            client.close()

    def _bind(self) -> ScriptClient:
        """Return the script client; a new one where the one before has ended."""
        if self._scripts is None or self._is_outdated(self._scripts):
            client, is_owned = resolve(self._source)
            self._scripts, self._loop = ScriptClient(client), current_loop()
            self._owned = client if is_owned else None
            self._forget()
        else:
            check_loop(self._loop, self._what)

        return self._scripts

    def _is_outdated(self, scripts: ScriptClient) -> bool:
        """Return whether the loop has ended, or a manager that is looked up has another pool by now."""
        # As of an object of a module, for which each test starts the pools anew, in an event loop of its own.
        if is_closed(self._loop):
            return True

        return self._lookup is not None and (
            current_loop() is not self._loop or self._lookup() is not scripts.client
        )

    def _forget(self) -> None:
        """Drop what was known by the client before."""
