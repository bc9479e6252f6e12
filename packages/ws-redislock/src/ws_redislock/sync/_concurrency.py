"""Threads, in the words of ``ws_redislock._concurrency``; the only file of this package written by hand.

What asyncio's loop and its cancels do for tasks, a thread that runs timers does here. And what can end
a command of a task at any time (a cancel) is a timeout on the socket here: commands go over connections
of the client's pool, one command at a time, and in a cluster over those of the node.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

import redis
import redis.asyncio
from redis import exceptions
from redis.backoff import NoBackoff
from redis.exceptions import MaxConnectionsError
from redis.retry import Retry

from ws_redislock._lease.timers import Timer
from ws_redislock.errors import UsageError

__all__ = (
    "FOREIGN",
    "FOREIGN_REASON",
    "NATIVE",
    "READ_SLICE",
    "CancelScope",
    "CommandSender",
    "Event",
    "Job",
    "Loop",
    "Mutex",
    "Nodes",
    "Signal",
    "SpareConnections",
    "Timer",
    "Timers",
    "check_loop",
    "client_from_url",
    "current_loop",
    "current_task",
    "gather",
    "is_closed",
    "raise_if_cancelled",
    "run_callback",
    "sleep",
    "start",
    "timeout",
    "wait_event",
    "wait_jobs",
)

P = ParamSpec("P")
T = TypeVar("T")

Argument: TypeAlias = str | bytes | int
Event: TypeAlias = threading.Event
Mutex = threading.RLock
sleep = time.sleep

READ_SLICE = 0.25
"""Seconds that one read from a subscription may take, so that its thread sees soon when to end."""

NATIVE = "redis.Redis"
FOREIGN = (redis.asyncio.Redis, redis.asyncio.RedisCluster)
FOREIGN_REASON = "is for asyncio: pass a redis.Redis, or use ws_redislock"

CONNECTING = 5.0
"""Seconds that a client made from a URL waits for its server at most, unless the URL says otherwise."""

REDIRECTIONS = 5
"""How often one command may be sent elsewhere."""

_logger = logging.getLogger("ws_redislock")


class Job:
    """Work in a thread; also stands for the running thread."""

    def __init__(self, work: Callable[[], None] | None = None) -> None:
        self._work = work
        self._over = threading.Event()
        self._callbacks: list[Callable[[Job], object]] = []
        self._mutex = threading.Lock()

    def start(self) -> None:
        """Run the work."""
        threading.Thread(target=self._run, name="ws_redislock", daemon=True).start()

    def done(self) -> bool:
        """Return whether the work has ended."""
        return self._over.is_set()

    def wait(self, within: float) -> None:
        """Wait for the end, for so many seconds at most."""
        self._over.wait(within)

    def add_done_callback(self, function: Callable[[Job], object]) -> None:
        """Call a function at the end of the work, or now."""
        with self._mutex:
            if not self._over.is_set():
                self._callbacks.append(function)
                return

        function(self)

    def cancel(self, reason: str = "") -> None:
        """Leave the work alone: a thread cannot be cancelled."""

    def _run(self) -> None:
        try:
            assert self._work is not None
            self._work()
        except Exception:
            _logger.exception("a background job failed")
        finally:
            with self._mutex:
                self._over.set()

            for function in self._callbacks:
                function(self)


_running = threading.local()


def current_task() -> Job | None:
    """Return what stands for the running thread."""
    task: Job | None = getattr(_running, "task", None)

    if task is None:
        task = _running.task = Job()

    return task


class Loop:
    """The timers of a process: one thread that runs what is due, and ends when there are none."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Timer]] = []
        self._serial = itertools.count()
        self._running = False

    def time(self) -> float:
        """Return the time of timers."""
        return time.monotonic()

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call a function, which must not block, after so many seconds."""
        timer = Timer(function)

        with self._condition:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._serial), timer))

            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="ws_redislock timers", daemon=True).start()

            self._condition.notify()

        return timer

    def cancel(self, timer: Timer) -> None:
        """Do not call it."""
        timer.function = None

    def _run(self) -> None:
        while (timer := self._next()) is not None:
            function, timer.function = timer.function, None

            try:
                if function is not None:
                    function()
            except Exception:
                _logger.exception("timer %r failed", function)

            del timer, function

    def _next(self) -> Timer | None:
        """Wait for the next timer; return None after 10 s without any."""
        with self._condition:
            while True:
                while self._heap and self._heap[0][2].function is None:
                    heapq.heappop(self._heap)

                if not self._heap:
                    if not self._condition.wait(10.0) and not self._heap:
                        self._running = False
                        return None
                elif (left := self._heap[0][0] - time.monotonic()) > 0:
                    self._condition.wait(left)
                else:
                    return heapq.heappop(self._heap)[2]


_loops: dict[int, Loop] = {}


def current_loop() -> Loop:
    """Return the loop of this process; a fork has no threads, and gets one of its own."""
    return _loops.get(os.getpid()) or _loops.setdefault(os.getpid(), Loop())


def check_loop(loop: Loop | None, what: str) -> None:
    """Allow use from any thread, but not from a forked process: it would repeat this one's tokens."""
    if current_loop() is not loop:
        raise UsageError(f"{what} was used before the process was forked: make one per process")


def is_closed(loop: Loop | None) -> bool:
    """Return False: the loop of a process lasts as long as the process."""
    return False


class Timers:
    """The timers of a loop."""

    __slots__ = ("call_later", "cancel")

    def __init__(self, loop: Loop) -> None:
        self.call_later: Callable[[float, Callable[[], object]], Timer] = loop.call_later
        self.cancel: Callable[[Timer], None] = loop.cancel


class Signal:
    """A wake-up for one thread; one that comes early is kept."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Wake the thread up."""
        self._event.set()

    def wait(self, until: float | None) -> bool:
        """Wait for the signal until a time of the loop, or for ever, and take it; return whether it came."""
        came = self._event.wait(None if until is None else max(0.0, until - time.monotonic()))
        self._event.clear()
        return came


def start(loop: Loop, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Job:
    """Run work in a thread."""
    job = Job(lambda: work(*args, **kwargs))
    job.start()
    return job


def wait_jobs(jobs: Iterable[Job], within: float) -> None:
    """Wait until all jobs are done, for so many seconds at most."""
    end = time.monotonic() + within

    for job in list(jobs):
        job.wait(max(0.0, end - time.monotonic()))


def wait_event(event: Event, within: float) -> bool:
    """Wait for an event, for so many seconds at most; return whether it is set."""
    return event.wait(within)


def timeout(seconds: float) -> contextlib.AbstractContextManager[None]:
    """Do nothing: what blocks a thread has its own timeout."""
    return contextlib.nullcontext()


def gather(calls: Iterable[Callable[[], T]]) -> list[T | BaseException]:
    """Make calls one after the other; return what each returned or raised, in their order."""
    outcomes: list[T | BaseException] = []

    for call in calls:
        try:
            outcomes.append(call())
        except BaseException as error:  # noqa: BLE001 - the others are made all the same
            outcomes.append(error)

    return outcomes


def run_callback(spawn: Callable[..., object], function: Callable[[T], None], argument: T) -> None:
    """Call a user's function in a thread, since it may block; what it raises is logged."""
    spawn(_call_logged, function, argument)


def _call_logged(function: Callable[[T], None], argument: T) -> None:
    try:
        function(argument)
    except Exception:
        _logger.exception("callback %r failed", function)


def client_from_url(url: str) -> Any:  # Any: untyped in the driver
    """Make a client that neither repeats commands by itself nor waits for ever: our timeouts are shorter."""
    return redis.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=CONNECTING, socket_timeout=CONNECTING
    )


class CancelScope:
    """The body of one ``hold()``: a thread cannot be cancelled, but its end reports the loss."""

    __slots__ = ("_fired",)

    def __init__(self) -> None:
        self._fired = False

    def cancel(self, reason: str) -> None:
        """Take note that the lock was lost."""
        self._fired = True

    def leave(self, error: BaseException | None) -> bool:
        """Return whether a `LockLost` is to replace the error with which the body ended."""
        return self._fired and error is None


def raise_if_cancelled() -> None:
    """Do nothing: a thread cannot be cancelled."""


class SpareConnections:
    """Makes connections as a pool does, but does not count or keep them; stands in for the pool."""

    def __init__(self, pool: Any) -> None:  # Any: the driver types its pool for its own use only
        self._pool = pool

    def get_connection(self, *_: object) -> Any:  # Any: as above
        """Return a new connection."""
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        connection.connect()
        return connection

    def release(self, connection: Any) -> None:  # Any: as above
        """Close a connection."""
        connection.disconnect()

    def get_encoder(self) -> Any:  # Any: as above
        """Return the encoder of the pool's connections."""
        return self._pool.get_encoder()


class CommandSender:
    """Sends commands through one client; how it must be driven is found out once."""

    def __init__(self, client: Any, timers: Timers) -> None:
        self._client = client
        self.cluster: bool = hasattr(client, "get_node_from_key")
        plain = (
            isinstance(client, redis.Redis) and type(client).execute_command is redis.Redis.execute_command
        )
        self._pool: Any = client.connection_pool if plain else None  # Any: as above
        self._nodes = Nodes(client) if self.cluster else None

    def subscription(self) -> Any:  # Any: untyped in the driver
        """Return a new subscription, on a connection that the application does not miss."""
        pubsub = self._client.pubsub()

        if self._pool is not None:
            pubsub.connection_pool = SpareConnections(self._pool)

        return pubsub

    def send(self, command: tuple[Argument, ...], within: float) -> Any:  # Any: any reply
        """Send a command and return its reply, within so many seconds."""
        if self._nodes is not None:
            key = command[3 if str(command[0]).startswith("EVAL") else 1]
            return self._nodes.send(command, key, within)

        if self._pool is None:
            return self._client.execute_command(*command)

        return send_all(self._pool, [command], within)[0]

    def send_all(
        self, commands: Sequence[tuple[Argument, ...]], within: float
    ) -> list[Any]:  # Any: any replies
        """Send commands over one connection within so many seconds, and raise the first error reply."""
        if self._pool is not None:
            return send_all(self._pool, commands, within)

        pipeline = self._client.pipeline(transaction=False)

        for command in commands:
            pipeline.execute_command(*command)

        replies: list[Any] = pipeline.execute()
        return replies


def send_all(
    pool: Any, commands: Sequence[tuple[Argument, ...]], within: float
) -> list[Any]:  # Any: the driver types its pool for its own use only; a reply is whatever it is
    """Send commands over one connection within so many seconds, and raise the first error reply."""
    end = time.monotonic() + within
    connection, home = _take_connection(pool)
    replies: list[Any] = []

    try:
        for command in commands:
            connection.send_command(*command)

        while len(replies) < len(commands) and connection.can_read(max(0.0, end - time.monotonic())):
            replies.append(connection.read_response())

        if len(replies) == len(commands):
            return replies

        connection.disconnect()
    except BaseException as error:
        if not isinstance(error, exceptions.ResponseError) or len(replies) + 1 < len(commands):
            connection.disconnect()  # a reply may still come, and must not be taken for another's

        raise
    finally:
        home.release(connection)

    raise TimeoutError("no reply in time")


def _take_connection(pool: Any) -> tuple[Any, Any]:  # Any: as above
    """Return a connection, made beside the pool when that has none to spare, and what takes it back."""
    queue: Any = getattr(pool, "pool", None)  # Any: the queue of a BlockingConnectionPool, which would wait

    if queue is None or not queue.empty():
        try:
            return pool.get_connection(), pool
        except MaxConnectionsError:
            pass

    spare = SpareConnections(pool)
    return spare.get_connection(), spare


class Nodes:
    """
    The nodes of a cluster: a command goes to the node of its key, within a time of its own.

    The driver's own way waits as long as its sockets do, and begins over on other nodes; a watchdog
    cannot wait for that. Here the node comes from the driver's map, and redirections go into that map.
    When a node does not answer, the map is made anew in a thread, since that may take as long as it likes.
    """

    __slots__ = ("_client", "_learning")

    def __init__(self, client: Any) -> None:  # Any: the driver's map of nodes is untyped
        self._client = client
        self._learning: threading.Thread | None = None

    def send(self, command: tuple[Argument, ...], key: Argument, within: float) -> Any:  # Any: any reply
        """Send a command to the node of a key, within so many seconds, redirections included."""
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

    def _node_of(self, key: Argument) -> Any:  # Any: the driver's nodes are untyped
        try:
            return self._client.nodes_manager.get_node_from_slot(self._client.keyslot(key))
        except exceptions.SlotNotCoveredError as error:
            self._learn()
            raise exceptions.ConnectionError(f"no node of the cluster is known for a slot: {error}") from None

    def _moved(self, error: exceptions.MovedError) -> None:
        """Put a slot's new node into the driver's map."""
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
        with contextlib.suppress(Exception):  # the next command finds the node gone, and begins anew
            self._client.nodes_manager.initialize()
