"""Replies that are kept: with ETags and tags, and never another client's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi import Response as PlainResponse
from fastapi.responses import StreamingResponse

from ws_core.errors import UsageError
from ws_web import Request, create_app
from ws_web.caching import CacheStore, MemoryCache, RedisCache, cached
from ws_web.testing import AppClient


class Redis:
    """As much of a Redis client as the store needs."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get(self, name: str) -> bytes | None:
        """Return a value."""
        return self.values.get(name)

    async def set(self, name: str, value: str, px: int = 1) -> None:
        """Keep a value."""
        assert px > 0
        self.values[name] = value.encode()


@pytest.fixture(params=["memory", "redis", "manager"])
def store(request: pytest.FixtureRequest) -> CacheStore:
    """Each kind of store."""
    if request.param == "memory":
        return MemoryCache()

    return RedisCache(Redis() if request.param == "redis" else Pool())


class Pool:
    """A pool with a client, and its manager."""

    def __init__(self) -> None:
        self.redis = Redis()

    def get_pool(self) -> Pool:
        """Return the pool."""
        return self


class Shop:
    """An application that counts the calls of its handlers."""

    def __init__(self, store: CacheStore, **options: Any) -> None:
        self.calls: list[str] = []
        self.app: FastAPI = create_app()
        self.go = asyncio.Event()
        self.go.set()
        guarded: Any = {"dependencies": [Depends(cached(store, 60, **options))]}

        @self.app.get("/items", **guarded)
        async def items(n: int = 1) -> list[int]:
            self.calls.append("items")
            await self.go.wait()

            if n == 0:
                raise ValueError(n)

            return list(range(n))

        @self.app.post("/items", **guarded)
        async def add() -> int:
            self.calls.append("add")
            return 1

        @self.app.get("/stream", **guarded)
        async def stream() -> StreamingResponse:
            self.calls.append("stream")
            return StreamingResponse(iter("ab"))

        @self.app.get("/cookie", **guarded)
        async def cookie(response: PlainResponse) -> int:
            self.calls.append("cookie")
            response.set_cookie("a", "b")
            return 1

        @self.app.get("/private", **guarded)
        async def private(response: PlainResponse) -> int:
            self.calls.append("private")
            response.headers["cache-control"] = "private"
            return 1

    async def get(self, path: str = "/items", **headers: str) -> Any:
        """Send a request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await AppClient(self.app).get(path, headers=named)


class TestReplies:
    """What is kept, and for whom."""

    async def test_the_handler_is_called_once(self, store: CacheStore) -> None:
        """Each reply has its own id, and another URL or language its own reply."""
        shop = Shop(store)
        first, second = await shop.get(x_request_id="r-1"), await shop.get(x_request_id="r-2")
        assert (first.data(), second.data()) == ([0], [0])
        assert second.envelope()["request_id"] == "r-2"
        assert first.headers["etag"] == second.headers["etag"]
        assert first.headers["cache-control"] == "public, no-cache"
        assert first.headers["vary"] == "accept, accept-language"
        await shop.get("/items?n=2")
        await shop.get(accept_language="de")
        assert shop.calls == ["items"] * 3

    async def test_a_client_that_has_it(self, store: CacheStore) -> None:
        """It gets 304, and nothing else."""
        shop = Shop(store, max_age=5)
        etag = (await shop.get()).headers["etag"]

        for sent in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
            reply = await shop.get(if_none_match=sent)
            assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", etag)
            assert reply.headers["cache-control"] == "public, max-age=5"

        assert (await shop.get(if_none_match='"other"')).status_code == 200

    async def test_tags(self, store: CacheStore) -> None:
        """What is made from a tag is forgotten with it, also what is being made."""
        shop = Shop(store, tags=lambda request: ["items", request.url.path])
        await shop.get()
        await store.invalidate("others")
        await shop.get()
        assert len(shop.calls) == 1
        await store.invalidate("items", "x")
        shop.go.clear()
        making = asyncio.create_task(shop.get())

        while len(shop.calls) < 2:
            await asyncio.sleep(0)

        await store.invalidate("items")
        shop.go.set()
        await making
        await shop.get()
        assert len(shop.calls) == 3

    async def test_many_at_once(self, store: CacheStore) -> None:
        """The handler is called for one of them; if it fails, for the others."""
        shop = Shop(store)
        shop.go.clear()
        tasks = [asyncio.create_task(shop.get()) for _ in range(10)]
        await asyncio.sleep(0.05)
        shop.go.set()
        assert [(await task).data() for task in tasks] == [[0]] * 10
        assert len(shop.calls) == 1
        assert [(await shop.get("/items?n=0")).status_code for _ in range(2)] == [500, 500]

    @pytest.mark.parametrize("path", ["/stream", "/cookie", "/private"])
    async def test_what_is_not_kept(self, store: CacheStore, path: str) -> None:
        """Streams, cookies, and what says that it is private."""
        shop = Shop(store)
        replies = [await shop.get(path) for _ in range(2)]
        assert len(shop.calls) == 2
        assert "etag" not in replies[1].headers

    async def test_other_methods(self, store: CacheStore) -> None:
        """A write is always done."""
        shop = Shop(store)

        for _ in range(2):
            assert (await AppClient(shop.app).post("/items")).data() == 1

        assert shop.calls == ["add", "add"]

    @pytest.mark.parametrize("name", ["authorization", "cookie", "x_api_key"])
    async def test_credentials(self, store: CacheStore, name: str) -> None:
        """A request with credentials is not answered from the store, nor kept, without a key."""
        shop = Shop(store)
        await shop.get()
        await shop.get(**{name: "ann"})
        await shop.get(**{name: "ann"})
        assert len(shop.calls) == 3
        own = Shop(store, key=lambda request: request.headers.get("authorization", ""))
        ann = [await own.get(authorization="ann") for _ in range(2)]
        await own.get(authorization="bob")
        assert len(own.calls) == 2
        assert ann[0].headers["cache-control"] == "private, no-cache"


class TestFailures:
    """A store that fails costs time, not replies."""

    @pytest.mark.parametrize("verb", ["get", "set"])
    async def test_the_handler_is_called(self, verb: str, caplog: pytest.LogCaptureFixture) -> None:
        """And the log says why."""
        store = MemoryCache()

        async def fail(*_: object) -> None:
            raise OSError("gone")

        setattr(store, verb, fail)
        shop = Shop(store)
        assert [(await shop.get()).data() for _ in range(2)] == [[0], [0]]
        assert len(shop.calls) == 2
        assert "gone" in caplog.text


@pytest.mark.parametrize("value", [0, -1, float("nan"), "5", True, None])
def test_what_is_not_a_time(value: Any) -> None:
    """A reply would never be kept, or the first request would fail."""
    with pytest.raises(UsageError, match=r"^ttl must be a number of seconds that is positive"):
        cached(MemoryCache(), value)

    with pytest.raises(UsageError, match=r"^max_age must be a number of seconds that is not negative"):
        cached(MemoryCache(), 60, max_age=-1)


async def test_paths_that_urls_write_alike() -> None:
    """A path with a line end, or bytes that are not UTF-8, is another one than that without."""
    app = create_app()

    @app.get("/items/{name}", dependencies=[Depends(cached(MemoryCache(), 60))])
    async def item(name: str, request: Request) -> list[str]:
        return [name, request.scope["query_string"].decode("latin-1")]

    client = AppClient(app)
    assert (await client.get("/items/a%0Ab")).data() == ["a\nb", ""]
    assert (await client.get("/items/ab")).data() == ["ab", ""]
    assert (await client.get("/items/a%09b")).data() == ["a\tb", ""]
    found = await asked(app, b"q=\xff"), await asked(app, b"q=\xfe")
    assert found[0] != found[1]


async def asked(app: FastAPI, query: bytes) -> bytes:
    """Return the reply to a query that no client of ours would send."""
    scope = {"type": "http", "method": "GET", "path": "/items/x", "query_string": query, "headers": []}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({**scope, "http_version": "1.1", "client": None, "server": None}, receive, send)
    assert sent[0]["status"] == 200
    return b"".join(message.get("body", b"") for message in sent).partition(b"request_id")[0]


class TestMemory:
    """The store in this process."""

    async def test_time_and_size(self) -> None:
        """A reply ends with its time, and the oldest one when there are too many."""
        now = [0.0]
        store = MemoryCache(2, clock=lambda: now[0])
        await store.set("a", "1", 5)
        await store.set("b", "2", 50)
        assert await store.get("a") == "1"
        await store.set("c", "3", 50)
        assert [await store.get(key) for key in "abc"] == ["1", None, "3"]
        now[0] = 5.0
        assert [await store.get(key) for key in "ac"] == [None, "3"]
