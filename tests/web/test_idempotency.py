"""Idempotency keys: what is repeated with a key is done once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends, Form, HTTPException
from fastapi.responses import StreamingResponse

from ws_core.errors import ConfigError, UsageError
from ws_web import Response, create_app
from ws_web.idempotency import Claim, IdempotencyStore, MemoryStore, RedisStore, SqlStore, idempotent
from ws_web.testing import AppClient


class Sqlite:
    """A client of a SQL pool over the standard library's SQLite."""

    def __init__(self, *, refuses: str = "no such text") -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.refuses = refuses

    @asynccontextmanager
    async def get_client(self, *, alone: bool = True) -> AsyncIterator[Any]:
        """Return itself."""
        assert alone
        yield self

    async def execute(self, statement: str, **params: Any) -> Any:
        """Run a statement."""
        if self.refuses in statement:
            raise sqlite3.OperationalError("refused")

        return self.connection.execute(statement, params)

    async def select(self, statement: str, **params: Any) -> Any:
        """Run a query."""
        return (await self.execute(statement, **params)).fetchall()


class Scripts:
    """A Redis as far as the scripts of the store need one."""

    def __init__(self, *, decodes: bool) -> None:
        self.hashes: dict[str, dict[str, Any]] = {}
        self.decodes = decodes

    async def eval(self, script: str, numkeys: int, key: str, *args: Any) -> Any:
        """Do what a script does; tests/integration run them on a server."""
        assert numkeys == 1

        if "HMGET" in script:
            found = self.hashes.setdefault(key, {"token": args[0], "fingerprint": args[1]})
            values = [found.get(name) for name in ("token", "fingerprint", "reply")]
            return [v if v is None or self.decodes else v.encode() for v in values]

        if self.hashes.get(key, {}).get("token") != args[0]:
            return 0

        if "'DEL'" in script:
            del self.hashes[key]
        else:
            self.hashes[key]["reply"] = args[1]

        return 1

    @asynccontextmanager
    async def get_client(self) -> AsyncIterator[Any]:
        """Return itself."""
        yield self


@pytest.fixture(params=["memory", "redis", "redis of text", "sql"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[IdempotencyStore]:
    """Each kind of store."""
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "sql":
        sqlite = Sqlite()
        made = SqlStore(sqlite.get_client)
        await made.create()
        await made.create()
        yield made
        sqlite.connection.close()
    else:
        yield RedisStore(Scripts(decodes="text" in request.param))


class TestStores:
    """What each kind does alike."""

    async def test_the_first_claim_holds(self, store: IdempotencyStore) -> None:
        """Until it is released, and with its reply once it is saved."""
        first, second = Claim("t1", "f"), Claim("t2", "g")
        assert await store.claim("k", first, 60) == first
        assert await store.claim("k", second, 60) == first
        assert await store.claim("other", second, 60) == second
        assert not await store.save("k", Claim("t2", "g", "reply"), 60)
        await store.release("k", second)
        assert await store.claim("k", second, 60) == first
        assert await store.save("k", Claim("t1", "f", "reply"), 60)
        assert await store.claim("k", second, 60) == Claim("t1", "f", "reply")
        await store.release("k", first)
        assert await store.claim("k", second, 60) == second

    @pytest.mark.parametrize("kind", ["memory", "sql"])
    async def test_a_claim_ends(self, kind: str) -> None:
        """After its timeout another one gets the key, and the first cannot save."""
        now = [100.0]
        sqlite = Sqlite()
        sql = SqlStore(sqlite.get_client, clock=lambda: now[0])
        await sql.create()
        store: IdempotencyStore = MemoryStore(clock=lambda: now[0]) if kind == "memory" else sql
        first, second = Claim("t1", "f"), Claim("t2", "f")
        await store.claim("k", first, 5)
        now[0] = 105.0
        assert await store.claim("k", second, 5) == second
        assert not await store.save("k", Claim("t1", "f", "late"), 60)
        now[0] = 111.0
        assert await sql.delete_expired() == (1 if kind == "sql" else 0)
        sqlite.connection.close()

    async def test_a_failing_database(self) -> None:
        """Its error is raised: the key is not taken to be free."""
        sqlite = Sqlite(refuses="INSERT")
        store = SqlStore(sqlite.get_client)
        await store.create()

        with pytest.raises(sqlite3.OperationalError, match="refused"):
            await store.claim("k", Claim("t", "f"), 5)

        sqlite.connection.close()

    async def test_a_database_without_mediumtext(self) -> None:
        """PostgreSQL has none, and its TEXT is as long as needed."""
        sqlite = Sqlite(refuses="MEDIUMTEXT")
        await SqlStore(sqlite.get_client).create()
        assert sqlite.connection.execute("SELECT count(*) FROM ws_web_idempotency").fetchone() == (0,)
        sqlite.connection.close()

    def test_a_name_that_is_not_one(self) -> None:
        """It stands in the statements."""
        with pytest.raises(ConfigError, match="table must be a name"):
            SqlStore(Sqlite.get_client, table="x; DROP TABLE y")  # type: ignore[arg-type]  # not called


class Shop:
    """An application whose orders are counted."""

    def __init__(self, store: IdempotencyStore | None = None, **options: Any) -> None:
        self.orders: list[str] = []
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.app = create_app()
        guarded: Any = {"dependencies": [Depends(idempotent(store, **options))]}

        @self.app.post("/orders", **guarded)
        async def order(item: str) -> dict[str, int]:
            self.started.set()
            await self.go.wait()
            self.orders.append(item)

            if item == "broken":
                raise ValueError(item)

            if item == "sold":
                raise HTTPException(409, "sold out")

            return {"number": len(self.orders)}

        @self.app.post("/form", **guarded)
        async def form(name: Annotated[str, Form()]) -> str:
            self.orders.append(name)
            return name

        @self.app.post("/stream", **guarded)
        async def stream() -> StreamingResponse:
            self.orders.append("stream")
            return StreamingResponse(iter(["a"]))

        @self.app.post("/soft", **guarded)
        async def soft() -> Response:
            self.orders.append("soft")
            return Response(code=4001, headers={"x-own": "1", "set-cookie": "a=b"})

    async def send(self, path: str, key: str | None = "k-1", **options: Any) -> Any:
        """Send a request with a key."""
        headers = {**({} if key is None else {"idempotency-key": key}), **options.pop("headers", {})}
        return await AppClient(self.app).post(path, headers=headers, **options)


class TestRequests:
    """The same key, the same answer."""

    async def test_the_same_answer(self, store: IdempotencyStore) -> None:
        """With the id of the new request, and marked."""
        shop = Shop(store)
        first = await shop.send("/orders?item=lamp", headers={"x-request-id": "r-1"})
        second = await shop.send("/orders?item=lamp", headers={"x-request-id": "r-2"})
        assert (first.data(), second.data()) == ({"number": 1}, {"number": 1})
        assert second.envelope()["request_id"] == "r-2"
        assert "idempotency-replayed" not in first.headers
        assert second.headers["idempotency-replayed"] == "true"
        assert second.headers["content-type"] == "application/json"
        assert (await shop.send("/orders?item=lamp", "k-2")).data() == {"number": 2}
        assert (await shop.send("/orders?item=lamp", None)).data() == {"number": 3}

    async def test_another_request_with_the_key(self, store: IdempotencyStore) -> None:
        """Another query, body or path is 422."""
        shop = Shop(store)
        await shop.send("/orders?item=lamp", json={"a": 1})
        assert (await shop.send("/orders?item=chair", json={"a": 1})).status_code == 422
        assert (await shop.send("/orders?item=lamp", json={"a": 2})).error()["code"] == 422
        assert (await shop.send("/soft", json={"a": 1})).status_code == 422
        assert shop.orders == ["lamp"]

    async def test_paths_that_urls_write_alike(self, store: IdempotencyStore) -> None:
        """A path with a line end is another one, so it is another request."""
        shop = Shop(store)

        @shop.app.post("/named/{name}", dependencies=[Depends(idempotent(store))])
        async def named(name: str) -> str:
            return name

        assert (await shop.send("/named/a%0Ab", "k-9")).data() == "a\nb"
        assert (await shop.send("/named/ab", "k-9")).status_code == 422

    async def test_a_concurrent_request(self, store: IdempotencyStore) -> None:
        """It gets 409, or waits if it may."""
        shop, patient = Shop(store), Shop(store, wait=30)
        patient.orders, patient.go, patient.started = shop.orders, shop.go, shop.started
        shop.go.clear()
        first = asyncio.create_task(shop.send("/orders?item=lamp"))
        await shop.started.wait()
        refused = await shop.send("/orders?item=lamp")
        assert (refused.status_code, refused.headers["retry-after"]) == (409, "1")
        waiting = asyncio.create_task(patient.send("/orders?item=lamp"))
        await asyncio.sleep(0.05)
        shop.go.set()
        assert (await first).data() == (await waiting).data() == {"number": 1}
        assert shop.orders == ["lamp"]

    async def test_an_error_may_be_repeated(self, store: IdempotencyStore) -> None:
        """Its key is free again: failures, raised errors, and a request that is cancelled."""
        shop = Shop(store)

        for item in ("broken", "sold"):
            for _ in range(2):
                assert (await shop.send(f"/orders?item={item}", item)).status_code >= 400

        assert shop.orders == ["broken", "broken", "sold", "sold"]
        shop.go.clear()
        shop.started.clear()
        cut = asyncio.create_task(shop.send("/orders?item=lamp"))
        await shop.started.wait()
        cut.cancel()

        with pytest.raises(asyncio.CancelledError):
            await cut

        shop.go.set()
        assert (await shop.send("/orders?item=lamp")).data() == {"number": 5}

    async def test_forms_and_codes(self, store: IdempotencyStore) -> None:
        """A form is a body, and a code of an error in a reply of status 200 is an answer."""
        shop = Shop(store)
        form = {"content-type": "application/x-www-form-urlencoded"}

        for _ in range(2):
            assert (await shop.send("/form", "f", content="name=ann", headers=form)).data() == "ann"
            reply = await shop.send("/soft", "s")
            assert (reply.error()["code"], reply.headers["x-own"]) == (4001, "1")

        assert "set-cookie" not in reply.headers  # a session is the first client's alone
        assert shop.orders == ["ann", "soft"]

    async def test_a_stream_is_done_once(self, store: IdempotencyStore) -> None:
        """But not kept."""
        shop = Shop(store)
        assert (await shop.send("/stream")).text == "a"
        assert (await shop.send("/stream")).status_code == 409
        assert shop.orders == ["stream"]

    async def test_two_owners(self) -> None:
        """The same key of two clients is two keys."""
        shop = Shop(MemoryStore())
        ann = await shop.send("/orders?item=lamp", headers={"authorization": "ann"})
        bob = await shop.send("/orders?item=lamp", headers={"authorization": "bob"})
        assert (ann.data(), bob.data()) == ({"number": 1}, {"number": 2})

    @pytest.mark.parametrize("key", ["", " ", "é", "x" * 256, "a b"])
    async def test_what_is_not_a_key(self, key: str) -> None:
        """It is refused with 400."""
        reply = await Shop(MemoryStore()).send("/orders?item=lamp", key)
        assert (reply.status_code, reply.error()["msg"]) == (
            400,
            "Idempotency-Key must be 1 to 255 visible characters",
        )

    async def test_two_keys(self) -> None:
        """Which of them is meant is not clear."""
        client = AppClient(Shop(MemoryStore()).app)
        headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
        assert (await client.post("/orders?item=lamp", headers=headers)).status_code == 400

    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True, None])
    @pytest.mark.parametrize("name", ["ttl", "timeout"])
    def test_what_is_not_a_time(self, name: str, value: Any) -> None:
        """It would keep nothing, or fail with the first request."""
        with pytest.raises(UsageError, match=f"^{name} must be a number of seconds"):
            idempotent(MemoryStore(), **{name: value})

        with pytest.raises(UsageError, match=r"^wait must be .* not negative"):
            idempotent(MemoryStore(), wait=-1)

    async def test_a_key_that_is_required(self) -> None:
        """A request without is refused."""
        reply = await Shop(MemoryStore(), required=True).send("/orders?item=lamp", None)
        assert (reply.status_code, reply.error()["msg"]) == (400, "The header Idempotency-Key is missing")

    async def test_a_store_that_fails_after_the_work(self, caplog: pytest.LogCaptureFixture) -> None:
        """The client gets its reply, and the log says that it is not kept."""
        store = MemoryStore()

        async def fail(key: str, claim: Claim, ttl: float) -> bool:
            raise OSError("gone")

        store.save = fail  # type: ignore[method-assign]  # the failure
        shop = Shop(store)
        assert (await shop.send("/orders?item=lamp")).data() == {"number": 1}
        assert "could not be kept under its Idempotency-Key" in caplog.text

    async def test_a_request_that_takes_too_long(self, caplog: pytest.LogCaptureFixture) -> None:
        """It has lost its key: that is an error in the log."""
        now = [0.0]
        shop = Shop(MemoryStore(clock=lambda: now[0]), timeout=5)
        shop.go.clear()
        first = asyncio.create_task(shop.send("/orders?item=lamp"))
        await shop.started.wait()
        now[0] = 6.0
        shop.go.set()
        assert (await first).data() == {"number": 1}
        assert "took longer than the 5 s" in caplog.text

    def test_the_header_is_documented(self) -> None:
        """OpenAPI lists it."""
        parameters = Shop(MemoryStore()).app.openapi()["paths"]["/orders"]["post"]["parameters"]
        assert {"Idempotency-Key", "item"} == {parameter["name"] for parameter in parameters}


class TestDefaults:
    """Without a store, that of the application's settings."""

    @pytest.mark.parametrize("section", ["REDIS_CONFIG", "DATABASES"])
    async def test_the_components(self, section: str) -> None:
        """Redis first, else SQL."""
        shop = Shop()
        sqlite = Sqlite()
        await SqlStore(sqlite.get_client).create()
        managers = {
            "REDIS_CONFIG": SimpleNamespace(manager=Scripts(decodes=False)),
            "DATABASES": sqlite,
        }
        shop.app.state.components = {section: managers[section]}

        for _ in range(2):
            assert (await shop.send("/orders?item=lamp")).data() == {"number": 1}

        sqlite.connection.close()

    async def test_without_any(self, caplog: pytest.LogCaptureFixture) -> None:
        """A mistake of the application, which the log names."""
        assert (await Shop().send("/orders?item=lamp")).status_code == 500
        assert "set REDIS_CONFIG or DATABASES" in caplog.text
