"""Dedicated connections, for what cannot share one: blocking commands, sessions, pub/sub.

redis-py's own connections, in the generic pool of this distribution, behind the interface of
redis-py's `ConnectionPool`, so that its `PubSub`, `Monitor` and `Pipeline` work on them as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis import exceptions as driver
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool

from ws_core import backoff
from ws_pool import errors
from ws_pool._core.background import TaskSet, cancel_and_wait
from ws_pool._redis.commands.command import text_of
from ws_pool._redis.connection.endpoint import Endpoint
from ws_pool._redis.dedicated.connection import (
    ConnectionState,
    address_of,
    make_connection,
    prepare_session,
    state_of,
)
from ws_pool._redis.errors import AcquireTimeout, ConnectionLost, UnavailableError
from ws_pool.errors import ClosedError, NotReadyError, UsageError, WsError
from ws_pool.pool import Lease, Pool

_PAUSES: Final = (0.02, 0.2)  # seconds between two attempts to acquire in an outage
_UNBLOCKS: Final = 10  # attempts to unblock a command that has to log in again
_LEAVE_TIMEOUT: Final = 0.4  # seconds for what is in flight on a server that is not the master any more


class Connector:
    """How the generic pool deals with redis-py's connections."""

    def __init__(
        self, resolve: Any, options: dict[str, Any], *, timeout: float
    ) -> None:  # Any: an async callable
        self._resolve = resolve
        self._options = options
        self.timeout = timeout
        self._endpoint: Endpoint | None = None

    def __str__(self) -> str:
        return str(self._endpoint or "the server")

    async def open(self) -> AbstractConnection:
        """Open a connection and do its handshake."""
        endpoint: Endpoint = await self._resolve()
        self._endpoint = endpoint
        connection = make_connection(endpoint, self._options, timeout=self.timeout)

        try:
            await connection.connect()

            if endpoint.role is not None:
                await self._check_role(connection, endpoint)

            # Where CLIENT ID is forbidden, a blocking command on it cannot be unblocked.
            with contextlib.suppress(driver.ResponseError):
                await connection.send_command("CLIENT", "ID", check_health=False)
                state_of(connection).client_id = int(await connection.read_response())
        except BaseException:
            self.terminate(connection)
            raise

        state = state_of(connection)
        state.session_changed = False  # the handshake itself is not a change
        state.resolve = self._resolve
        return connection

    async def unblock(self, connection: AbstractConnection, *, timeout: float) -> bool:
        """Unblock the command of a connection at its server; return whether the server has confirmed it."""
        address, client_id = address_of(connection), state_of(connection).client_id

        if address is None or self._endpoint is None or not client_id:
            return False

        other = make_connection(self._endpoint.at(*address), self._options, timeout=timeout)

        try:
            async with asyncio.timeout(timeout):
                await other.connect()
                await other.send_command("CLIENT", "UNBLOCK", client_id, "ERROR", check_health=False)
                return bool(await other.read_response())
        except (driver.RedisError, OSError, TimeoutError):
            return False
        finally:
            self.terminate(other)

    def is_alive(self, conn: AbstractConnection) -> bool:
        """Return whether it is connected and the server has not closed it."""
        reader = conn._reader
        return conn.is_connected and reader is not None and not reader.at_eof() and reader.exception() is None

    def is_clean(self, conn: AbstractConnection) -> bool:
        """Return whether the last user has read all its replies."""
        return state_of(conn).clean

    async def ping(self, conn: AbstractConnection) -> None:
        """Check that the next reply is the next command's; raise InvalidResponse when it is not."""
        nonce = secrets.token_hex(8)
        await conn.send_command("ECHO", nonce, check_health=False)
        reply = await conn.read_response()

        if reply not in (nonce, nonce.encode()):
            raise driver.InvalidResponse("a reply of an earlier command was left on the connection")

    async def reset(self, conn: AbstractConnection) -> None:
        """Check that no reply was left unread; connections with a changed session are not kept at all."""
        await self.ping(conn)
        state_of(conn).clean = True

    async def close(self, conn: AbstractConnection) -> None:
        """Close gracefully."""
        await conn.disconnect()

    def terminate(self, conn: AbstractConnection) -> None:
        """Close at once."""
        _abort_transport(conn)
        conn._close()

    @staticmethod
    async def _check_role(connection: AbstractConnection, endpoint: Endpoint) -> None:
        await connection.send_command("ROLE", check_health=False)
        reply: Any = await connection.read_response()

        if (role := text_of(reply[0])) != endpoint.role:
            raise driver.RedisError(f"{endpoint} is a {role}, not a {endpoint.role}")


class DedicatedConnections(ConnectionPool):
    """The generic pool behind the interface of redis-py's `ConnectionPool`."""

    def __init__(
        self,
        pool: Pool[AbstractConnection],
        connector: Connector,
        *,
        acquire_timeout: float,
        outage_timeout: float,
        check: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(connection_class=Connection, **options)
        self._pool = pool
        self._connector = connector
        self._acquire_timeout = acquire_timeout
        self._outage_timeout = outage_timeout
        self._check = check
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_use: dict[AbstractConnection, Lease[AbstractConnection]] = {}  # by redis-py
        # Leases of sessions are held by their blocks alone: the generic pool finds those that were dropped.
        self._sessions: weakref.WeakSet[Lease[AbstractConnection]] = weakref.WeakSet()
        self._master: tuple[str, int] | None = None  # None as long as no Sentinel has named one
        self._background = TaskSet()
        self.closed: bool = False

    def __repr__(self) -> str:
        return f"<DedicatedConnections of {self._pool!r}>"

    def __del__(self) -> None:
        """Do nothing: redis-py's own would close connections, and there are none of its own."""

    def use_pool(self, pool: Pool[AbstractConnection]) -> None:
        """Use another pool, because the first could not be started."""
        self._pool = pool

    async def acquire(self) -> Lease[AbstractConnection]:
        """Acquire a connection; in an outage, wait as long for the server as shared commands do."""
        time = asyncio.get_running_loop().time
        end, deadline = time() + self._acquire_timeout, 0.0

        for attempt in itertools.count(1):
            if self.closed:
                raise ClosedError(f"redis pool {self._pool.name!r} is closed", pool=self._pool.name)

            try:
                lease = await self._pool.acquire(timeout=max(0.0, end - time()))
            except errors.AcquireTimeout as error:
                raise AcquireTimeout(error.message, code=error.code, **error.context) from error
            except (errors.UnavailableError, NotReadyError) as error:
                self._check()
                now = time()
                deadline = deadline or min(end, now + self._outage_timeout)

                if now >= deadline:
                    raise UnavailableError(error.message, code=error.code, **error.context) from error
            else:
                connection, state = lease.connection, state_of(lease.connection)

                # Once only: where the resolver and the last news of a Sentinel differ, the resolver decides.
                if attempt > 1 or not self._is_elsewhere(connection):
                    if not await self._refresh_login(lease):
                        continue

                    state.clean = state.exclusive = state.moving = state.queueing = False
                    state.session_lock = None
                    self._loop = asyncio.get_running_loop()
                    self._sessions.add(lease)
                    return lease

                self._pool.release(lease, discard=True)  # it was opened while the master changed

            await asyncio.sleep(backoff.delay(attempt, *_PAUSES))

        raise AssertionError("unreachable")

    async def _refresh_login(self, lease: Lease[AbstractConnection]) -> bool:
        """Log an idle connection in again if need be; return whether it can be used."""
        try:
            await state_of(lease.connection).refresh_login(self._connector.timeout)
        except (driver.RedisError, OSError, TimeoutError):
            self._pool.release(lease, discard=True)  # it was lost meanwhile
            return False
        except BaseException:
            self._pool.release(lease, discard=True)
            raise

        return True

    async def get_connection(self, *_: object, **__: object) -> AbstractConnection:
        """Acquire a connection for redis-py; see `acquire`."""
        lease = await self.acquire()
        self._sessions.discard(lease)
        self._in_use[lease.connection] = lease
        return lease.connection

    async def release(self, connection: AbstractConnection) -> None:
        """Release a connection for redis-py; see `release_now`."""
        self.release_now(connection)

    def release_now(self, connection: AbstractConnection) -> None:
        """Release a connection; nothing happens the second time."""
        if lease := self._in_use.pop(connection, None):
            self.release_lease(lease)

    def release_lease(self, lease: Lease[AbstractConnection]) -> None:
        """Release what `acquire` returned, once a cancelled command on it has ended."""
        connection, state = lease.connection, state_of(lease.connection)

        if state.cancelling is not None and state.is_cancelling:
            state.cancelling.add_done_callback(lambda _: self.release_lease(lease))
            return

        self._sessions.discard(lease)
        self._pool.release(lease, discard=state.session_changed or not connection.is_connected)

    def follow_master(self, host: str, port: int) -> None:
        """Make connections in use leave every server but this one."""
        self._master = (host, port)

        for lease in (*self._in_use.values(), *self._sessions):
            connection, state = lease.connection, state_of(lease.connection)

            if self._is_elsewhere(connection) and not state.moving:
                state.moving = True
                self._background.spawn(self._leave(connection, lease))

    async def refresh_logins(self, request: Callable[[Sequence[Any]], Awaitable[Any]]) -> None:
        """Log connections in use in again, whose credentials have changed; ``request`` sends a command."""
        # Three cases, and idle connections are a fourth: they log in when they are next acquired. A session
        # does so between two of its commands. A blocked command is unblocked and repeated on a connection
        # that has logged in, because its own reads nothing before the command ends. All others are released
        # soon, but for subscribers that share no connection: see `Subscriptions.log_in` for the others.
        states = [*map(state_of, self._in_use), *(state_of(lease.connection) for lease in self._sessions)]
        stale = [state for state in states if state.needs_login and not state.moving]
        waits: list[Awaitable[None]] = [
            self._unblock_for_login(state, request) for state in stale if state.blocking
        ]

        for state in stale:
            if (lock := state.session_lock) is not None:
                is_free = not lock.locked()  # else it may take for ever, and its holder may be our caller
                task = self._background.spawn(self._refresh_session(state, lock))

                if is_free:
                    waits.append(asyncio.shield(task))

        await asyncio.gather(*waits)

    async def _refresh_session(self, state: ConnectionState, lock: asyncio.Lock) -> None:
        async with lock:
            with contextlib.suppress(driver.RedisError, OSError, TimeoutError):  # its user will notice
                await state.refresh_login(self._connector.timeout)

    @staticmethod
    async def _unblock_for_login(
        state: ConnectionState, request: Callable[[Sequence[Any]], Awaitable[Any]]
    ) -> None:
        for attempt in range(1, _UNBLOCKS + 1):  # the command may not have arrived yet
            if not (state.blocking and state.client_id and state.needs_login) or state.is_cancelling:
                return

            state.moving, unblocked = True, False

            try:
                unblocked = bool(await request(("CLIENT", "UNBLOCK", state.client_id, "ERROR")))
            except (driver.RedisError, ConnectionLost, WsError):
                return  # forbidden, or the server is away: it ends with its old login
            finally:
                state.moving = unblocked

            if unblocked:
                return

            await asyncio.sleep(backoff.delay(attempt, *_PAUSES))

    async def _leave(self, connection: AbstractConnection, lease: Lease[AbstractConnection]) -> None:
        """Make a connection in use leave its server, which may be alive."""
        state = state_of(connection)

        # Three cases. A subscriber subscribes again at the new master when its connection is closed. A
        # blocked command is unblocked, which proves that it was not executed: it is repeated there. What
        # else is in flight has a moment to end; then only a closed connection makes its user notice.
        if not _is_subscriber(connection):
            if state.blocking and await self._connector.unblock(connection, timeout=_LEAVE_TIMEOUT):
                return

            await asyncio.sleep(_LEAVE_TIMEOUT)

        is_in_use = self._in_use.get(connection) is lease or lease in self._sessions

        if is_in_use and self._is_elsewhere(connection):
            state.moving = False

            if state.exclusive:
                self._connector.terminate(connection)  # so that its next command is refused, not sent
            else:
                _abort_transport(connection)

    def _is_elsewhere(self, connection: AbstractConnection) -> bool:
        """Return whether a connection leads to a server that is not the master."""
        return self._master is not None and address_of(connection) not in {None, self._master}

    async def unblock_all(self, request: Callable[[Sequence[Any]], Awaitable[Any]]) -> None:
        """Refuse new users, and unblock the commands in flight, which may wait for ever."""
        self.closed = True
        states = map(state_of, self._in_use)
        blocked = [state for state in states if state.blocking and state.client_id]

        for state in blocked:
            state.moving = True

        while blocked := [state for state in blocked if state.blocking and not state.is_cancelling]:
            await asyncio.gather(
                *(request(("CLIENT", "UNBLOCK", state.client_id, "ERROR")) for state in blocked),
                return_exceptions=True,
            )
            await asyncio.sleep(0.005)  # for the replies, or for a command that has not arrived yet

    async def close(self) -> None:
        """Close the connections of subscribers, which nothing else would release."""
        await cancel_and_wait(*self._background)
        self.drop_subscribers()

    def drop_subscribers(self) -> None:
        """Close the connections of subscribers: nothing else would make them come back."""
        for connection, lease in list(self._in_use.items()):
            if _is_subscriber(connection):
                self._abort(connection, lease)

    def release_later(self, connection: AbstractConnection) -> bool:
        """Let the loop close a connection whose user was garbage-collected; return whether it was in use."""
        lease = self._in_use.pop(connection, None)

        if lease is None or self._loop is None:
            return False

        with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._loop.call_soon_threadsafe(self._abort, connection, lease)

        return True

    def _abort(self, connection: AbstractConnection, lease: Lease[AbstractConnection]) -> None:
        state_of(connection).retired = True
        _abort_transport(connection)
        self._in_use.pop(connection, None)
        self._pool.release(lease, discard=True)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Replace the connections: idle ones now, and those in use when they come back."""
        del inuse_connections
        self._pool.expire()

    async def aclose(self) -> None:
        """Do nothing: the owner of the generic pool closes it."""


class SingleConnectionPool(ConnectionPool):
    """One dedicated connection as a `ConnectionPool` of redis-py: its users take turns."""

    def __init__(self, connection: AbstractConnection, *, timeout: float = 5.0, **options: Any) -> None:
        super().__init__(connection_class=Connection, **options)
        self._timeout = timeout
        self._connection = connection
        self._turn = asyncio.Lock()
        state_of(connection).exclusive = True
        state_of(connection).session_lock = self._turn
        self._holder: asyncio.Task[Any] | None = None

    def __del__(self) -> None:
        """Do nothing: redis-py's own would close connections, and there are none of its own."""

    async def get_connection(self, *_: object, **__: object) -> AbstractConnection:
        """Return the connection, connected, for one user until `release`."""
        if self._holder is not None and self._holder is asyncio.current_task():
            message = "a pipeline with WATCH has this client's connection: use the pipeline, or end it before"
            raise UsageError(message)

        await self._turn.acquire()

        try:
            await prepare_session(self._connection, self._timeout)
        except BaseException:
            self._turn.release()
            raise

        self._holder = asyncio.current_task()
        return self._connection

    async def release(self, connection: AbstractConnection) -> None:
        """Pass it to the next user; there is no await in here, so it cannot be cancelled half-way."""
        self._holder = None
        self._turn.release()

    async def aclose(self) -> None:
        """Keep it."""


def _is_subscriber(connection: AbstractConnection) -> bool:
    # Only a PubSub registers for reconnects, in order to subscribe again.
    return bool(connection._connect_callbacks)


def _abort_transport(connection: AbstractConnection) -> None:
    writer = connection._writer

    if writer is not None:
        writer.transport.abort()
