"""Commands that are split over the nodes of a cluster: all parts end before an error is raised."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ResponseError

from tests.servers import StartServer
from tools.servers import ClusterServers
from ws_pool._redis.cluster.fan_out import failure_of
from ws_pool._redis.commands.keys import hash_slot
from ws_pool._redis.errors import UnavailableError
from ws_pool.errors import MaybeExecuted
from ws_pool.redis import RedisPool

READ_ONLY_NODE = ("CONFIG", "SET", "min-replicas-to-write", "1")  # a node without replicas refuses all writes


def other_key(cluster: ClusterServers, key: str) -> str:
    """Return a key of another node."""
    node = cluster.node_of_key(key)
    return next(name for name in map(str, range(100)) if cluster.node_of_key(name) is not node)


async def value_after_a_failed_delete(cluster: ClusterServers) -> object:
    """Delete keys of a refusing node and of a moving slot; set one of them afterwards, and read it."""
    other = other_key(cluster, "{t}1")
    busy = {cluster.node_of_key("{t}1").port, cluster.node_of_key(other).port}
    third = next(node for node in cluster.masters if node.port not in busy)

    async with RedisPool(url=cluster.url, cluster=True, decode_responses=True, outage_timeout=5.0) as pool:
        await pool.redis.mset({"{t}1": "old", "{t}2": "old"})
        move = cluster.move_slot(hash_slot(b"t"), third)
        move.begin()
        move.move_keys(1)  # one of two keys: a DEL of both has to be tried again
        cluster.node_of_key(other).command(*READ_ONLY_NODE)

        with pytest.raises(ResponseError, match=r"NOREPLICAS|Not enough good replicas|Multiple keys"):
            await pool.redis.delete("{t}1", "{t}2", other)

        assert await pool.redis.set("{t}1", "new")
        await asyncio.to_thread(move.run)
        await asyncio.sleep(1)
        return await pool.redis.get("{t}1")


class TestParts:
    """Commands and pipelines of several nodes, of which one refuses writes while a slot of another moves."""

    async def test_nothing_is_deleted_after_the_error(self, start_server: StartServer) -> None:
        """A key that is set after DEL has raised stays: no part of that DEL runs on."""
        assert await value_after_a_failed_delete(start_server(ClusterServers)) == "new"

    async def test_otherwise_it_would_be(
        self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The broken twin, which raises the first error at once, deletes what was set afterwards."""
        gather = asyncio.gather
        monkeypatch.setattr(
            "ws_pool._redis.cluster.client.asyncio.gather", lambda *parts, **_: gather(*parts)
        )
        assert await value_after_a_failed_delete(start_server(ClusterServers)) is None

    async def test_a_partial_command_says_what_it_did(self, start_server: StartServer) -> None:
        """When one node refuses and another has executed its part, the error names the keys of both."""
        cluster = start_server(ClusterServers)
        other = other_key(cluster, "a")

        async with RedisPool(url=cluster.url, cluster=True, decode_responses=True) as pool:
            cluster.node_of_key(other).command(*READ_ONLY_NODE)

            with pytest.raises(MaybeExecuted, match="only a part of MSET was executed") as caught:
                await pool.redis.mset({"a": 1, other: 2})

            assert caught.value.context["done"] == [("a",)]
            assert caught.value.context["failed"] == [(other,)]
            assert isinstance(caught.value.__cause__, ResponseError)
            assert await pool.redis.mget("a", other) == ["1", None]
            assert await pool.redis.exists("a", other) == 1

            with pytest.raises(MaybeExecuted, match="only a part of FLUSHALL was executed"):
                await pool.redis.flushall()

    async def test_a_pipeline_ends_as_a_whole(self, start_server: StartServer) -> None:
        """When a node is gone, the error of a pipeline says which of its commands were executed."""
        cluster = start_server(ClusterServers)
        other = other_key(cluster, "a")

        async with RedisPool(
            url=cluster.url, cluster=True, decode_responses=True, outage_timeout=0.2
        ) as pool:
            node = cluster.node_of_key(other)
            await pool.redis.set(other, 1)
            node.kill()

            while all(connection.connected for connection in pool.statistics().shared):
                await asyncio.sleep(0.01)

            pipe = pool.redis.pipeline(transaction=False)
            pipe.incr("a")
            pipe.incr(other)
            pipe.incr(other)

            with pytest.raises(MaybeExecuted, match="only a part of a pipeline was executed") as caught:
                await pipe.execute()

            assert caught.value.context["done"] == ["command 1 (INCRBY)"]
            assert caught.value.context["failed"] == ["command 2 (INCRBY)", "command 3 (INCRBY)"]
            node.start()
            await asyncio.to_thread(cluster.wait_whole)
            await asyncio.sleep(1)
            assert await pool.redis.mget("a", other) in (["1", "1"], ["1", None])


async def test_keys_of_several_nodes(cluster_url: str) -> None:
    """MSET and MGET of keys of all nodes keep the order of their keys, with and without a cache, raw too."""
    pairs = {f"key:{number}": str(number) for number in range(50)}

    async with (
        RedisPool(url=cluster_url, cluster=True, decode_responses=True) as pool,
        RedisPool(url=cluster_url, cluster=True, decode_responses=True, cache=100) as caching,
    ):
        for redis in (pool.redis, caching.redis):
            await redis.flushall()
            assert await redis.mset(pairs)
            assert await redis.mget([*pairs, "absent", *pairs]) == [*pairs.values(), None, *pairs.values()]
            assert await redis.touch(*pairs, "absent") == 50
            assert await redis.unlink(*pairs) == 50


@pytest.mark.parametrize(
    ("outcomes", "read_only", "kind"),
    [
        ([1, 2], False, type(None)),
        ([UnavailableError("away"), UnavailableError("away")], False, UnavailableError),
        ([UnavailableError("away"), ResponseError("no")], False, UnavailableError),
        ([1, UnavailableError("away")], True, UnavailableError),
        ([1, UnavailableError("away")], False, MaybeExecuted),
        ([MaybeExecuted("lost"), UnavailableError("away")], False, MaybeExecuted),
        ([asyncio.CancelledError(), 1], False, asyncio.CancelledError),
    ],
)
def test_one_error_for_all_parts(outcomes: list[Any], kind: type, *, read_only: bool) -> None:
    """UnavailableError is raised only when no part can have changed anything."""
    assert type(failure_of("p", "DEL", ["a", "b"], outcomes, read_only=read_only)).__name__ == kind.__name__
