"""redis-py's typed client over the nodes of a cluster."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import get_running_loop
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from copy import copy
from typing import Any, Final, Self

from redis import exceptions as driver
from redis.client import NEVER_DECODE

from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.pipeline import SharedPipeline
from ws_pool._redis.client.round_trip import Unblocked, execute_on_dedicated
from ws_pool._redis.client.session import DedicatedRedis
from ws_pool._redis.client.shared import RETRIES, SPECIAL, SharedRedis
from ws_pool._redis.cluster.backoff import ATTEMPTS, OutageBackoff
from ws_pool._redis.cluster.fan_out import (
    EVERYWHERE,
    SPLIT,
    SPREAD,
    failure_of,
    merge_replies,
    merge_split,
    part_of,
    split_keys,
)
from ws_pool._redis.cluster.topology import Topology
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.keys import hash_slot
from ws_pool._redis.commands.retry import RetryPolicy, retry_of
from ws_pool._redis.commands.table import REPLICA_READS, Route
from ws_pool._redis.errors import ConnectionLost, MaybeExecuted, UnavailableError
from ws_pool._redis.node import Node
from ws_pool._redis.options import ReadFrom
from ws_pool.errors import ClosedError, UsageError, WsError

_REDIRECTED: Final = (driver.MovedError, driver.AskError)
_UNSETTLED: Final = (driver.TryAgainError, driver.ClusterDownError, UnavailableError)
_BEHIND: Final = (driver.BusyLoadingError, driver.MasterDownError)
"""What a replica replies that has no data yet, or none that it may return."""

_ASKING: Final = Command(("ASKING",))
_FAILED: Final = (ConnectionLost, *_REDIRECTED, *_UNSETTLED)


class ClusterRedis(SharedRedis):
    """
    A `redis.asyncio.Redis` on a cluster: one shared connection for each master.

    Commands go to the master of their key; those that concern the whole database (FLUSHALL, DBSIZE,
    KEYS, SCRIPT LOAD, ...) go to all masters. DEL, UNLINK, EXISTS, TOUCH, MGET and MSET of keys of
    several slots are split, which is not atomic. Everything else must keep to one slot, as Redis requires.
    A command of several parts raises only when all of them have ended.
    """

    def __init__(
        self,
        context: ClientContext,
        topology: Topology,
        *,
        retry: RetryPolicy = "safe",
        read_from: ReadFrom = "master",
    ) -> None:
        super().__init__(context, retry=retry)
        self.topology = topology
        self._simple = topology.keys.simple - SPREAD
        self.read_from: ReadFrom = read_from
        self._node: Node | None = None  # all commands go there, of a copy for `scan_iter`

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Execute a command where its key lives; errors as of `SharedRedis.execute_command`."""
        if self._base.execute_command is not self._method:
            return await self._execute_instrumented(args, options)

        if get_running_loop() is not self._loop:
            self._refuse_loop()

        options.pop("keys", None)
        info = self._infos.get(args[0]) or self._learn(args)

        # Most commands have their key as first argument: they are not parsed.
        if args[0] in self._simple and len(args) > 1 and SPECIAL.isdisjoint(options):
            reply = await self._send_simple(args)

            if info.callback is None:
                return reply

            result = info.callback(reply, **options)
            return await result if info.may_await and inspect.isawaitable(result) else result

        return await self._execute_parsed(info, args, options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> SharedPipeline:
        """Make a pipeline; one with a transaction, or with WATCH, must keep to one slot."""
        return ClusterPipeline(self, self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def reading_from_master(self) -> Self:
        """Return a client on the same connections that also reads from masters only."""
        client = super().reading_from_master()
        client.read_from = "master"
        return client

    def client(self) -> DedicatedRedis:
        """Refuse: a cluster has no single session."""
        raise UsageError(
            f"redis pool {self._context.name!r} is a cluster: it has no single session, so there is no"
            " client(); use pool.redis"
        )

    async def scan_iter(  # type: ignore[override]  # redis-py declares the sync shape
        self, *args: Any, **options: Any
    ) -> AsyncIterator[Any]:
        """Iterate over the keys of all masters; the arguments are redis-py's."""
        for node in self.topology.nodes:
            single = copy(self)
            single._node = node

            async for key in super(ClusterRedis, single).scan_iter(*args, **options):
                yield key

    async def send_batch(self, commands: Sequence[Command]) -> list[Any]:
        """Send a pipeline: each part where its keys live, a transaction as one piece."""
        if get_running_loop() is not self._loop:
            self._refuse_loop()

        if commands[0].name == "MULTI":
            return await self._send_transaction(commands)

        parts: dict[int, list[int]] = defaultdict(list)
        slots = [self.topology.keys.slot(command) for command in commands]

        for index, slot in enumerate(slots):
            parts[id(await self._node_of(slot))].append(index)

        # No part may run on after the caller has an error: what it wrote would come after what the
        # caller does next. So all parts end first, and only then one error speaks for all of them.
        ends = await asyncio.gather(
            *(
                self._send_part([(commands[index], slots[index]) for index in indices])
                for indices in parts.values()
            ),
            return_exceptions=True,
        )
        replies: list[Any] = [None] * len(commands)

        for indices, end in zip(parts.values(), ends, strict=True):
            for number, index in enumerate(indices):
                replies[index] = end if isinstance(end, BaseException) else end[number]

        self._raise_failure(commands, replies)
        return replies

    # Inside -----------------------------------------------------------------------------------

    def _raise_failure(self, commands: Sequence[Command], outcomes: Sequence[Any]) -> None:
        """Raise one error for a batch when some of its commands have no reply of the server."""
        if not any(isinstance(outcome, WsError) for outcome in outcomes):
            return

        # An error that the server has returned is a reply of its command, as in any pipeline.
        replies = [None if isinstance(outcome, driver.ResponseError) else outcome for outcome in outcomes]
        parts = [f"command {number} ({command.name})" for number, command in enumerate(commands, 1)]
        read_only = all(command.read_only for command in commands)
        self._check_parts("a pipeline", parts, replies, read_only=read_only)

    def _check_parts(
        self, what: str, parts: Sequence[object], outcomes: Sequence[Any], *, read_only: bool
    ) -> None:
        """Raise one error for a command that was sent in parts, of which one has failed."""
        failure = failure_of(self._context.name, what, parts, outcomes, read_only=read_only)

        if failure is not None:
            raise failure

    async def _refreshed(self) -> None:
        """Wait until the topology is refreshed, as long as for a reply."""
        await asyncio.wait([self.topology.refresh_soon()], timeout=self._context.command_timeout)

    async def _node_of(self, slot: int | None) -> Node:
        """Return the node of a slot; when none is known, refresh the topology once before failing."""
        try:
            return self.topology.node_of(slot)
        except UnavailableError:
            await self._refreshed()
            return self.topology.node_of(slot)

    async def _send_simple(self, args: Sequence[Any]) -> Any:
        """Send a command whose first argument is its key."""
        encoder = self._context.encoder
        key = encoder.encode(args[1])
        slot = hash_slot(key if isinstance(key, bytes) else bytes(key))
        node = await self._node_of(slot)

        if self.read_from != "master" and args[0] in REPLICA_READS:
            node = self.topology.reader_of(slot, self.read_from)

        shared = node.shared or node.pick(args)
        future = self._create_future()
        data = encoder.pack(args)

        try:
            shared.submit(future, data)
            reply = await future
        except (*_FAILED, driver.BusyLoadingError) as error:
            if self._is_behind(error, node):
                return await self._follow(Command(args), data, self._retry_policy, behind=True)

            if isinstance(error, driver.BusyLoadingError):
                raise

            return await self._follow(Command(args), data, self._retry_policy, failed=(error, node))
        except asyncio.CancelledError:
            shared.note_cancelled(args)
            raise
        finally:
            del future  # it holds the error, whose traceback holds all that is in here

        self.topology.served(slot)
        return reply

    async def _send(
        self, command: Command, data: bytes, *, raw: bool = False, retry: RetryPolicy | None = None
    ) -> Any:
        """Send a command to the nodes that it concerns, and merge their replies when there are several."""
        policy = retry or self._retry_policy

        if self._node is not None:
            return await self._follow(command, data, policy, node=self._node, raw=raw)

        if command.name in SPLIT:
            return await self._split(command, data, policy, raw=raw)

        if command.name in EVERYWHERE:
            return merge_replies(command.name, await self._send_to_all(command, data, policy, raw=raw))

        if command.name == "SCAN":
            raise UsageError("SCAN has one cursor for each node of a cluster: use scan_iter()")

        return await self._follow(command, data, policy, raw=raw)

    async def _send_to_all(
        self, command: Command, data: bytes, retry: RetryPolicy, *, raw: bool
    ) -> list[Any]:
        """Send a command to all masters, and to those that replace one meanwhile."""
        replies: dict[Node, Any] = {}

        while missing := [node for node in self.topology.nodes if node not in replies]:
            given = await asyncio.gather(
                *(self._follow(command, data, retry, node=node, raw=raw) for node in missing),
                return_exceptions=True,
            )

            # A node that has left meanwhile has no keys any more: its successors are asked next.
            kept = {node for node in missing if node in self.topology.nodes or self.topology.closed}
            replies |= {
                node: reply
                for node, reply in zip(missing, given, strict=True)
                if node in kept or not isinstance(reply, BaseException)
            }

        outcomes = [replies[node] for node in self.topology.nodes]
        self._check_parts(command.name, self.topology.nodes, outcomes, read_only=command.read_only)
        return outcomes

    async def _split(self, command: Command, data: bytes, retry: RetryPolicy, *, raw: bool) -> Any:
        """Send each part of a command to where its keys live."""
        encoder = self._context.encoder
        parts = list(split_keys(command, lambda key: hash_slot(bytes(encoder.encode(key)))).values())

        if len(parts) < 2:
            return await self._follow(command, data, retry, raw=raw)

        commands = [part_of(command, numbers) for numbers in parts]
        outcomes = await asyncio.gather(  # all end before one may raise: see send_batch
            *(self._follow(part, encoder.pack(part.args), retry, raw=raw) for part in commands),
            return_exceptions=True,
        )
        keys = [self.topology.keys.keys(part) for part in commands]
        self._check_parts(command.name, keys, outcomes, read_only=command.read_only)
        return merge_split(command, parts, outcomes)

    async def _follow(
        self,
        command: Command,
        data: bytes,
        retry: RetryPolicy,
        *,
        node: Node | None = None,
        raw: bool = False,
        failed: tuple[Exception, Node] | None = None,
        behind: bool = False,
    ) -> Any:
        """Send a command, and follow its key to other nodes; ``failed`` was the first attempt."""
        # Three kinds of failures, each with its own bound:
        # - the server names another node (MOVED: for good, ASK: for this command only, while a slot
        #   moves): go there at once, at most ATTEMPTS times;
        # - the cluster is not whole (TRYAGAIN, CLUSTERDOWN, no connection): nothing was executed, so wait
        #   and look for the slot's node again, at most outage_timeout seconds;
        # - the connection was lost after the command was sent: repeat it only where the retry rule allows.
        topology = self.topology
        slot = topology.keys.slot(command)
        asking = False
        target = node
        losses = redirects = 0
        backoff = OutageBackoff(topology, slot)

        while True:
            try:
                if failed is not None:
                    (error, target), failed = failed, None
                    raise error

                again = losses or redirects or behind
                target = target or self._reader_of(slot, command.name, again=bool(again))
                reply = await self._send_once(target, command, data, asking=asking, raw=raw)
            except (*_REDIRECTED, ClosedError) as error:
                redirects += 1

                if (
                    redirects > ATTEMPTS
                    or target is None
                    or (isinstance(error, ClosedError) and node is not None)
                ):
                    raise

                target = await self._redirected(error, target)
                asking = target is not None
            except (ConnectionLost, *_UNSETTLED, driver.BusyLoadingError) as error:
                was_behind, behind = behind, self._is_behind(error, target)
                asking, target = False, node

                if behind and not was_behind:
                    continue

                if isinstance(error, driver.BusyLoadingError):
                    raise

                if isinstance(error, ConnectionLost):
                    losses += 1
                    topology.refresh_soon()
                    self._check_retry(error, losses, command, retry, read_only=command.read_only)
                else:
                    await backoff.wait(error)
                    await self._refreshed()
            else:
                topology.served(slot)
                return reply

    def _reader_of(self, slot: int | None, name: str, *, again: bool) -> Node:
        """Return the node for a command: after a failure, and for what does more than read, the master."""
        return self.topology.reader_of(
            slot, "master" if again or name not in REPLICA_READS else self.read_from
        )

    def _is_behind(self, error: Exception, node: Node | None) -> bool:
        """Return whether an error is that of a replica which has no data to return."""
        return isinstance(error, _BEHIND) and node is not None and node not in self.topology.nodes

    async def _send_once(self, node: Node, command: Command, data: bytes, *, asking: bool, raw: bool) -> Any:
        shared = node.shared or node.pick(command.args)

        if not asking:
            return await self._exchange(shared, command, data, raw=raw)

        # ASKING counts for the next command of its connection only, so both are one piece.
        both = self._context.encoder.pack(_ASKING.args) + data
        _, reply = await self._exchange_batch(shared, (_ASKING, command), both, raw=raw)

        if isinstance(reply, Exception):
            raise reply

        return reply

    async def _send_part(self, part: Sequence[tuple[Command, int | None]]) -> list[Any]:
        """Send the commands of one node; repeat those alone whose slot has moved meanwhile."""
        replies = await self._send_together(await self._node_of(part[0][1]), [command for command, _ in part])
        problem: Exception | None = None

        for index, (command, slot) in enumerate(part):
            if not isinstance(replies[index], _FAILED):
                self.topology.served(slot)
            elif problem is not None:
                replies[index] = problem  # a command before it has waited for the same node in vain
            else:
                try:
                    replies[index] = await self.execute_raw(command.args)
                except driver.ResponseError as error:
                    replies[index] = error
                except WsError as error:
                    replies[index] = problem = error

        return replies

    async def _send_together(self, node: Node, commands: Sequence[Command]) -> list[Any]:
        """Send commands to one node as one piece; return replies, and errors for those to be repeated."""
        args = [command.args for command in commands]
        data = self._context.encoder.pack_many(args)
        read_only = all(command.read_only for command in commands)
        losses = 0

        while True:
            shared = node.shared or node.pick(*args)

            try:
                return await self._exchange_batch(shared, commands, data)
            except ConnectionLost as lost:
                losses += 1
                self.topology.refresh_soon()
                self._check_retry(lost, losses, commands[0], self._retry_policy, read_only=read_only)

                if node not in self.topology.nodes:
                    return [UnavailableError(lost.reason)] * len(commands)
            except UnavailableError as error:
                self.topology.refresh_soon()
                return [error] * len(commands)  # not sent: each is tried again where its slot is now

    async def _send_transaction(self, commands: Sequence[Command]) -> list[Any]:
        slots = {self.topology.keys.slot(command) for command in commands} - {None}

        if len(slots) > 1:
            raise driver.RedisClusterException("a transaction on a cluster must keep to keys of one slot")

        slot = next(iter(slots), None)
        backoff = OutageBackoff(self.topology, slot)

        while True:
            node = await self._node_of(slot)
            replies = await self._send_together(node, commands)
            problem = next((reply for reply in replies if isinstance(reply, _FAILED)), None)

            if problem is None:
                self.topology.served(slot)
                return replies

            if isinstance(problem, driver.MovedError):
                await self.topology.moved(problem.slot_id, problem.host, problem.port, node)

            # A redirected command makes the server refuse EXEC, so nothing was executed: unlike a single
            # command, the transaction cannot follow an ASK, but waits until the slot has arrived.
            try:
                await backoff.wait(problem)
            except _FAILED:
                return replies

    async def _execute_dedicated(self, command: Command, options: dict[str, Any]) -> Any:
        """Execute on a dedicated connection to the node of the key, and follow the key to other nodes."""
        retry = retry_of(options, self._retry_policy)
        topology = self.topology
        slot = topology.keys.slot(command)
        repeats = RETRIES if retry == "at_least_once" or command.read_only else 0
        backoff = OutageBackoff(topology, slot)
        importing: Node | None = None  # the node that a slot is moving to
        redirects = 0

        while True:
            target, importing = importing, None
            asking = target is not None

            try:
                node = target or await self._node_of(slot)
                shared = node.shared or node.pick(command.args)
                reply = await execute_on_dedicated(
                    self, self._context, node.dedicated, shared, command, dict(options), asking=asking
                )
            except Unblocked as unblocked:  # its node is a replica now: the new topology is needed
                command = command.shortened(unblocked.seconds)
                await self._refreshed()
            except MaybeExecuted:
                topology.refresh_soon()

                if not repeats:
                    raise

                repeats -= 1
            except (*_REDIRECTED, ClosedError) as error:
                redirects += 1

                if redirects > ATTEMPTS:
                    raise

                importing = await self._redirected(error, node)
            except _UNSETTLED as error:
                await backoff.wait(error)
                await self._refreshed()
            else:
                topology.served(slot)
                return reply

    async def _redirected(self, error: Exception, node: Node) -> Node | None:
        """Follow a redirection; return the node to use once, when a slot is moving to it."""
        topology = self.topology

        if isinstance(error, driver.AskError):
            return await topology.node_at(error.host, error.port, node)

        if isinstance(error, driver.MovedError):
            await topology.moved(error.slot_id, error.host, error.port, node)
        elif node in topology.nodes or topology.closed:
            raise error  # closed by the pool, not because its slots have moved

        return None


class ClusterPipeline(SharedPipeline):
    """A pipeline whose WATCH uses a dedicated connection to the node of the watched key."""

    _client: ClusterRedis

    def _may_share(self, stack: list[Any], commands: list[Command]) -> bool:
        """Share in all cases but WATCH: a dedicated connection leads to one node only."""
        if self.connection is not None or self.watching:
            return False

        names = {command.name for command in commands if command.route is not Route.SHARED}

        if self._client.decodes:
            raw = zip(commands, stack, strict=True)
            names |= {command.name for command, (_, options) in raw if NEVER_DECODE in options}

        if names:
            message = f"a pipeline on a cluster cannot hold {', '.join(sorted(names))}: execute it alone"
            raise UsageError(message)

        return True

    async def immediate_execute_command(
        self, *args: Any, **options: Any
    ) -> Any:  # Any: redis-py's own signature
        """Execute at once, on the node of the first key."""
        if self.connection is None:
            topology = self._client.topology
            self.connection_pool = topology.node_of(topology.keys.slot(Command(args))).dedicated

        try:
            return await super().immediate_execute_command(*args, **options)
        except driver.MovedError:
            self._client.topology.refresh_soon()
            raise
