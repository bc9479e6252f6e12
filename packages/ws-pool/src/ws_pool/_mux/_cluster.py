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

from ws_pool._mux._client import SPECIAL, AloneRedis, Core, SharedRedis
from ws_pool._mux._commands import Route, canonical, is_read_only, route_of
from ws_pool._mux._errors import LinkLost, UnavailableError
from ws_pool._mux._link import Batch
from ws_pool._mux._node import Node
from ws_pool._mux._pipeline import SharedPipeline
from ws_pool._mux._pubsub import LentPubSub
from ws_pool._mux._retry import RetryPolicy, retry_of
from ws_pool._mux._slots import slot_of
from ws_pool._mux._topology import Topology
from ws_pool.errors import ClosedError, UsageError

__all__ = ("ClusterRedis",)

_REDIRECTS: Final = 16
_PAUSE: Final = 0.05  # seconds to wait for a slot that is on its way, or a cluster that is not whole
_LONGER_PAUSE: Final = 0.25  # the same, when it takes longer
_REDIRECTED: Final = (driver.MovedError, driver.AskError)
_UNSETTLED: Final = (driver.TryAgainError, driver.ClusterDownError, UnavailableError)
_FAILED: Final = (LinkLost, *_REDIRECTED, *_UNSETTLED)

_EVERYWHERE: Final = frozenset(
    {
        "CONFIG RESETSTAT",
        "CONFIG REWRITE",
        "CONFIG SET",
        "FLUSHALL",
        "FLUSHDB",
        "FUNCTION DELETE",
        "FUNCTION FLUSH",
        "FUNCTION LOAD",
        "FUNCTION RESTORE",
        "PING",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "SCRIPT LOAD",
    }
)
_SUMMED: Final = frozenset({"DBSIZE"})
_JOINED: Final = frozenset({"KEYS"})
_ALL_TRUE: Final = frozenset({"SCRIPT EXISTS"})
_SPLIT: Final = frozenset({"DEL", "EXISTS", "TOUCH", "UNLINK"})
_ELSEWHERE: Final = _EVERYWHERE | _SUMMED | _JOINED | _ALL_TRUE | _SPLIT


class ClusterRedis(SharedRedis):
    """
    A `redis.asyncio.Redis` on a cluster: one shared connection for each master.

    Commands go to the master of their key; those that concern the whole database (FLUSHALL, DBSIZE,
    KEYS, SCRIPT LOAD, ...) go to all masters. DEL, UNLINK, EXISTS and TOUCH of keys of several slots
    are split, which is not atomic. Everything else must keep to one slot, as Redis asks.
    """

    def __init__(self, core: Core, topology: Topology, *, retry: RetryPolicy = "safe") -> None:
        super().__init__(core, retry=retry)
        self.topology = topology
        self._simple = topology.keys.simple - _ELSEWHERE

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own signature
        """Execute a command where its key lives; see `SharedRedis.execute_command` for errors."""
        if get_running_loop() is not self._loop:
            self._refuse_loop()

        options.pop("keys", None)

        if args[0] in self._simple and len(args) > 1 and SPECIAL.isdisjoint(options):
            reply = await self._send_simple(args)
            return await self._called_back(args, reply, options)

        retry = retry_of(options, self._retry_policy)
        route = route_of(args)

        if route is not Route.SHARED:
            return await self._lease_and_execute(route, args, options)

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
        return _ClusterPipeline(self, self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def client(self) -> AloneRedis:
        """Refuse: a cluster has no single session."""
        raise UsageError(
            f"redis pool {self._core.name!r} is a cluster: it has no one session for a client that is alone"
        )

    def pubsub(self, **options: Any) -> PubSub:  # Any: redis-py's own signature
        """Make a PubSub on a node; channels that are not sharded are those of the whole cluster."""
        return LentPubSub(self.topology.node_of(None).leases, **options)

    def pubsub_of(self, channel: str) -> PubSub:
        """
        Make a PubSub on the node of a sharded channel.

        Args:
            channel: The channel.

        Returns:
            The PubSub.
        """
        slot = self.topology.keys.slot(("SSUBSCRIBE", channel))
        return LentPubSub(self.topology.node_of(slot).leases)

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
        node = await self._node_of(slot_of(key if isinstance(key, bytes) else bytes(key)))
        lane = node.lane or node.pick()
        slot = self._create_future()

        try:
            lane.submit(slot, packer.pack(args))
            return await slot
        except _FAILED as error:
            return await self._send(args, self._retry_policy, failed=(error, node))

    async def _ask(self, args: Sequence[Any], retry: RetryPolicy, *, raw: bool = False) -> Any:
        """Send a command to where it belongs, and put the replies together when these are several."""
        name = canonical(args)

        if name in _SPLIT:
            return await self._split(args, retry)

        if name in _EVERYWHERE | _SUMMED | _JOINED | _ALL_TRUE:
            replies = await self._send_to_all(args, retry, raw=raw)

            if name in _SUMMED:
                return sum(replies)

            if name in _JOINED:
                return [key for reply in replies for key in reply]

            return [min(flags) for flags in zip(*replies, strict=True)] if name in _ALL_TRUE else replies[0]

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

        for key in args[1:]:
            parts[self.topology.keys.slot((args[0], key))].append(key)

        if len(parts) < 2:
            return await self._send(args, retry)

        return sum(await asyncio.gather(*(self._send((args[0], *keys), retry) for keys in parts.values())))

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
        patience = _Patience(topology.patience)

        while True:
            try:
                if failed is not None:
                    (error, target), failed = failed, None
                    raise error

                target = target or topology.node_of(slot)
                return await self._exchange(target, data, asking=asking, raw=raw)
            except _FAILED as problem:
                asking, error = False, problem

                if isinstance(error, LinkLost):
                    losses += 1
                    topology.refresh_soon()
                    self._check_retry(error, read_only, losses, args, retry)
                    target = node
                elif not isinstance(error, _REDIRECTED):
                    await patience.wait(error)
                    await asyncio.wait([topology.refresh_soon()], timeout=self._core.command_timeout)
                    target = node
                elif (redirects := redirects + 1) > _REDIRECTS:
                    raise
                elif isinstance(error, driver.MovedError):
                    assert target is not None  # noqa: S101 - it has answered
                    await topology.moved(error.slot_id, error.host, error.port, target)
                    target = None
                else:
                    assert target is not None  # noqa: S101 - it has answered
                    target = await topology.node_at(error.host, error.port, target)
                    asking = True

    async def _exchange(self, node: Node, data: bytes, *, asking: bool, raw: bool) -> Any:
        lane = node.lane or node.pick()

        if not asking:
            slot = self._create_future()
            lane.submit(slot, data, raw=raw)
            return await slot

        both: asyncio.Future[list[Any]] = self._create_future()
        lane.submit(Batch(both, 2), self._core.packer.pack(("ASKING",)) + data, count=2)
        reply = (await both)[1]

        if isinstance(reply, Exception):
            raise reply

        return reply

    async def _send_part(self, node: Node, commands: Sequence[Sequence[Any]]) -> list[Any]:
        data = self._core.packer.pack_many(commands)
        losses = 0

        while True:
            future: asyncio.Future[list[Any]] = self._create_future()

            try:
                (node.lane or node.pick()).submit(Batch(future, len(commands)), data, count=len(commands))
                return await future
            except LinkLost as lost:
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
        patience = _Patience(self.topology.patience)

        while True:
            node = await self._node_of(slot)
            replies = await self._send_part(node, commands)
            problem = next((reply for reply in replies if isinstance(reply, _FAILED)), None)

            if problem is None:
                return replies

            if isinstance(problem, driver.MovedError):
                await self.topology.moved(problem.slot_id, problem.host, problem.port, node)

            try:  # EXEC was refused, so nothing has happened: wait until the slot has arrived
                await patience.wait(problem)
            except _FAILED:
                return replies

    async def _lease_and_execute(self, route: Route, args: Sequence[Any], options: dict[str, Any]) -> Any:
        slot = self.topology.keys.slot(args)

        for attempt in range(_REDIRECTS + 1):
            node = await self._node_of(slot)

            try:
                return await self._on_lease(node.leases, node.lane or node.pick(), route, args, dict(options))
            except driver.MovedError as error:
                if attempt == _REDIRECTS:
                    raise

                await self.topology.moved(error.slot_id, error.host, error.port, node)
            except ClosedError:
                if attempt == _REDIRECTS or node in self.topology.nodes or self.topology.closed:
                    raise

        raise AssertionError("unreachable")  # the last attempt returns or raises


class _Patience:
    """
    How long one caller waits for a cluster that is not whole.

    A node that was gone for too long already is given up after a number of attempts; while the
    cluster says that it is down, or a slot that it is on its way, time counts.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = 0.0
        self._attempts = 0

    async def wait(self, error: Exception) -> None:
        """
        Pause before the next attempt.

        Args:
            error: How the last one has failed; raised when there is no time left.
        """
        now = asyncio.get_running_loop().time()
        self._began = self._began or now
        self._attempts += 1

        if self._attempts > _REDIRECTS and (
            isinstance(error, UnavailableError) or now >= self._began + self._seconds
        ):
            raise error

        await asyncio.sleep(_PAUSE if self._attempts <= _REDIRECTS else _LONGER_PAUSE)


class _NodeRedis(ClusterRedis):
    """The same client, kept to one node."""

    def __init__(self, client: ClusterRedis, node: Node) -> None:
        super().__init__(client._core, client.topology)  # noqa: SLF001 - its own kind
        self.use_callbacks(client.response_callbacks)
        self._node = node

    async def _ask(self, args: Sequence[Any], retry: RetryPolicy, *, raw: bool = False) -> Any:
        return await self._send(args, retry, node=self._node, raw=raw)


class _ClusterPipeline(SharedPipeline):
    """A pipeline whose WATCH takes a connection to the node of the watched key."""

    _client: ClusterRedis

    def _may_share(self, stack: list[Any]) -> bool:
        """Share in all cases but WATCH: a connection of one's own leads to one node only."""
        if self.connection is not None or self.watching:
            return False

        alone = [canonical(args) for args, _ in stack if route_of(args) is not Route.SHARED]
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
            return await super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except driver.MovedError:
            self._client.topology.refresh_soon()
            raise
