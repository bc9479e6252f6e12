"""redis-py's typed client over the nodes of a cluster."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import get_running_loop
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from redis import exceptions as driver
from redis.asyncio.client import PubSub
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from ws_pool._redis.client.cache import CachingClient
from ws_pool._redis.client.context import ClientContext
from ws_pool._redis.client.pipeline import SharedPipeline
from ws_pool._redis.client.round_trip import execute_on_dedicated
from ws_pool._redis.client.session import DedicatedPubSub, DedicatedRedis
from ws_pool._redis.client.shared import RETRIES, SPECIAL, SharedRedis
from ws_pool._redis.cluster.backoff import ATTEMPTS, OutageBackoff
from ws_pool._redis.cluster.fan_out import EVERYWHERE, SPLIT, SPREAD, merge_replies
from ws_pool._redis.cluster.topology import Topology
from ws_pool._redis.commands.keys import hash_slot
from ws_pool._redis.commands.retry import RetryPolicy, retry_of
from ws_pool._redis.commands.table import Route, canonical, is_read_only, routing_of, split
from ws_pool._redis.connection.pipelined import PipelinedConnection
from ws_pool._redis.connection.replies import BatchReply
from ws_pool._redis.errors import ConnectionLost, MaybeExecuted, UnavailableError
from ws_pool._redis.node import Node
from ws_pool.errors import ClosedError, UsageError

__all__ = (
    "CachingClusterRedis",
    "ClusterPipeline",
    "ClusterRedis",
)

_REDIRECTED: Final = (driver.MovedError, driver.AskError)
_UNSETTLED: Final = (driver.TryAgainError, driver.ClusterDownError, UnavailableError)
_FAILED: Final = (ConnectionLost, *_REDIRECTED, *_UNSETTLED)


class ClusterRedis(SharedRedis):
    """
    A `redis.asyncio.Redis` on a cluster: one shared connection for each master.

    Commands go to the master of their key; those that concern the whole database (FLUSHALL, DBSIZE,
    KEYS, SCRIPT LOAD, ...) go to all masters. DEL, UNLINK, EXISTS and TOUCH of keys of several slots
    are split, which is not atomic. Everything else must keep to one slot, as Redis asks.
    """

    def __init__(self, core: ClientContext, topology: Topology, *, retry: RetryPolicy = "safe") -> None:
        super().__init__(core, retry=retry)
        self.topology = topology
        self._simple = topology.keys.simple - SPREAD

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Execute a command where its key lives; see `SharedRedis.execute_command` for errors."""
        if get_running_loop() is not self._loop:
            self._refuse_loop()

        options.pop("keys", None)

        if args[0] in self._simple and len(args) > 1 and SPECIAL.isdisjoint(options):
            reply = await self._send_simple(args)
            return await self._called_back(args, reply, options)

        retry = retry_of(options, self._retry_policy)
        if routing_of(args) is not Route.SHARED:
            return await self._lease_and_execute(args, options, retry)

        raw = NEVER_DECODE in options and self._core.decodes
        options.pop(NEVER_DECODE, None)

        try:
            reply = await self._ask(args, retry, raw=raw)
        except driver.ResponseError:
            if EMPTY_RESPONSE in options:
                return options[EMPTY_RESPONSE]
            raise

        options.pop(EMPTY_RESPONSE, None)
        return await self._called_back(args, reply, options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> SharedPipeline:  # noqa: FBT001, FBT002 - redis-py's signature
        """Make a pipeline; one with a transaction, or with WATCH, must keep to one slot."""
        return ClusterPipeline(self, self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def client(self) -> DedicatedRedis:
        """Refuse: a cluster has no single session."""
        raise UsageError(
            f"redis pool {self._core.name!r} is a cluster: it has no one session for a client that is alone"
        )

    def pubsub(self, **options: Any) -> PubSub:  # Any: redis-py's own signature
        """Make a PubSub on a node; channels that are not sharded are those of the whole cluster."""
        return DedicatedPubSub(self.topology.node_of(None).leases, **options)

    def pubsub_of(self, channel: str) -> PubSub:
        """
        Make a PubSub on the node of a sharded channel.

        Args:
            channel: The channel.

        Returns:
            The PubSub.
        """
        slot = self.topology.keys.slot(("SSUBSCRIBE", channel))
        return DedicatedPubSub(self.topology.node_of(slot).leases)

    async def scan_iter(  # type: ignore[override]  # redis-py declares the sync shape
        self, *args: Any, **options: Any
    ) -> AsyncIterator[Any]:
        """Iterate over the keys of all masters; the arguments are redis-py's."""
        for node in self.topology.nodes:
            single = _NodeRedis(self, node)

            async for key in super(ClusterRedis, single).scan_iter(*args, **options):
                yield key

    async def send_batch(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send a pipeline: each part where its keys live, a transaction as one piece."""
        if get_running_loop() is not self._loop:
            self._refuse_loop()

        if commands[0] == ("MULTI",):
            return await self._send_transaction(commands)

        parts: dict[int, list[int]] = defaultdict(list)
        slots = [self.topology.keys.slot(command) for command in commands]

        for index, slot in enumerate(slots):
            parts[id(await self._node_of(slot))].append(index)

        replies: list[Any] = [None] * len(commands)

        async def part(indices: list[int]) -> None:
            chosen = [commands[index] for index in indices]
            got = await self._send_part(await self._node_of(slots[indices[0]]), chosen)

            for index, reply in zip(indices, got, strict=True):
                if isinstance(reply, _FAILED):  # it moved meanwhile: once more, alone
                    try:
                        reply = await self._ask(commands[index], self._retry_policy)  # noqa: PLW2901 - the final reply
                    except driver.ResponseError as error:
                        reply = error  # noqa: PLW2901 - as above
                else:
                    self.topology.served(slots[index])

                replies[index] = reply

        await asyncio.gather(*map(part, parts.values()))
        return replies

    async def ask(self, args: Sequence[Any]) -> Any:
        """Execute a command where its key lives; see `SharedRedis.ask`."""
        return await self._ask(args, self._retry_policy)

    # Inside -----------------------------------------------------------------------------------

    async def _called_back(self, args: Sequence[Any], reply: Any, options: dict[str, Any]) -> Any:
        plan = self._plans.get(args[0]) or self._learn(args)

        if plan.callback is None:
            return reply

        result = plan.callback(reply, **options)
        return await result if plan.may_await and inspect.isawaitable(result) else result

    async def _node_of(self, slot: int | None) -> Node:
        """Choose the node for a slot; when none is known, look for one before giving up."""
        try:
            return self.topology.node_of(slot)
        except UnavailableError:
            await asyncio.wait([self.topology.refresh_soon()], timeout=self._core.command_timeout)
            return self.topology.node_of(slot)

    async def _send_simple(self, args: Sequence[Any]) -> Any:
        """Send a command whose first argument is its key, which needs no closer look."""
        packer = self._core.packer
        key = packer.encode(args[1])
        slot = hash_slot(key if isinstance(key, bytes) else bytes(key))
        node = await self._node_of(slot)
        lane = node.lane or node.pick(args)
        future = self._create_future()

        try:
            lane.submit(future, packer.pack(args))
            reply = await future
        except _FAILED as error:
            return await self._send(args, self._retry_policy, failed=(error, node))
        except asyncio.CancelledError:
            lane.abandon(args)
            raise
        finally:
            del future  # it holds the error, whose traceback holds all that is in here

        self.topology.served(slot)
        return reply

    async def _ask(self, args: Sequence[Any], retry: RetryPolicy, *, raw: bool = False) -> Any:
        """Send a command to where it belongs, and put the replies together when these are several."""
        name = canonical(args)

        if name in SPLIT:
            return await self._split(args, retry)

        if name in EVERYWHERE:
            return merge_replies(name, await self._send_to_all(args, retry, raw=raw))

        if name == "SCAN":
            raise UsageError("SCAN has one cursor for each node of a cluster: use scan_iter()")

        return await self._send(args, retry, raw=raw)

    async def _send_to_all(self, args: Sequence[Any], retry: RetryPolicy, *, raw: bool) -> list[Any]:
        """Send a command to all masters, and to those that take the place of one meanwhile."""
        replies: dict[Node, Any] = {}

        while missing := [node for node in self.topology.nodes if node not in replies]:
            given = await asyncio.gather(
                *(self._send(args, retry, node=node, raw=raw) for node in missing), return_exceptions=True
            )

            for node, reply in zip(missing, given, strict=True):
                if not isinstance(reply, BaseException):
                    replies[node] = reply
                elif node in self.topology.nodes or self.topology.closed:
                    raise reply

        return [replies[node] for node in self.topology.nodes]

    async def _split(self, args: Sequence[Any], retry: RetryPolicy) -> Any:
        parts: dict[int | None, list[Any]] = defaultdict(list)

        name, *keys = split(args)

        for key in keys:
            parts[self.topology.keys.slot((name, key))].append(key)

        if len(parts) < 2:
            return await self._send(args, retry)

        return sum(await asyncio.gather(*(self._send((name, *some), retry) for some in parts.values())))

    async def _send(
        self,
        args: Sequence[Any],
        retry: RetryPolicy,
        *,
        node: Node | None = None,
        raw: bool = False,
        failed: tuple[Exception, Node] | None = None,
    ) -> Any:
        """Send a command, and follow it to where its key has moved; ``failed`` was the first attempt."""
        topology = self.topology
        slot = topology.keys.slot(args)
        data = self._core.packer.pack(args)
        read_only = is_read_only(args)
        asking = False
        target = node
        losses = redirects = 0
        patience = OutageBackoff(topology, slot)

        while True:
            try:
                if failed is not None:
                    (error, target), failed = failed, None
                    raise error

                target = target or topology.node_of(slot)
                reply = await self._exchange(target, args, data, asking=asking, raw=raw)
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
            except (ConnectionLost, *_UNSETTLED) as error:
                asking, target = False, node

                if isinstance(error, ConnectionLost):
                    losses += 1
                    topology.refresh_soon()
                    self._check_retry(error, read_only, losses, args, retry)
                else:
                    await patience.wait(error)
                    await asyncio.wait([topology.refresh_soon()], timeout=self._core.command_timeout)
            else:
                topology.served(slot)
                return reply

    async def _exchange(
        self, node: Node, args: Sequence[Any], data: bytes, *, asking: bool, raw: bool
    ) -> Any:
        lane = node.lane or node.pick(args)

        try:
            if not asking:
                slot = self._create_future()
                lane.submit(slot, data, raw=raw)
                return await slot

            both: asyncio.Future[list[Any]] = self._create_future()
            lane.submit(BatchReply(both, 2), self._core.packer.pack(("ASKING",)) + data, count=2)
            reply = (await both)[1]
        except asyncio.CancelledError:
            lane.abandon(args)
            raise

        if isinstance(reply, Exception):
            raise reply

        return reply

    async def _send_part(self, node: Node, commands: Sequence[Sequence[Any]]) -> list[Any]:
        data = self._core.packer.pack_many(commands)
        losses = 0

        while True:
            future: asyncio.Future[list[Any]] = self._create_future()
            lane = node.lane or node.pick(*commands)

            try:
                lane.submit(BatchReply(future, len(commands)), data, count=len(commands))
                return await future
            except asyncio.CancelledError:
                lane.abandon(*commands)
                raise
            except ConnectionLost as lost:
                losses += 1
                self.topology.refresh_soon()
                self._check_retry(
                    lost, all(map(is_read_only, commands)), losses, commands[0], self._retry_policy
                )

                if node not in self.topology.nodes:
                    return [UnavailableError(lost.reason)] * len(commands)
            except UnavailableError as error:
                self.topology.refresh_soon()
                return [error] * len(commands)  # not sent: each is tried again where it belongs now

    async def _send_transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        slots = {self.topology.keys.slot(command) for command in commands} - {None}

        if len(slots) > 1:
            raise driver.RedisClusterException("a transaction on a cluster must keep to keys of one slot")

        slot = next(iter(slots), None)
        patience = OutageBackoff(self.topology, slot)

        while True:
            node = await self._node_of(slot)
            replies = await self._send_part(node, commands)
            problem = next((reply for reply in replies if isinstance(reply, _FAILED)), None)

            if problem is None:
                self.topology.served(slot)
                return replies

            if isinstance(problem, driver.MovedError):
                await self.topology.moved(problem.slot_id, problem.host, problem.port, node)

            try:  # EXEC was refused, so nothing has happened: wait until the slot has arrived
                await patience.wait(problem)
            except _FAILED:
                return replies

    async def _lease_and_execute(
        self, args: Sequence[Any], options: dict[str, Any], retry: RetryPolicy
    ) -> Any:
        """Execute on a lent connection to the node of the key, and follow the key to where it has moved."""
        topology = self.topology
        slot = topology.keys.slot(args)
        again = RETRIES if retry == "at_least_once" or is_read_only(args) else 0
        patience = OutageBackoff(topology, slot)
        importing: Node | None = None  # where a slot is on its way to
        redirects = 0

        while True:
            target, importing = importing, None
            asking = target is not None

            try:
                node = target or await self._node_of(slot)
                lane = node.lane or node.pick(args)
                reply = await execute_on_dedicated(
                    self, self._core, node.leases, lane, args, dict(options), asking=asking
                )
            except MaybeExecuted:
                topology.refresh_soon()

                if not again:
                    raise

                again -= 1
            except (*_REDIRECTED, ClosedError) as error:
                redirects += 1

                if redirects > ATTEMPTS:
                    raise

                importing = await self._redirected(error, node)
            except _UNSETTLED as error:
                await patience.wait(error)
                await asyncio.wait([topology.refresh_soon()], timeout=self._core.command_timeout)
            else:
                topology.served(slot)
                return reply

    async def _redirected(self, error: Exception, node: Node) -> Node | None:
        """Follow a redirection; give the node to ask when a slot is on its way to it."""
        topology = self.topology

        if isinstance(error, driver.AskError):
            return await topology.node_at(error.host, error.port, node)

        if isinstance(error, driver.MovedError):
            await topology.moved(error.slot_id, error.host, error.port, node)
        elif node in topology.nodes or topology.closed:
            raise error

        return None


class _NodeRedis(ClusterRedis):
    """The same client, kept to one node."""

    def __init__(self, client: ClusterRedis, node: Node) -> None:
        super().__init__(client._core, client.topology)  # noqa: SLF001 - its own kind
        self.use_callbacks(client.response_callbacks)
        self._node = node

    async def _ask(self, args: Sequence[Any], retry: RetryPolicy, *, raw: bool = False) -> Any:
        return await self._send(args, retry, node=self._node, raw=raw)


class ClusterPipeline(SharedPipeline):
    """A pipeline whose WATCH takes a connection to the node of the watched key."""

    _client: ClusterRedis

    def _may_share(self, stack: list[Any]) -> bool:
        """Share in all cases but WATCH: a connection of one's own leads to one node only."""
        if self.connection is not None or self.watching:
            return False

        alone = [canonical(args) for args, _ in stack if routing_of(args) is not Route.SHARED]
        raw = [canonical(args) for args, options in stack if self._client.decodes and NEVER_DECODE in options]

        if alone or raw:
            names = ", ".join(sorted({*alone, *raw}))
            raise UsageError(f"a pipeline on a cluster cannot hold {names}: execute it alone")

        return True

    async def immediate_execute_command(
        self, *args: Any, **options: Any
    ) -> Any:  # Any: redis-py's own signature
        """Execute at once, on the node of the first key."""
        if self.connection is None:
            topology = self._client.topology
            self.connection_pool = topology.node_of(topology.keys.slot(args)).leases

        try:
            return await super().immediate_execute_command(*args, **options)
        except driver.MovedError:
            self._client.topology.refresh_soon()
            raise


class CachingClusterRedis(CachingClient, ClusterRedis):  # type: ignore[misc]  # as redis-py's mixins clash
    """A shared client of a cluster with a cache of its own."""

    def _links(self) -> Sequence[PipelinedConnection]:
        return [lane.link for node in self.topology.nodes for lane in node.lanes]
