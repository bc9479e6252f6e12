"""Elasticsearch pools against a small stand-in for the HTTP API, and a real one by WS_TEST_ES_URL."""

from __future__ import annotations

import asyncio
import base64
import importlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from elasticsearch import AsyncElasticsearch, NotFoundError
from elasticsearch import __version__ as client_version

from ws_core.component import Health
from ws_pool.errors import ClosedError, ConfigError, NotReadyError, UnavailableError, UsageError
from ws_pool.es import ElasticsearchPool, ElasticsearchPoolManager, es_manager, es_pool_manager


class Cluster:
    """A stand-in for the part of the HTTP API that the tests use."""

    def __init__(self) -> None:
        self.url = ""
        self.status = "green"
        self.product = "Elasticsearch"
        self.answer = 200
        self.hold: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self.major = 9
        self.documents: dict[str, Any] = {}
        self.headers: Mapping[str, str] = {}

    def reply(self, request: web.Request, body: object, status: int = 200) -> web.Response:
        """Answer as Elasticsearch does, with its product header; refuse the types of a later version."""
        self.headers = request.headers.copy()
        types = [request.headers.get("accept", ""), request.headers.get("content-type", "")]

        if any(f"compatible-with={major}" in kind for kind in types for major in range(self.major + 1, 20)):
            reason = f"Invalid media-type value on headers [Accept]: {types[0]}"
            error = {"type": "media_type_header_exception", "reason": reason}
            body, status = {"error": error, "status": 400}, 400

        headers = {"x-elastic-product": self.product} if self.product else {}
        kind = "application/vnd.elasticsearch+json"
        return web.json_response(body, status=status, headers=headers, content_type=kind)

    async def info(self, request: web.Request) -> web.Response:
        """Return the version."""
        self.reached.set()

        if self.hold is not None:
            await self.hold.wait()

        if self.answer != 200:
            return self.reply(request, {"error": {"type": "security_exception"}}, self.answer)

        return self.reply(
            request, {"version": {"number": f"{self.major}.1.0"}, "tagline": "You Know, for Search"}
        )

    async def health(self, request: web.Request) -> web.Response:
        """Return the cluster's health."""
        return self.reply(request, {"status": self.status}, self.answer)

    async def index(self, request: web.Request) -> web.Response:
        """Take a document."""
        self.documents[request.match_info["id"]] = await request.json()
        return self.reply(request, {"result": "created", "_id": request.match_info["id"]}, 201)

    async def get(self, request: web.Request) -> web.Response:
        """Return a document."""
        found = self.documents.get(request.match_info["id"])
        return self.reply(
            request, {"found": found is not None, "_source": found}, 404 if found is None else 200
        )


@asynccontextmanager
async def serve() -> AsyncIterator[Cluster]:
    """Run the stand-in."""
    cluster = Cluster()
    app = web.Application()
    app.add_routes(
        [
            web.get("/", cluster.info),
            web.get("/_cluster/health", cluster.health),
            web.put("/items/_doc/{id}", cluster.index),
            web.get("/items/_doc/{id}", cluster.get),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    cluster.url = f"http://{host}:{port}"

    try:
        yield cluster
    finally:
        await runner.cleanup()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A stand-in for a cluster."""
    async with serve() as cluster:
        yield cluster


class TestUse:
    async def test_documents(self, cluster: Cluster) -> None:
        """Documents go in and come out through the official client."""
        url = os.environ.get("WS_TEST_ES_URL", cluster.url)

        async with ElasticsearchPool(url=url) as pool, pool.get_client() as es:
            await es.index(index="items", id="1", document={"name": "lamp"})
            assert (await es.get(index="items", id="1"))["_source"] == {"name": "lamp"}

            with pytest.raises(NotFoundError):
                await es.get(index="items", id="none")

            async with pool.get_client(alone=True) as same:
                assert same is es is pool.client

    async def test_credentials(self, cluster: Cluster) -> None:
        """A password or an API key is sent, and shown nowhere."""
        async with ElasticsearchPool(url=cluster.url, user="me", password="pass") as pool:
            assert cluster.headers["authorization"] == "Basic bWU6cGFzcw=="
            assert "pass" not in repr(pool)

        async with ElasticsearchPool(url=cluster.url, user="änn", password="ü"):
            sent = cluster.headers["authorization"].removeprefix("Basic ")
            assert base64.b64decode(sent).decode() == "änn:ü"

        with pytest.raises(ConfigError, match="must be valid text"):
            ElasticsearchPool(url=cluster.url, user="\ud800", password="p")

        async with ElasticsearchPool(url=cluster.url, api_key="key"):
            assert cluster.headers["authorization"] == "ApiKey key"

    @pytest.mark.parametrize("major", [8, 9, 10])
    async def test_servers_of_several_versions(self, cluster: Cluster, major: int) -> None:
        """A server of the version before the client's is spoken to in its own media type."""
        cluster.major = major

        async with ElasticsearchPool(url=cluster.url) as pool, pool.get_client() as es:
            assert pool.statistics().version == f"{major}.1.0"
            await es.index(index="items", id="1", document={"name": "lamp"})
            spoken = min(major, client_version[0])
            assert f"compatible-with={spoken}" in cluster.headers["accept"]
            assert f"compatible-with={spoken}" in cluster.headers["content-type"]
            assert (await es.get(index="items", id="1"))["_source"] == {"name": "lamp"}

        async with ElasticsearchPool(url=cluster.url, name="other"):
            assert f"compatible-with={spoken}" in cluster.headers["accept"]

    async def test_a_server_that_is_too_old(self, cluster: Cluster) -> None:
        """The start says what the server says."""
        cluster.major = 6

        with pytest.raises(UnavailableError, match=r"400: media_type_header_exception: Invalid media-type"):
            await ElasticsearchPool(url=cluster.url).start()

    async def test_health(self, cluster: Cluster) -> None:
        """Green and yellow are well, red and no answer are not."""
        async with ElasticsearchPool(url=cluster.url, retries=0) as pool:
            for status, ok in (("green", True), ("yellow", True), ("red", False)):
                cluster.status = status
                health = await pool.health()
                assert (health.ok, health.detail) == (ok, f"the cluster is {status}")

            cluster.answer = 503
            health = await pool.health()
            assert not health.ok
            assert "503" in health.detail

    async def test_statistics(self, cluster: Cluster) -> None:
        """Nodes and the version are in the statistics."""
        pool = ElasticsearchPool(url=cluster.url, maxsize=7)
        assert pool.statistics().alive == 0

        async with pool:
            statistics = pool.statistics()
            assert (statistics.nodes, statistics.alive, statistics.version) == (1, 1, "9.1.0")
            assert statistics.status()["connections"] == 7


class TestStart:
    async def test_nobody_listens(self, unused_tcp_port: int) -> None:
        """A start without a cluster says where and why, without the password."""
        pool = ElasticsearchPool(url=f"http://me:secret@127.0.0.1:{unused_tcp_port}", retries=0)

        with pytest.raises(UnavailableError, match="no answer: ") as caught:
            await pool.start()

        assert "me:***@127.0.0.1" in str(caught.value)
        assert "secret" not in str(caught.value)

    async def test_wrong_credentials(self, cluster: Cluster) -> None:
        """A refusal says that it is one."""
        cluster.answer = 401

        with pytest.raises(UnavailableError, match="answered with 401"):
            await ElasticsearchPool(url=cluster.url).start()

    async def test_another_product(self, cluster: Cluster) -> None:
        """A server that is not Elasticsearch is refused."""
        cluster.product = ""

        with pytest.raises(UnavailableError, match="not Elasticsearch"):
            await ElasticsearchPool(url=cluster.url).start()

    async def test_cancelled(self, cluster: Cluster) -> None:
        """A start that is cancelled leaves nothing behind."""
        cluster.hold = asyncio.Event()
        start = asyncio.create_task(ElasticsearchPool(url=cluster.url).start())
        await cluster.reached.wait()
        start.cancel()

        with pytest.raises(asyncio.CancelledError):
            await start

    async def test_misuse(self, cluster: Cluster) -> None:
        """Each wrong use is refused with what to do."""
        pool = ElasticsearchPool(url=cluster.url, name="logs")
        assert repr(pool) == f"<ElasticsearchPool 'logs' new: {cluster.url}>"
        assert pool.name == "logs"

        with pytest.raises(NotReadyError, match="async with"):
            async with pool.get_client():
                pass

        assert await pool.health() == Health(ok=False, detail="es pool 'logs' is not open")

        async with pool:
            with pytest.raises(UsageError, match="open already"):
                await pool.start()

            async def elsewhere() -> object:
                return pool.client

            with pytest.raises(UsageError, match="another event loop"):
                await asyncio.to_thread(lambda: asyncio.run(elsewhere()))

        await pool.close()

        with pytest.raises(ClosedError):
            _ = pool.client

    def test_a_forgotten_pool(self) -> None:
        """A pool that was not closed is warned about when it goes."""
        pool = ElasticsearchPool(url="http://h")
        pool._client = object()  # type: ignore[assignment]

        with pytest.warns(ResourceWarning, match="was not closed"):
            pool.__del__()

        pool._client = None


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({}, "ElasticsearchPool.url is missing"),
            ({"url": "h:9200"}, "is not like http"),
            ({"url": "http://u:secret@h:x"}, "is not like http"),
            ({"url": 5}, "ElasticsearchPool.url must be a string"),
            ({"url": ["http://h", None]}, "ElasticsearchPool.url must be a string"),
            ({"url": "http://h", "password": "x"}, "needs ElasticsearchPool.user"),
            ({"url": "http://h", "timeout": 0}, "ElasticsearchPool.timeout"),
            ({"url": "http://h", "retires": 0}, "did you mean 'retries'"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], part: str) -> None:
        """A wrong option is named, without its secrets, before anything starts."""
        with pytest.raises(ConfigError) as caught:
            ElasticsearchPool(**options)

        assert part in str(caught.value)
        assert "secret" not in str(caught.value)

    async def test_several_nodes(self) -> None:
        """Nodes may be a list or be separated by commas; ports have defaults."""
        for url in (["http://a", "https://b", "http://c:1"], "http://a,https://b, http://c:1"):
            pool = ElasticsearchPool(url=url)
            assert pool._options.url == ["http://a:9200", "https://b:443", "http://c:1"]

    async def test_tls(self, tmp_path: Any) -> None:
        """Checking certificates can be off, and a file of them can be given."""
        client = ElasticsearchPool(url="https://h", verify=False)._make()
        await client.close()

        path = tmp_path / "ca.pem"

        for content in (None, "not a certificate"):
            if content is not None:
                path.write_text(content)

            with pytest.raises(ConfigError, match="ca_certs: cannot read certificates"):
                ElasticsearchPool(url="https://h", ca_certs=str(path))

        pool = ElasticsearchPool(url="https://h", ca_certs=certifi_file())
        await pool._make().close()


def certifi_file() -> str:
    """Find certificates that the client can read; it brings certifi."""
    return str(importlib.import_module("certifi").where())


async def test_manager(cluster: Cluster) -> None:
    """A manager holds named pools; the original's name is the same object."""
    assert es_manager is es_pool_manager
    manager = ElasticsearchPoolManager()
    manager.register({"default": {"hosts": [cluster.url]}})
    await manager

    async with manager.get_client("default") as es:
        assert isinstance(es, AsyncElasticsearch)

    assert await manager.check_health()
    assert manager.pool_status()["version"] == "9.1.0"
    await manager.close()


PEM = str(Path(__file__).with_name("localhost.pem"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"verify": False, "ca_certs": PEM}, "exclude each other"),
        ({"url": "http://h:9200", "ca_certs": PEM}, "needs https"),
        ({"user": "u"}, "user needs"),
        ({"password": "p"}, "password needs"),
        ({"user": "", "password": "p"}, "without a colon"),
        ({"user": "u:v", "password": "p"}, "without a colon"),
        ({"api_key": ""}, "must not be empty"),
        ({"api_key": "k", "user": "u", "password": "p"}, "exclude each other"),
        ({"url": "https://u:p@h:9200", "api_key": "k"}, "so has another option"),
        ({"url": "https://u:p@h:9200", "user": "v", "password": "q"}, "so has another option"),
        ({"url": "https://u@h:9200"}, "a user and a password, or neither"),
        ({"url": "https://:p@h:9200"}, "a user and a password, or neither"),
        ({"url": "https://h:9200/?verify_certs=false"}, "must not have"),
        ({"url": "https://h:9200/#x"}, "must not have"),
        ({"url": "https://h:0"}, "is not like"),
        ({"url": ["https://h:9200", "https://h:9200"]}, "names a node twice"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], match: str) -> None:
    """The client would drop one of them in silence, such as the protection: they are refused."""
    with pytest.raises(ConfigError, match=match):
        ElasticsearchPool(**{"url": "https://h:9200", **options})
