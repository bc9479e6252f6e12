"""Replies that are kept for a while: with an ETag, and with tags that say what they were made from."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response as StarletteResponse

from ws_core.sources import client_getter
from ws_web._declarations import Handler, check_seconds
from ws_web._kept_reply import KeptReply, as_text, digest

__all__ = ("CacheStore", "MemoryCache", "RedisCache", "cached")

# Any below: clients of drivers, and FastAPI's functions.

_MISS = "ws_web.cache_miss"  # of the scope
_CREDENTIALS = ("authorization", "cookie", "x-api-key", "x-auth-token", "proxy-authorization")

logger: logging.Logger = logging.getLogger("ws_web")


class CacheStore(Protocol):
    """Where replies are kept."""

    async def get(self, key: str) -> str | None:
        """Return what is kept under a key."""
        ...

    async def set(self, key: str, value: str, ttl: float) -> None:
        """Keep something for so many seconds."""
        ...

    async def versions(self, tags: Sequence[str]) -> str:
        """Return a text that changes when one of the tags is invalidated."""
        ...

    async def invalidate(self, *tags: str) -> None:
        """Let all that was kept with one of the tags be forgotten."""
        ...


class MemoryCache:
    """
    Keep replies in this process.

    Args:
        size: How many replies at most; the one that was not used for the longest time goes first.
        clock: Returns monotonic seconds.
    """

    def __init__(self, size: int = 1000, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._kept: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._versions: dict[str, int] = {}

    async def get(self, key: str) -> str | None:
        """Return what is kept under a key."""
        value, until = self._kept.get(key, ("", 0.0))

        if until <= self._clock():
            self._kept.pop(key, None)
            return None

        self._kept.move_to_end(key)
        return value

    async def set(self, key: str, value: str, ttl: float) -> None:
        """Keep something for so many seconds."""
        self._kept[key] = (value, self._clock() + ttl)

        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    async def versions(self, tags: Sequence[str]) -> str:
        """Return a text that changes when one of the tags is invalidated."""
        return ",".join(str(self._versions.get(tag, 0)) for tag in tags)

    async def invalidate(self, *tags: str) -> None:
        """Let all that was kept with one of the tags be forgotten."""
        for tag in tags:
            self._versions[tag] = self._versions.get(tag, 0) + 1


class RedisCache:
    """
    Keep replies in Redis, for all processes.

    Args:
        redis: A client of ``redis.asyncio`` or one that has its ``get`` and ``set``, a pool with such a
            client as ``.redis``, or a manager of pools, which may be started later.
        prefix: What the names of the keys begin with.
    """

    def __init__(self, redis: object, *, prefix: str = "ws_web:cache:") -> None:
        self._client = client_getter(redis, "get", "set")
        self._prefix = prefix

    async def get(self, key: str) -> str | None:
        """Return what is kept under a key."""
        return as_text(await self._client().get(f"{self._prefix}{key}"))

    async def set(self, key: str, value: str, ttl: float) -> None:
        """Keep something for so many seconds."""
        await self._client().set(f"{self._prefix}{key}", value, px=max(1, round(ttl * 1000)))

    async def versions(self, tags: Sequence[str]) -> str:
        """Return a text that changes when one of the tags is invalidated."""
        found = await asyncio.gather(*(self._client().get(f"{self._prefix}tag:{tag}") for tag in tags))
        return ",".join(as_text(version) or "0" for version in found)

    async def invalidate(self, *tags: str) -> None:
        """Let all that was kept with one of the tags be forgotten."""
        # A version that is lost, with all of Redis or by eviction, must not come again: it is not a count.
        for tag in tags:
            await self._client().set(f"{self._prefix}tag:{tag}", uuid.uuid4().hex)


def cached(
    store: CacheStore,
    ttl: float,
    *,
    tags: Sequence[str] | Callable[[Request], Sequence[str]] = (),
    key: Callable[[Request], str] | None = None,
    vary: Sequence[str] = ("accept", "accept-language"),
    max_age: int = 0,
) -> Callable[[Request], Awaitable[None]]:
    """
    Return a dependency: the replies of a GET route are kept, and sent again to requests of the same URL.

    Each has an ETag; a client that sends it as ``If-None-Match`` gets 304. Only replies of status 200 that
    are not streams and set no cookie are kept; several requests at once are answered by one call of
    the handler in each process. When the store fails, the handler is called. List the dependencies that check
    who the client is before this one.

    Args:
        store: Where replies are kept.
        ttl: Seconds for which they are.
        tags: What the reply is made from; ``await store.invalidate("items")`` forgets all replies with that
            tag.
        key: Returns whose reply it is, when it is not everybody's. Without it, requests with credentials
            (``Authorization``, cookies, API keys) are neither answered from the store nor kept.
        vary: Request headers of which each value has its own reply.
        max_age: Seconds for which clients may use a reply without asking; 0 has them send the ETag each time.

    Returns:
        A function for `fastapi.Depends`.

    Raises:
        UsageError: ``ttl`` or ``max_age`` is not a number of seconds.

    Example:
        ```python
        from fastapi import Depends

        from ws_web import create_app
        from ws_web.caching import MemoryCache, cached
        from ws_web.testing import AppClient

        app = create_app()
        store = MemoryCache()
        calls = []


        @app.get("/items", dependencies=[Depends(cached(store, 60, tags=["items"]))])
        async def items() -> list[str]:
            calls.append(1)
            return ["lamp"]


        async with AppClient(app) as client:
            etag = (await client.get("/items")).headers["etag"]
            assert (await client.get("/items")).data() == ["lamp"]
            assert (await client.get("/items", headers={"if-none-match": etag})).status_code == 304
            assert len(calls) == 1
            await store.invalidate("items")
            await client.get("/items")
            assert len(calls) == 2
        ```
    """
    check_seconds("ttl", ttl)
    check_seconds("max_age", max_age, may_be_zero=True)
    rules = _Rules(store, ttl, tags, key, vary, max_age)

    async def look(request: Request) -> None:
        await rules.look(request)

    look.__ws_web_around__ = rules.around  # type: ignore[attr-defined]  # see APIRoute
    return look


class _Found(Exception):
    """There is a kept reply."""

    def __init__(self, kept: KeptReply) -> None:
        super().__init__()
        self.kept = kept


class _Rules:
    """What `cached` was called with, and what is being made."""

    def __init__(
        self,
        store: CacheStore,
        ttl: float,
        tags: Sequence[str] | Callable[[Request], Sequence[str]],
        key: Callable[[Request], str] | None,
        vary: Sequence[str],
        max_age: int,
    ) -> None:
        self._store = store
        self._ttl = ttl
        self._tags = tags
        self._key = key
        self._vary = vary
        age = f"max-age={max_age}" if max_age > 0 else "no-cache"
        self._control = f"{'public' if key is None else 'private'}, {age}"
        self._making: dict[str, asyncio.Event] = {}

    async def look(self, request: Request) -> None:
        """Answer a request from the store, or note that its reply is to be kept."""
        if request.method not in ("GET", "HEAD") or (self._key is None and _has_credentials(request)):
            return

        try:
            name = await self._name(request)
            kept = await self._store.get(name)

            # Once only: a reply that could not be kept is made by each of those that have waited for it.
            if kept is None and (other := self._making.get(name)) is not None:
                await other.wait()
                kept = await self._store.get(name)
        except Exception:
            message = "the cache of %s %r failed: the handler is called"
            logger.exception(message, request.method, request.scope["path"])
            return

        if kept is not None:
            raise _Found(KeptReply.load(kept))

        request.scope[_MISS] = name
        self._making.setdefault(name, asyncio.Event())

    async def around(self, handle: Handler, request: Request) -> StarletteResponse:
        """Handle a request, and keep its reply."""
        try:
            response = await handle(request)
        except _Found as found:
            return self._answer(request, found.kept)
        else:
            return await self._keep(request, response)
        finally:
            made = self._making.pop(request.scope.pop(_MISS, ""), None)

            if made is not None:
                made.set()

    async def _keep(self, request: Request, response: StarletteResponse) -> StarletteResponse:
        name = request.scope.get(_MISS)

        if name is None or response.status_code != 200 or "set-cookie" in response.headers:
            return response

        if re.search("no-store|private", response.headers.get("cache-control", "")):
            return response

        kept = KeptReply.of(response)

        if kept is None:
            return response

        try:
            await self._store.set(name, kept.dump(), self._ttl)
        except Exception:
            logger.exception("the reply of %s %r could not be kept", request.method, request.scope["path"])

        reply = self._answer(request, kept)
        reply.background = response.background
        return reply

    def _answer(self, request: Request, kept: KeptReply) -> StarletteResponse:
        """Return a kept reply, or 304 for a client that has it."""
        etag = kept.etag
        sent = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
        reply = StarletteResponse(status_code=304) if sent & {"*", etag, etag[2:]} else kept.response()
        reply.headers["etag"] = etag
        reply.headers["cache-control"] = self._control

        for name in self._vary:
            reply.headers.add_vary_header(name)

        return reply

    async def _name(self, request: Request) -> str:
        """Return the key of a request: its URL, whose it is, its headers, and the versions of its tags."""
        tags = self._tags(request) if callable(self._tags) else self._tags
        owner = "" if self._key is None else self._key(request)
        headers = [",".join(request.headers.getlist(name)) for name in self._vary]
        parts = [
            # As the router sees them: `request.url` leaves out line ends, which would make two paths one.
            request.scope["path"],
            request.scope["query_string"].decode("latin-1"),
            owner,
            *headers,
            *tags,
            await self._store.versions(tags),
        ]
        return digest(*parts)


def _has_credentials(request: Request) -> bool:
    return any(name in request.headers for name in _CREDENTIALS)
