"""Idempotency keys: a request that is repeated with the same key is done once, and answered the same.

A route takes them with ``Depends(idempotent())``. The client chooses a key and sends it in the header
``Idempotency-Key``, again with each repetition. Keys are kept in Redis, SQL, or memory.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Header
from starlette.requests import Request
from starlette.responses import Response as StarletteResponse

from ws_core.backoff import delay
from ws_core.errors import ConfigError, NotReadyError
from ws_core.sources import client_getter
from ws_web._components import manager_of
from ws_web._declarations import Handler, check_seconds
from ws_web._kept_reply import KeptReply, as_text, digest
from ws_web.response import HTTPExceptionResponse, Response

__all__ = ("Claim", "IdempotencyStore", "MemoryStore", "RedisStore", "SqlStore", "idempotent")

# Any below: clients of drivers, rows, and FastAPI's functions.

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_CLAIM = "ws_web.idempotency"  # of the scope
_STREAMED = ""  # is kept for a reply that cannot be

logger: logging.Logger = logging.getLogger("ws_web")


@dataclass(frozen=True, slots=True)
class Claim:
    """
    What a store has under a key.

    Args:
        token: Which request has claimed the key.
        fingerprint: What was asked for, as a hash.
        reply: The reply as text; None while the request is being worked on.
    """

    token: str
    fingerprint: str
    reply: str | None = None


class IdempotencyStore(Protocol):
    """Where keys are kept. Each method is atomic; times are in seconds."""

    async def claim(self, key: str, claim: Claim, timeout: float) -> Claim:
        """Return the claim that holds the key: this one, if the key was free, for so many seconds."""
        ...

    async def save(self, key: str, claim: Claim, ttl: float) -> bool:
        """Keep the reply of a claim; return False, and do nothing, when another claim holds the key."""
        ...

    async def release(self, key: str, claim: Claim) -> None:
        """Free the key, if this claim holds it."""
        ...


class MemoryStore:
    """
    Keep keys in this process: for tests, and for services of one worker.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, tuple[Claim, float]] = {}

    async def claim(self, key: str, claim: Claim, timeout: float) -> Claim:
        """Return the claim that holds the key."""
        now = self._clock()
        self._held = {name: (held, until) for name, (held, until) in self._held.items() if until > now}
        return self._held.setdefault(key, (claim, now + timeout))[0]

    async def save(self, key: str, claim: Claim, ttl: float) -> bool:
        """Keep the reply of a claim."""
        if not self._is_holder(key, claim):
            return False

        self._held[key] = (claim, self._clock() + ttl)
        return True

    async def release(self, key: str, claim: Claim) -> None:
        """Free the key."""
        if self._is_holder(key, claim):
            del self._held[key]

    def _is_holder(self, key: str, claim: Claim) -> bool:
        held, until = self._held.get(key, (claim, 0.0))
        return held.token == claim.token and until > self._clock()


class RedisStore:
    """
    Keep keys in Redis.

    Args:
        redis: A client of ``redis.asyncio`` or one that has its ``eval``, a pool with such a client as
            ``.redis``, or a manager of pools, which may be started later.
        prefix: What the names of the keys begin with.
    """

    def __init__(self, redis: object, *, prefix: str = "ws_web:idempotency:") -> None:
        self._client = client_getter(redis, "eval")
        self._prefix = prefix

    async def claim(self, key: str, claim: Claim, timeout: float) -> Claim:
        """Return the claim that holds the key."""
        found = await self._eval(_REDIS_CLAIM, key, claim.token, claim.fingerprint, _milliseconds(timeout))
        token, fingerprint, reply = map(as_text, found)
        return Claim(token or "", fingerprint or "", reply)

    async def save(self, key: str, claim: Claim, ttl: float) -> bool:
        """Keep the reply of a claim."""
        return bool(await self._eval(_REDIS_SAVE, key, claim.token, claim.reply or "", _milliseconds(ttl)))

    async def release(self, key: str, claim: Claim) -> None:
        """Free the key."""
        await self._eval(_REDIS_RELEASE, key, claim.token)

    async def _eval(self, script: str, key: str, *args: object) -> Any:
        return await self._client().eval(script, 1, f"{self._prefix}{key}", *args)


_REDIS_CLAIM = """
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[1], 'token', ARGV[1], 'fingerprint', ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'token', 'fingerprint', 'reply')
"""
_REDIS_SAVE = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'reply', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
_REDIS_RELEASE = """
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


_SQL_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
    id VARCHAR(64) PRIMARY KEY, token VARCHAR(32) NOT NULL, fingerprint VARCHAR(64) NOT NULL,
    expires DOUBLE PRECISION NOT NULL, reply MEDIUMTEXT
)"""


class SqlClient(Protocol):
    """A client of a SQL pool, as ws-pool has them."""

    def execute(self, statement: Any, *args: Any, **params: Any) -> Awaitable[Any]:
        """Run a statement with parameters such as ``:name``; the result has a ``rowcount``."""
        ...

    def select(self, statement: Any, *args: Any, **params: Any) -> Awaitable[Iterable[Any]]:
        """Run a query, and return its rows."""
        ...


class SqlStore:
    """
    Keep keys in a table of MySQL, PostgreSQL or SQLite. Make the table once, with `create`.

    Args:
        get_client: Returns a client for the length of an ``async with`` block, such as
            ``lambda: pool.get_client(alone=True)`` for a pool of ws-pool. Each statement must be a
            transaction of its own.
        table: The table's name.
        clock: Returns Unix time in seconds, the same on all machines.
    """

    def __init__(
        self,
        get_client: Callable[[], AbstractAsyncContextManager[SqlClient]],
        *,
        table: str = "ws_web_idempotency",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not _TABLE.fullmatch(table):
            raise ConfigError(f"table must be a name of letters, digits and underscores, not {table!r}")

        self._get_client = get_client
        self._table = table
        self._clock = clock

    async def create(self) -> None:
        """Make the table if there is none."""
        try:
            await self._run(_SQL_CREATE)  # in MySQL a TEXT ends after 64 KiB
        except Exception:  # noqa: BLE001 - the second attempt says what is wrong, if it is not the type
            await self._run(_SQL_CREATE.replace("MEDIUMTEXT", "TEXT"))

    async def claim(self, key: str, claim: Claim, timeout: float) -> Claim:
        """Return the claim that holds the key."""
        id_, now = digest(key), self._clock()
        await self._run("DELETE FROM {table} WHERE id = :id AND expires <= :now", id=id_, now=now)

        try:
            await self._run(
                "INSERT INTO {table} (id, token, fingerprint, expires)"
                " VALUES (:id, :token, :fingerprint, :expires)",
                id=id_,
                token=claim.token,
                fingerprint=claim.fingerprint,
                expires=now + timeout,
            )
        except Exception:
            # Drivers have no common error for a key that exists. Whether it does is what counts.
            query = self._fill("SELECT token, fingerprint, reply FROM {table} WHERE id = :id")

            async with self._get_client() as client:
                found = await client.select(query, id=id_)

            for token, fingerprint, reply in found:
                return Claim(token, fingerprint, reply)

            raise

        return claim

    async def save(self, key: str, claim: Claim, ttl: float) -> bool:
        """Keep the reply of a claim."""
        done = await self._run(
            "UPDATE {table} SET reply = :reply, expires = :expires WHERE id = :id AND token = :token",
            reply=claim.reply,
            expires=self._clock() + ttl,
            id=digest(key),
            token=claim.token,
        )
        changed: int = done.rowcount
        return changed == 1

    async def release(self, key: str, claim: Claim) -> None:
        """Free the key."""
        statement = "DELETE FROM {table} WHERE id = :id AND token = :token"
        await self._run(statement, id=digest(key), token=claim.token)

    async def delete_expired(self) -> int:
        """Delete what is out of date, and return how many keys; run it now and then."""
        done = await self._run("DELETE FROM {table} WHERE expires <= :now", now=self._clock())
        deleted: int = done.rowcount
        return deleted

    async def _run(self, statement: str, **params: object) -> Any:
        async with self._get_client() as client:
            return await client.execute(self._fill(statement), **params)

    def _fill(self, statement: str) -> str:
        """Return a statement with the table's name, which was checked to be a plain one."""
        return statement.replace("{table}", self._table)


def idempotent(
    store: IdempotencyStore | None = None,
    *,
    required: bool = False,
    ttl: float = 86400.0,
    timeout: float = 300.0,
    wait: float = 0.0,
    owner: Callable[[Request], str] | None = None,
) -> Callable[..., Awaitable[None]]:
    """
    Return a dependency: a request with an ``Idempotency-Key`` is done once, however often it is sent.

    The first request with a key is worked on, and its reply is kept if its status is below 400 (an error
    may be repeated). Another one gets the same reply, with ``Idempotency-Replayed: true`` and its own id;
    while the first is being worked on, it waits, or gets 409; with another body, query or path it gets 422.
    List the dependencies that check who the client is before this one.

    Args:
        store: Where keys are kept; by default the Redis of REDIS_CONFIG, else the SQL of DATABASES (both
            under "default"; make the table of `SqlStore` once).
        required: Whether a request without a key is refused with 400.
        ttl: Seconds for which a reply is kept.
        timeout: Seconds after which a request that has neither ended nor failed, such as one whose process
            was killed, no longer holds its key. No request may take longer.
        wait: Seconds for which a concurrent request waits for the first one; then, and with 0 at once, 409.
        owner: Returns whose key it is; by default the ``Authorization`` header. The same key of two owners is
            two keys.

    Returns:
        A function for `fastapi.Depends`.

    Raises:
        UsageError: ``ttl``, ``timeout`` or ``wait`` is not a number of seconds.

    Example:
        ```python
        from fastapi import Depends

        from ws_web import create_app
        from ws_web.idempotency import MemoryStore, idempotent
        from ws_web.testing import AppClient

        app = create_app()
        orders = []


        @app.post("/orders", dependencies=[Depends(idempotent(MemoryStore()))])
        async def order(item: str) -> int:
            orders.append(item)
            return len(orders)


        async with AppClient(app, headers={"idempotency-key": "k-1"}) as client:
            assert (await client.post("/orders?item=lamp")).data() == 1
            assert (await client.post("/orders?item=lamp")).data() == 1
            assert (await client.post("/orders?item=chair")).status_code == 422
            assert orders == ["lamp"]
        ```
    """
    check_seconds("ttl", ttl)
    check_seconds("timeout", timeout)
    check_seconds("wait", wait, may_be_zero=True)
    rules = _Rules(store, required, ttl, timeout, wait, owner or _authorization)

    async def check(
        request: Request, idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key")] = None
    ) -> None:
        await rules.check(request, idempotency_key)

    check.__ws_web_around__ = rules.around  # type: ignore[attr-defined]  # see APIRoute
    return check


class _Answered(Exception):
    """The request has its reply already."""

    def __init__(self, response: StarletteResponse) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class _Rules:
    """What `idempotent` was called with."""

    store: IdempotencyStore | None
    required: bool
    ttl: float
    timeout: float
    wait: float
    owner: Callable[[Request], str]

    async def check(self, request: Request, key: str | None) -> None:
        """Claim the key of a request, or answer it."""
        if key is None:
            if self.required:
                raise _Answered(HTTPExceptionResponse(400, "The header Idempotency-Key is missing"))

            return

        # Of two headers, one would be taken, perhaps another one than the proxy in front of us takes.
        if not _KEY.fullmatch(key) or len(request.headers.getlist("idempotency-key")) > 1:
            raise _Answered(HTTPExceptionResponse(400, "Idempotency-Key must be 1 to 255 visible characters"))

        store = self.store or _store_of(request)
        name = digest(self.owner(request), key)
        mine = Claim(uuid.uuid4().hex, await _fingerprint(request))
        deadline = asyncio.get_running_loop().time() + self.wait
        looks = 0

        while True:
            held = await store.claim(name, mine, self.timeout)

            if held.token == mine.token:
                request.scope[_CLAIM] = (store, name, mine)
                return

            if held.fingerprint != mine.fingerprint:
                raise _Answered(_invalid("Idempotency-Key was used for another request"))

            if held.reply is not None:
                raise _Answered(_again(held.reply))

            if asyncio.get_running_loop().time() >= deadline:
                message = "The first request with this Idempotency-Key is still being worked on"
                raise _Answered(HTTPExceptionResponse(409, message, headers={"Retry-After": "1"}))

            looks += 1
            await asyncio.sleep(delay(looks, 0.02, 0.5))

    async def around(self, handle: Handler, request: Request) -> StarletteResponse:
        """Handle a request, and keep the reply under its key."""
        await request.body()  # forms are parsed from it as well, and the fingerprint needs it

        try:
            response = await handle(request)
        except _Answered as answered:
            return answered.response
        except BaseException:
            await self._settle(request, None)
            raise

        await self._settle(request, response)
        return response

    async def _settle(self, request: Request, response: StarletteResponse | None) -> None:
        """Keep a reply, or free the key; what was done is done, so that a failing store changes no reply."""
        claimed: tuple[IdempotencyStore, str, Claim] | None = request.scope.pop(_CLAIM, None)

        if claimed is not None:
            try:
                await self._keep(request, response, *claimed)
            except Exception:
                message = "the reply of %s %r could not be kept under its Idempotency-Key"
                logger.exception(message, request.method, request.scope["path"])

    async def _keep(
        self,
        request: Request,
        response: StarletteResponse | None,
        store: IdempotencyStore,
        name: str,
        mine: Claim,
    ) -> None:
        if response is None or response.status_code >= 400:
            await asyncio.shield(store.release(name, mine))
            return

        kept = KeptReply.of(response)
        done = Claim(mine.token, mine.fingerprint, _STREAMED if kept is None else kept.dump())

        if not await asyncio.shield(store.save(name, done, self.ttl)):
            logger.error(
                "%s %r took longer than the %g s for which it holds its Idempotency-Key: another request "
                "with the same key may have been worked on; give `idempotent` a longer timeout",
                request.method,
                request.scope["path"],
                self.timeout,
            )


def _invalid(message: str) -> Response:
    """Return a 422 as the document of the route describes them: with a list of problems."""
    problem = {"loc": ["header", "Idempotency-Key"], "msg": message, "type": "idempotency_key_reused"}
    return Response([problem], 422, 422, msg=message)


def _again(kept: str) -> StarletteResponse:
    if kept == _STREAMED:
        return HTTPExceptionResponse(409, "This request was done; its reply was a stream, which is not kept")

    response = KeptReply.load(kept).response()
    response.headers["idempotency-replayed"] = "true"
    return response


def _authorization(request: Request) -> str:
    return request.headers.get("authorization", "")


async def _fingerprint(request: Request) -> str:
    return digest(
        request.method,
        request.scope["path"],
        request.scope["query_string"].decode("latin-1"),
        (await request.body()).decode("latin-1"),
    )


def _store_of(request: Request) -> IdempotencyStore:
    """Return the store of the application's own Redis or SQL."""
    components: Mapping[str, Any] = getattr(request.app.state, "components", {})

    if "REDIS_CONFIG" in components:
        return RedisStore(_PooledRedis(manager_of(components["REDIS_CONFIG"])))

    if "DATABASES" in components:
        manager = manager_of(components["DATABASES"])
        return SqlStore(lambda: manager.get_client(alone=True))  # not in a transaction of the request

    raise NotReadyError("idempotent() has no store: set REDIS_CONFIG or DATABASES, or pass one to it")


class _PooledRedis:
    """The ``eval`` of a pool's client, which is acquired for each call."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def eval(self, script: str, numkeys: int, *args: object) -> Any:
        """Run a script."""
        async with self._manager.get_client() as client:
            return await client.eval(script, numkeys, *args)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
