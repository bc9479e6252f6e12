"""Commands to the nodes of a cluster, each with a timeout of its own.

The driver's own way waits as long as its sockets do, and begins over on other nodes; a watchdog
cannot wait for that. So the node is taken from the driver's map, and asked on one of its
connections. What redirections say goes into that map. When a node does not answer, the map is made
anew in a thread of its own, since asking for it may take as long as it likes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from redis import exceptions

from ws_redislock._redis.script_client import Argument
from ws_redislock.sync._redis.connection import send_all

__all__ = ("Nodes",)

REDIRECTIONS = 5
"""How often one command may be sent elsewhere."""


class Nodes:
    """
    The nodes of a cluster.

    Args:
        client: A blocking client of a cluster.
    """

    __slots__ = ("_client", "_learning")

    def __init__(self, client: Any) -> None:  # Any: the driver's map of nodes is untyped
        self._client = client
        self._learning: threading.Thread | None = None

    def send(self, command: tuple[Argument, ...], key: bytes, within: float) -> Any:  # Any: any reply
        """
        Send a command to the node of a key.

        Args:
            command: The command.
            key: The key; all keys of the command lie in its slot.
            within: Seconds for all of it, redirections included.

        Returns:
            The reply.

        Raises:
            TimeoutError: There was no reply in time.
            redis.exceptions.RedisError: The node could not be reached, or an error reply.
        """
        end = time.monotonic() + within
        commands: list[tuple[Argument, ...]] = [command]
        node = self._node_of(key)

        for _ in range(REDIRECTIONS):
            pool = self._client.get_redis_connection(node).connection_pool

            try:
                return send_all(pool, commands, max(0.001, end - time.monotonic()))[-1]
            except exceptions.MovedError as error:
                self._moved(error)
                commands = [command]
                node = self._node_of(key)
            except exceptions.AskError as error:
                commands = [("ASKING",), command]
                node = self._client.get_node(host=error.host, port=error.port)

                if node is None:
                    self._learn()
                    raise exceptions.ConnectionError(
                        f"a node of the cluster is not known yet: {error}"
                    ) from None
            except (exceptions.ConnectionError, exceptions.TimeoutError, OSError):
                self._learn()
                raise

        raise exceptions.ConnectionError("the nodes of the cluster send a command from one to the other")

    def _node_of(self, key: bytes) -> Any:  # Any: the driver's nodes are untyped
        try:
            return self._client.nodes_manager.get_node_from_slot(self._client.keyslot(key))
        except exceptions.SlotNotCoveredError as error:
            self._learn()
            raise exceptions.ConnectionError(f"no node of the cluster is known for a slot: {error}") from None

    def _moved(self, error: exceptions.MovedError) -> None:
        """Let the driver know where a slot is now."""
        nodes: Any = self._client.nodes_manager
        # Its name since redis-py 7.1, and before.
        move = getattr(nodes, "move_slot", None) or nodes.update_moved_exception
        move(error)

    def _learn(self) -> None:
        """Make the driver's map anew, in the background."""
        if self._learning is None or not self._learning.is_alive():
            self._learning = threading.Thread(target=self._initialize, name="ws_redislock nodes", daemon=True)
            self._learning.start()

    def _initialize(self) -> None:
        with contextlib.suppress(Exception):  # whoever asks next finds the node gone, and begins anew
            self._client.nodes_manager.initialize()
