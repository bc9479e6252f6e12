"""A Redis cluster of our own, with slots that move step by step."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tools.servers._redis import Config, RedisServer, ValkeyServer
from tools.servers._sentinel import wait_until

__all__ = ("ClusterNode", "ClusterServers", "SlotMove")

SLOTS = 16_384


class _BusPort(RedisServer):
    def _choose_ports(self) -> None:
        super()._choose_ports()
        self.config["cluster-port"] = self._reserve_port()


class ClusterNode(_BusPort):
    """One Redis node of a cluster."""

    kind = "cluster"


class _ValkeyClusterNode(_BusPort, ValkeyServer):
    kind = "valkey-cluster"


class ClusterServers:
    """
    A cluster; the slots are spread evenly over its masters.

    `kill`, `pause`, `resume` and `restart` act on all nodes; for one of them use ``nodes[i]``.

    Args:
        masters: Number of masters.
        replicas: Number of replicas of each master.
        config: Lines of redis.conf for all nodes.
        valkey: Take Valkey instead of Redis.

    Example:
        >>> with ClusterServers() as cluster:
        ...     cluster.node_of_key("user:1") in cluster.nodes
        True
    """

    def __init__(
        self, *, masters: int = 3, replicas: int = 0, config: Config | None = None, valkey: bool = False
    ) -> None:
        settings: Config = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": 10_000,  # a node that a busy machine lets wait is not down
            "cluster-config-file": "nodes.conf",
            **(config or {}),
        }
        node_class = _ValkeyClusterNode if valkey else ClusterNode
        self.nodes: list[RedisServer] = [node_class(config=settings) for _ in range(masters * (1 + replicas))]
        self._masters = masters
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """Host of the first node."""
        return self.nodes[0].host

    @property
    def port(self) -> int:
        """Port of the first node."""
        return self.nodes[0].port

    @property
    def pid(self) -> int:
        """Process id of the first node."""
        return self.nodes[0].pid

    @property
    def url(self) -> str:
        """URL of the first node; a client finds the others from it."""
        return self.nodes[0].url

    @property
    def masters(self) -> list[RedisServer]:
        """The nodes that began as masters."""
        return self.nodes[: self._masters]

    def start(self) -> None:
        """Start all nodes and join them; return when every node sees the cluster as whole."""
        with ExitStack() as stack:
            for node in self.nodes:
                stack.callback(node.stop)
                node.start()

            for epoch, node in enumerate(self.nodes, 1):
                node.command("CLUSTER", "SET-CONFIG-EPOCH", epoch)  # else nodes quarrel about the same one

            for index, node in enumerate(self.masters):
                first, end = SLOTS * index // self._masters, SLOTS * (index + 1) // self._masters
                node.command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)

            self._join()
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Stop all nodes; may be called again."""
        self._stack.close()

    def kill(self) -> None:
        """SIGKILL all running nodes."""
        for node in self.nodes:
            if node.running:
                node.kill()

    def pause(self) -> None:
        """SIGSTOP all running nodes."""
        for node in self.nodes:
            if node.running:
                node.pause()

    def resume(self) -> None:
        """Let all running nodes go on."""
        for node in self.nodes:
            if node.running:
                node.resume()

    def restart(self) -> None:
        """Restart all nodes on their ports and data, and wait until the cluster is whole."""
        for node in self.nodes:
            node.restart()

        self.wait_whole()

    def flush(self) -> None:
        """Delete all keys on all masters."""
        for node in self.nodes:
            if node.info("replication")["role"] == "master":
                node.command("FLUSHALL")

    def slot_of(self, key: str) -> int:
        """Return the slot of a key, as the server computes it."""
        return int(str(self.nodes[0].command("CLUSTER", "KEYSLOT", key)))

    def node_of(self, slot: int) -> RedisServer:
        """Return the master that serves a slot."""
        ranges = self.nodes[0].command("CLUSTER", "SLOTS")
        assert isinstance(ranges, list)

        for entry in ranges:
            assert isinstance(entry, list)
            first, last, owner = entry[:3]
            assert isinstance(first, int)
            assert isinstance(last, int)
            assert isinstance(owner, list)

            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == owner[1])

        raise LookupError(f"no node serves slot {slot}")

    def node_of_key(self, key: str) -> RedisServer:
        """Return the master that serves a key."""
        return self.node_of(self.slot_of(key))

    def move_slot(self, slot: int, target: RedisServer | None = None) -> SlotMove:
        """
        Prepare the move of a slot; its steps are the caller's, or all at once by `SlotMove.run`.

        Args:
            slot: The slot.
            target: The master that gets it; another one than now by default.

        Returns:
            The move, of which nothing has been done yet.
        """
        source = self.node_of(slot)

        if target is None:
            target = next(node for node in self.masters if node is not source)

        return SlotMove(self, slot, source, target)

    def wait_whole(self, *, timeout: float = 30.0) -> None:
        """
        Wait until every running node knows all nodes and sees all slots served.

        Args:
            timeout: Seconds to wait.
        """
        wait_until(self._is_whole, "every node sees the cluster as whole", timeout=timeout)

    def _is_whole(self) -> bool:
        for node in self.nodes:
            fields = node.command("CLUSTER", "INFO")
            info = dict(line.split(":", 1) for line in str(fields).split())

            if info["cluster_state"] != "ok" or info["cluster_known_nodes"] != str(len(self.nodes)):
                return False

            if info["cluster_slots_ok"] != str(SLOTS):
                return False

        return True

    def _join(self) -> None:
        first, *others = self.nodes

        def joined() -> bool:
            known = str(first.command("CLUSTER", "NODES"))

            for node in others:
                if f" {node.host}:{node.port}@" not in known:  # or no more: it was too busy to answer in time
                    first.command("CLUSTER", "MEET", node.host, node.port, str(node.config["cluster-port"]))

            return self._is_whole()

        wait_until(joined, "every node has met all others")

        for index, replica in enumerate(self.nodes[self._masters :]):
            master = self.nodes[index % self._masters]
            replica.command("CLUSTER", "REPLICATE", node_id(master))

        replicas = self.nodes[self._masters :]
        wait_until(
            lambda: all(node.info("replication").get("master_link_status") == "up" for node in replicas),
            "the replicas are linked",
        )


class SlotMove:
    """
    A slot on its way from one master to another, in the steps that clients can see.

    Between `begin` and `finish` the source answers ASK for keys that have gone, and afterwards
    MOVED for all.
    """

    def __init__(self, cluster: ClusterServers, slot: int, source: RedisServer, target: RedisServer) -> None:
        self.cluster = cluster
        self.slot = slot
        self.source = source
        self.target = target

    def begin(self) -> None:
        """Mark the slot as importing at the target and migrating at the source."""
        self.target.command("CLUSTER", "SETSLOT", self.slot, "IMPORTING", node_id(self.source))
        self.source.command("CLUSTER", "SETSLOT", self.slot, "MIGRATING", node_id(self.target))

    def move_keys(self, count: int = 100) -> int:
        """
        Move some keys.

        Args:
            count: How many at most.

        Returns:
            How many went; 0 when the slot is empty at the source.
        """
        keys = self.source.command("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        assert isinstance(keys, list)

        if keys:
            names = [str(key) for key in keys]
            host, port = self.target.address
            self.source.command("MIGRATE", host, port, "", 0, 5000, "REPLACE", "KEYS", *names)

        return len(keys)

    def finish(self) -> None:
        """Assign the slot to the target: target first, then the source, then all others."""
        others = [node for node in self.cluster.masters if node not in (self.source, self.target)]

        for node in (self.target, self.source, *others):
            node.command("CLUSTER", "SETSLOT", self.slot, "NODE", node_id(self.target))

    def run(self) -> None:
        """Do all steps."""
        self.begin()

        while self.move_keys():
            pass

        self.finish()


def node_id(node: RedisServer) -> str:
    """Return the cluster's name for a node."""
    return str(node.command("CLUSTER", "MYID"))
