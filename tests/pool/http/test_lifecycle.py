"""The life of a pool: options, opening, use, closing, and what is refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pool.http._server import BIG, Site
from ws_core.component import Health
from ws_pool import http as shortcuts
from ws_pool.errors import ClosedError, ConfigError, NotReadyError, UsageError
from ws_pool.http import HttpClient, HttpPool, HttpPoolManager


class TestLife:
    async def test_misuse(self, site: Site) -> None:
        """Each wrong use is refused with what to do."""
        pool = HttpPool(base_url=site.url)
        assert repr(pool) == f"<HttpPool 'default' new: {site.url}>"

        with pytest.raises(NotReadyError, match="async with"):
            async with pool.get_client():
                pass

        assert await pool.health() == Health(ok=False, detail="http pool 'default' is not open")

        async with pool:
            client = pool.client
            assert repr(client) == f"<HttpClient of pool 'default': {site.url}>"

            with pytest.raises(UsageError, match="open already"):
                await pool.start()

            def elsewhere() -> None:
                asyncio.run(client.get("/echo"))

            with pytest.raises(UsageError, match="another event loop"):
                await asyncio.to_thread(elsewhere)

        with pytest.raises(ClosedError, match="make a new one"):
            await client.get("/echo")

        await pool.close()
        await pool.start()
        assert (await pool.client.get("/echo")).ok
        await pool.close()
        assert pool.statistics().idle == 0

    async def test_cancellation(self, http: HttpClient, pool: HttpPool, site: Site) -> None:
        """A cancelled request releases its connection and is counted."""
        task = asyncio.create_task(http.get("/slow"))

        await site.reached.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        assert pool.statistics().connections == 0
        assert (pool.statistics().active, pool.statistics().failures) == (0, 1)
        assert (await http.get("/echo")).ok

    async def test_health(self, site: Site) -> None:
        """Health asks for health_path and says what is wrong."""
        async with HttpPool(base_url=site.url) as pool:
            assert (await pool.health()).ok

        async with HttpPool(base_url=site.url, health_path="/echo") as pool:
            health = await pool.health()
            assert health.ok
            assert health.latency is not None

        async with HttpPool(base_url=site.url, health_path="/status/500") as pool:
            assert (await pool.health()).detail.endswith("500 Internal Server Error")

    async def test_manager(self, site: Site) -> None:
        """A manager holds named pools."""
        manager = HttpPoolManager()
        manager.register({"default": {"base_url": site.url}, "any": {}})
        await manager

        async with manager.get_client() as http:
            assert (await http.get("/echo")).ok

        assert (await manager.request("GET", "/echo")).ok
        assert manager.pool_status("default")["requests"] == 2
        assert await manager.check_health()
        await manager.close()

    async def test_shortcuts(self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The module's functions use the default pool of the ready-made manager."""
        manager = HttpPoolManager()  # a manager stays registered, and others test that none is
        monkeypatch.setattr(shortcuts, "http_pool_manager", manager)
        manager.register({"default": {"base_url": site.url}})
        await manager.initialize()

        try:
            for name in ("get", "post", "put", "patch", "delete", "options"):
                assert (await getattr(shortcuts, name)("/echo")).json()["method"] == name.upper()

            assert (await shortcuts.head("/echo")).ok
            assert (await shortcuts.request("GET", "/echo")).ok
            assert (await shortcuts.download("/big", tmp_path / "b")).read_bytes() == BIG

            async with shortcuts.request_stream("GET", "/big") as stream:
                assert await stream.read() == BIG
        finally:
            await manager.close()


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ({"base_url": "shop"}, "HttpPool.base_url: 'shop' is not like"),
            ({"base_url": "ftp://x"}, "is not like"),
            ({"base_url": "http://x:99999"}, "is not like"),
            ({"base_url": "http://x/?q"}, "is not like"),
            ({"base_url": "http://u:secret@"}, "is not like"),
            ({"timeout": 0}, "HttpPool.timeout"),
            ({"limit": -1}, "HttpPool.limit"),
            ({"retries": "many"}, "HttpPool.retries"),
            ({"headers": "x"}, "HttpPool.headers must map"),
            ({"headers": {"a": 1}}, "HttpPool.headers.a"),
            ({"headers": {"a": "b\r\nc: d"}}, "control characters"),
            ({"verify": "/no/such/file"}, "cannot read certificates"),
            ({"deny_private": True, "proxy": "http://p"}, "cannot see behind"),
            ({"retry_statuses": [200]}, "statuses from 400 to 599"),
            ({"retry_statuses": "429"}, "statuses from 400 to 599"),
            ({"deny_private": True, "trust_env": True}, "cannot see behind"),
            ({"context_headers": {}}, "HttpPool.context_headers must be a function"),
            ({"headers": {"Content-Length": "5"}}, "each request's body decides that"),
            ({"verify": "\ud800"}, "cannot read certificates"),
            ({"retry_if": 5}, "HttpPool.retry_if"),
            ({"on_request": "sign"}, "HttpPool.on_request"),
            ({"auth": "ann:secret", "base_url": "http://x"}, "HttpPool.auth must be a pair"),
            ({"auth": ("ann", "secret")}, "HttpPool.auth needs HttpPool.base_url"),
            (
                {"auth": ("ann", "secret"), "base_url": "http://x", "headers": {"Authorization": "x"}},
                "HttpPool.auth and the header authorization exclude each other",
            ),
            ({"timeuot": 1}, "did you mean 'timeout'"),
            ({"unix_socket": "/s", "proxy": "http://p"}, "exclude each other"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], part: str) -> None:
        """A wrong option is named, without its secrets, before anything starts."""
        with pytest.raises(ConfigError) as caught:
            HttpPool(**options)

        assert part in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_good_options(self) -> None:
        """Strings from the environment are understood, and a context may be given."""
        context = ssl.create_default_context()
        make: Callable[..., HttpPool] = HttpPool
        assert make(verify=context)._options.verify is context
        assert make(verify="false", timeout="5", limit="7")._options.limit == 7
        assert make(timeout=None, base_url=None)._options.timeout is None
        assert make(proxy="http://proxy:3128")._options.proxy == "http://proxy:3128"
