"""Hosts that fail again and again are left alone for a while."""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from tests.pool.http._server import Site
from ws_pool.errors import HttpCircuitOpen, HttpConnectionError, HttpError, HttpStatusError, UnavailableError
from ws_pool.http import HttpPool


class TestBreaker:
    async def test_opens_and_closes(self, site: Site, caplog: pytest.LogCaptureFixture) -> None:
        """After some failures in a row nothing is sent; later one request tries, and its outcome decides."""
        now = 0.0

        async with HttpPool(base_url=site.url, retries=0, breaker_failures=2, breaker_reset=10) as pool:
            pool._breakers.clock = lambda: now
            http = pool.client

            for _ in range(2):
                with pytest.raises(HttpStatusError):
                    await http.get("/status/503")

            with pytest.raises(HttpCircuitOpen, match=r"next try in 10\.0 s") as caught:
                await http.get("/echo")

            assert isinstance(caught.value, UnavailableError)
            assert site.hits == ["/status/503"] * 2
            assert "is left alone" in caplog.text
            now = 10.0

            with pytest.raises(HttpStatusError):
                await http.get("/status/502")

            with pytest.raises(HttpCircuitOpen):
                await http.get("/echo")

            now = 20.0
            assert (await http.get("/echo")).ok
            assert (await http.get("/echo")).ok

    async def test_each_host_has_its_own(self, site: Site, unused_tcp_port: int) -> None:
        """A host that is down does not keep others from being asked; lost connections count."""
        async with HttpPool(retries=0, breaker_failures=1) as pool:
            dead = f"http://me:secret@127.0.0.1:{unused_tcp_port}/"

            with pytest.raises(HttpConnectionError):
                await pool.client.get(dead)

            with pytest.raises(HttpCircuitOpen) as caught:
                await pool.client.get(dead)

            assert "secret" not in str(caught.value)
            assert (await pool.client.get(f"{site.url}/echo")).ok

    async def test_one_probe_at_a_time(self, site: Site) -> None:
        """While one request tries, the others are refused; a cancelled one has learned nothing."""
        now = 0.0

        async with HttpPool(base_url=site.url, retries=0, breaker_failures=1, breaker_reset=10) as pool:
            pool._breakers.clock = lambda: now
            http = pool.client

            with pytest.raises(HttpStatusError):
                await http.get("/status/504")

            now = 10.0
            probe = asyncio.create_task(http.get("/slow"))
            await site.reached.wait()

            with pytest.raises(HttpCircuitOpen, match=r"next try in 0\.0 s"):
                await http.get("/echo")

            probe.cancel()

            with pytest.raises(asyncio.CancelledError):
                await probe

            with pytest.raises(HttpError, match="redirects"):
                await http.get("/loop")

            assert (await http.get("/status/404", raise_for_status=False)).status_code == 404
            assert (await http.get("/echo")).ok

    async def test_an_outcome_from_an_earlier_state(self, site: Site) -> None:
        """A request that was sent before the breaker opened neither closes it nor ends another's probe."""
        now = 0.0

        async with HttpPool(base_url=site.url, retries=0, breaker_failures=1, breaker_reset=10) as pool:
            pool._breakers.clock = lambda: now
            http = pool.client
            early, cancelled = (asyncio.create_task(http.get("/slow")) for _ in range(2))
            await site.reached.wait()

            while len(site.hits) < 2:
                await asyncio.sleep(0)

            with pytest.raises(HttpStatusError):
                await http.get("/status/503")

            site.gate.set()
            assert (await early).ok

            with pytest.raises(HttpCircuitOpen):
                await http.get("/echo")

            await cancelled

    async def test_a_cancelled_request_does_not_end_the_probe_of_another(self, site: Site) -> None:
        """While the one probe is under way, nothing that began earlier lets a second one through."""
        now = 0.0

        async with HttpPool(base_url=site.url, retries=0, breaker_failures=1, breaker_reset=10) as pool:
            pool._breakers.clock = lambda: now
            http = pool.client
            early = asyncio.create_task(http.get("/slow"))
            await site.reached.wait()

            with pytest.raises(HttpStatusError):
                await http.get("/status/503")

            now = 10.0
            probe = asyncio.create_task(http.get("/slow"))

            while site.hits.count("slow") < 2:
                await asyncio.sleep(0)

            early.cancel()

            with pytest.raises(asyncio.CancelledError):
                await early

            with pytest.raises(HttpCircuitOpen):
                await http.get("/echo")

            site.gate.set()
            assert (await probe).ok
            assert (await http.get("/echo")).ok

    async def test_many_hosts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hosts without failures are forgotten when there are too many."""
        monkeypatch.setattr("ws_pool._http.circuit_breaker._MANY_HOSTS", 2)
        pool = HttpPool(breaker_failures=5)
        failing = pool._breakers.admit(URL("http://a/")).breaker
        failing.failed(0.0)
        pool._breakers.admit(URL("http://b/"))
        pool._breakers.admit(URL("http://c/"))
        assert list(pool._breakers) == ["a:80", "c:80"]
