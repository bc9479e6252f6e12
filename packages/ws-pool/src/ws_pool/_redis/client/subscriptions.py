"""Which subscribers listen to which channels, over one connection for each server that has them.

A server confirms each subscription of a connection once, and sends each message once for each channel or
pattern. So the subscribers of a pool share a connection: the first of a channel subscribes, the last one
unsubscribes, and each has a queue of its own, so that one which reads slowly holds nobody up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

from redis import exceptions as driver
from redis.asyncio.connection import AbstractConnection

from ws_core import backoff
from ws_pool._core.background import cancel_and_wait
from ws_pool._redis.client.mailbox import Kind, Mailbox, Topic
from ws_pool._redis.dedicated.connection import state_of
from ws_pool._redis.dedicated.pool import DedicatedConnections
from ws_pool.errors import ClosedError, WsError

_logger: Final = logging.getLogger("ws_pool.redis")
_PAUSES: Final = (0.02, 1.0)  # seconds between two attempts to subscribe again
_LOST: Final = (driver.RedisError, WsError, OSError, TimeoutError)
_PING: Final = b"PING"


@dataclass(slots=True, eq=False)
class _Request:
    """A command whose reply is due: they come in the order in which commands were sent."""

    name: bytes
    topic: Topic | None
    mailbox: Mailbox | None = None  # whose PING it is
    message: bytes = b""
    confirmed: bool = False


class _Link:
    """One connection with its subscriptions; it is not used again after a loss."""

    def __init__(self, owner: Subscriptions, dedicated: DedicatedConnections) -> None:
        self.active: dict[Topic, _Request] = {}  # by its last SUBSCRIBE
        self.dedicated = dedicated
        self.closed = False
        self._owner = owner
        self._connection: AbstractConnection | None = None
        self._due: deque[_Request] = deque()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self.task: asyncio.Task[None] = loop.create_task(self._run(), name="ws-pool redis subscriptions")

    async def ready(self) -> None:
        """Wait until it is connected, or raise why it cannot be."""
        await asyncio.shield(self._ready)

    def subscribe(self, topic: Topic) -> None:
        """Send a subscription, unless one is in force or on its way."""
        if topic not in self.active:
            request = _Request(b"SUBSCRIBE", topic)
            self._send(request, f"{topic.kind}SUBSCRIBE", topic.name)
            self.active[topic] = request

    def unsubscribe(self, topic: Topic) -> None:
        """End a subscription."""
        if self.active.pop(topic, None) is None:
            return

        if self.active:
            self._send(_Request(b"UNSUBSCRIBE", topic), f"{topic.kind}UNSUBSCRIBE", topic.name)
        else:
            self.drop()  # nothing is left to receive: the connection is of use to others

    def ping(self, mailbox: Mailbox | None, message: bytes) -> None:
        """Send a PING, whose reply goes to a mailbox."""
        words = (message,) if message else ()
        self._send(_Request(_PING, None, mailbox, message), "PING", *words)

    def log_in(self) -> None:
        """Log in again when the credentials have changed; not in RESP2, where a subscriber may not."""
        if self._connection is None or self._connection.protocol not in {3, "3"}:
            return

        state = state_of(self._connection)

        if state.credentials and (login := state.credentials.newer_than(state.login)):
            self._send(_Request(b"AUTH", None), "AUTH", *login.words)
            state.login = login

    def drop(self) -> None:
        """Close the connection."""
        if not self.closed:
            self.closed = True
            self.task.cancel()

    def _on_connect(self, _: AbstractConnection) -> None:
        """Make redis-py's connection that of a subscriber; this connection is never opened again."""

    def _send(self, request: _Request, *words: str | bytes) -> None:
        # Written here and not by redis-py's send_command, which closes the connection when its caller is
        # cancelled: it is the connection of others as well.
        connection = self._connection
        writer = None if connection is None else connection._writer

        if connection is None or writer is None or self.closed:
            raise driver.ConnectionError("the connection of the subscriptions was lost")

        writer.write(b"".join(connection.pack_command(*words)))
        self._due.append(request)

    async def _run(self) -> None:
        """Receive until the connection is lost; then its topics find another."""
        error: Exception = driver.ConnectionError("the connection of the subscriptions was closed")

        try:
            connection = self._connection = await self.dedicated.get_connection()
            connection.register_connect_callback(self._on_connect)
            self._ready.set_result(None)

            try:
                await self._receive(connection)
            finally:
                await connection.disconnect(nowait=True)
                connection.deregister_connect_callback(self._on_connect)
                self.dedicated.release_now(connection)
        except asyncio.CancelledError:
            if not self.closed:
                raise
        except Exception as failure:  # whatever it was, the subscribers must not stay deaf
            error = failure

            if not isinstance(failure, driver.RedisError):  # readers expect an error of redis-py
                error = driver.ConnectionError(str(failure))

            if not isinstance(failure, _LOST):
                _logger.exception("subscriptions: an unexpected failure")
        finally:
            self.closed = True
            self._connection = None

            if not self._ready.done():
                self._ready.set_exception(error)
                self._ready.exception()  # retrieved, if nobody waits for it

            self._owner._lost(self, error)

    async def _receive(self, connection: AbstractConnection) -> None:
        while True:
            oldest = self._due[0] if self._due else None

            try:
                response: Any = await connection.read_response(  # Any: a reply or a message
                    disable_decoding=True,
                    timeout=self._owner.heartbeat,
                    disconnect_on_error=False,
                    push_request=True,
                )
            except (driver.ResponseError, driver.AuthenticationError) as error:
                self._refused(error)
                continue

            if response is not None:
                self._take(response)
            elif self._due:
                # A request that was sent in the meantime, such as a PING of a subscriber whose heartbeat
                # is as long as ours, has a whole heartbeat for its reply.
                if self._due[0] is oldest:
                    raise TimeoutError(f"the server was silent for {self._owner.heartbeat:g} s")
            elif self.active:
                self.ping(None, b"")
            else:
                return  # nobody has subscribed after all

    def _take(self, response: Any) -> None:
        if not isinstance(response, list):  # RESP3's reply to PING, or to AUTH
            response = [b"pong", b"" if response == b"PONG" else response]

        word = bytes(response[0])

        if word in {b"message", b"smessage", b"pmessage"}:
            kind: Kind = "p" if word == b"pmessage" else "s" if word == b"smessage" else ""
            self._owner._deliver(Topic(kind, bytes(response[1])), response)
        elif word == b"pong":
            request = self._due.popleft()

            if request.mailbox is not None:
                request.mailbox.put([b"pong", request.message])
        elif word.endswith(b"unsubscribe"):
            kind = cast("Kind", word.removesuffix(b"unsubscribe").decode())
            topic = Topic(kind, bytes(response[1] or b""))

            # The server says so unasked when a sharded channel's slot goes to another node.
            if self._due and self._due[0].name == b"UNSUBSCRIBE" and self._due[0].topic == topic:
                self._due.popleft()
            elif self.active.pop(topic, None) is not None:
                error = driver.ConnectionError("the channel's slot has gone to another node")
                self._owner._displaced([topic], error)
        else:
            request = self._due.popleft()
            assert request.topic is not None

            # An older subscription does not count: between the two, messages may have been missed.
            if self.active.get(request.topic) is request:
                request.confirmed = True
                self._owner._confirmed(request.topic)

    def _refused(self, error: driver.RedisError) -> None:
        """Pass an error on: that of the command whose reply is due."""
        request = self._due.popleft()

        if request.name == b"AUTH":
            _logger.warning("subscriptions keep their login, the new one was refused: %s", error)
        elif request.topic is not None and self.active.get(request.topic) is request:
            del self.active[request.topic]

            if isinstance(error, driver.MovedError | driver.ClusterDownError):
                self._owner._displaced([request.topic], error)
            else:
                self._owner._refused(request.topic, error)


class Subscriptions:
    """
    The subscriptions of a pool's subscribers.

    ``route`` returns the dedicated connections of the server that has a topic, ``note_loss`` is called
    after a loss, before topics look for another server.
    """

    def __init__(
        self,
        name: str,
        route: Callable[[Topic], DedicatedConnections],
        *,
        heartbeat: float,
        note_loss: Callable[[], object] = lambda: None,
    ) -> None:
        self.heartbeat = heartbeat
        self._name = name
        self._route = route
        self._note_loss = note_loss
        self._links: dict[DedicatedConnections, _Link] = {}
        self._members: dict[Topic, dict[Mailbox, None]] = {}
        self._restoring: dict[Topic, asyncio.Task[None]] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<Subscriptions of redis pool {self._name!r}: {len(self._members)} over {len(self._links)}>"

    async def close(self) -> None:
        """End all connections."""
        self._closed = True

        for mailboxes in self._members.values():
            for mailbox in mailboxes:
                mailbox.fail(driver.ConnectionError(f"redis pool {self._name!r} was closed"))

        links = list(self._links.values())

        for link in links:
            link.drop()

        await cancel_and_wait(*self._restoring.values(), *(link.task for link in links))

    async def subscribe(self, mailbox: Mailbox, topics: Iterable[Topic]) -> None:
        """Let a mailbox have the messages of topics; the confirmations come into it as well."""
        for topic in topics:
            is_new = topic not in mailbox.topics
            self._members.setdefault(topic, {})[mailbox] = None

            if is_new:
                mailbox.topics[topic] = False
            else:
                mailbox.unconfirm(topic)  # it is told again, as by a server

            try:
                link = await self._link_of(topic)
                link.subscribe(topic)
            except BaseException:
                # As after redis-py's: a subscription that has failed is none, but one of before goes on.
                if is_new:
                    self._leave(mailbox, topic)

                raise

            if link.active[topic].confirmed:
                mailbox.confirm(topic)

    def unsubscribe(self, mailbox: Mailbox, topics: Iterable[Topic]) -> None:
        """End subscriptions of a mailbox."""
        for topic in topics:
            if topic in mailbox.topics:
                mailbox.confirm(topic)  # a server confirms it before its end

            self._leave(mailbox, topic)
            mailbox.put_end(topic)

    def log_in(self) -> None:
        """Log all connections in again whose credentials have changed."""
        for link in self._links.values():
            with contextlib.suppress(*_LOST):  # it is about to be replaced
                link.log_in()

    async def ping(self, mailbox: Mailbox, message: bytes) -> None:
        """Ping a server whose messages the mailbox has; its reply comes there."""
        topic = next(iter(mailbox.topics), Topic("", b""))
        (await self._link_of(topic)).ping(mailbox, message)

    def leave(self, mailbox: Mailbox) -> None:
        """End all subscriptions of a mailbox, without a word to it."""
        for topic in list(mailbox.topics):
            self._leave(mailbox, topic)

    def replace_connections(self, mailbox: Mailbox) -> None:
        """Close the connections that a mailbox uses, which somebody has found silent."""
        for link in list(self._links.values()):
            if not mailbox.topics.keys().isdisjoint(link.active):
                link.drop()

    # Inside -----------------------------------------------------------------------------------

    async def _link_of(self, topic: Topic) -> _Link:
        """Return the connection of a topic, connected."""
        if self._closed:
            raise self._refusal()

        dedicated = self._route(topic)
        link = self._links.get(dedicated)

        if link is None or link.closed:
            link = self._links[dedicated] = _Link(self, dedicated)

        await link.ready()
        return link

    def _leave(self, mailbox: Mailbox, topic: Topic) -> None:
        mailbox.remove(topic)
        mailboxes = self._members.get(topic)

        if mailboxes is None or mailbox not in mailboxes:
            return

        del mailboxes[mailbox]

        if mailboxes:
            return

        del self._members[topic]

        if (task := self._restoring.pop(topic, None)) is not None:
            task.cancel()

        for link in list(self._links.values()):
            with contextlib.suppress(*_LOST):
                link.unsubscribe(topic)

    def _refusal(self) -> ClosedError:
        return ClosedError(f"redis pool {self._name!r} was closed", pool=self._name)

    # What a link calls ------------------------------------------------------------------------

    def _deliver(self, topic: Topic, response: list[Any]) -> None:
        for mailbox in self._members.get(topic, ()):
            if mailbox.topics[topic]:  # a message before its confirmation is of an earlier subscription
                mailbox.put(response)

    def _confirmed(self, topic: Topic) -> None:
        for mailbox in self._members.get(topic, ()):
            mailbox.confirm(topic)

    def _refused(self, topic: Topic, error: Exception) -> None:
        """Notify the subscribers of a topic that the server does not allow it."""
        for mailbox in self._members.pop(topic, {}):
            mailbox.remove(topic)
            mailbox.fail(error)

    def _lost(self, link: _Link, error: Exception) -> None:
        """Notify the subscribers of a connection that was lost, and look for another."""
        if self._links.get(link.dedicated) is link:
            del self._links[link.dedicated]

        if not self._closed and link.active:
            self._displaced(list(link.active), error)

    def _displaced(self, topics: list[Topic], error: Exception) -> None:
        """Notify the subscribers of topics that messages may be missed, and subscribe again elsewhere."""
        self._note_loss()

        for topic in topics:
            for mailbox in self._members.get(topic, {}):
                mailbox.unconfirm(topic)
                mailbox.fail(error)

            if topic in self._members and topic not in self._restoring:
                self._restoring[topic] = asyncio.get_running_loop().create_task(
                    self._restore(topic), name="ws-pool redis subscribe again"
                )

    async def _restore(self, topic: Topic) -> None:
        attempt = 0

        try:
            while topic in self._members and not self._closed:
                try:
                    (await self._link_of(topic)).subscribe(topic)
                except (driver.ResponseError, *_LOST) as error:
                    attempt += 1
                    self._note_loss()

                    for mailbox in self._members.get(topic, {}):
                        mailbox.fail(error)

                    await asyncio.sleep(backoff.delay(attempt, *_PAUSES))
                else:
                    return
        finally:
            if self._restoring.get(topic) is asyncio.current_task():
                del self._restoring[topic]
