"""Addresses that a request for a stranger's URL may not reach."""

from __future__ import annotations

import pytest
from aiohttp import web

from tests.pool.http._server import Site
from ws_pool._http.address_guard import DeniedAddress, is_public
from ws_pool._http.errors import _denied
from ws_pool.errors import ConfigError, HttpAddressDenied
from ws_pool.http import HttpPool


class TestGuard:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_private_addresses(self, site: Site, host: str) -> None:
        """Neither an address nor a name leads inside, and nothing is sent there."""
        async with HttpPool(deny_private=True, retry_wait=0) as pool:
            with pytest.raises(HttpAddressDenied, match="is not a public address"):
                await pool.client.get(f"{site.url.replace('127.0.0.1', host)}/echo")

            assert pool.statistics().retries == 0

        assert site.hits == []

    async def test_redirects(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """A public server that redirects inside is not followed."""
        other = site.url.replace("127.0.0.1", "127.0.0.2")
        site.script = [lambda: web.Response(status=302, headers={"location": f"{other}/echo"})]
        monkeypatch.setattr("ws_pool._http.address_guard.is_public", lambda address: address == "127.0.0.1")

        async with HttpPool(deny_private=True) as pool:
            with pytest.raises(HttpAddressDenied, match=r"127\.0\.0\.2 is not"):
                await pool.client.get(f"{site.url}/scripted")

        assert site.hits == ["GET"]

    async def test_a_proxy_of_the_environment(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy variable does not lead around the guard: it is not used, and cannot be asked for."""
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, site.url)

        async with HttpPool(deny_private=True, retries=0) as pool:
            with pytest.raises(HttpAddressDenied):
                await pool.client.get("http://169.254.169.254/latest/meta-data")

        assert site.hits == []

        with pytest.raises(ConfigError, match="trust_env"):
            HttpPool(deny_private=True, trust_env=True)

    @pytest.mark.parametrize(
        ("address", "public"),
        [
            ("93.184.215.14", True),
            ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
            ("10.1.2.3", False),
            ("172.16.0.1", False),
            ("192.168.0.1", False),
            ("169.254.169.254", False),
            ("100.64.0.1", False),
            ("0.0.0.0", False),
            ("224.0.0.1", False),
            ("255.255.255.255", False),
            ("::1", False),
            ("fe80::1%eth0", False),
            ("fd00::1", False),
            ("ff02::1", False),
            ("::ffff:169.254.169.254", False),
            ("64:ff9b::a9fe:a9fe", False),
            ("::10.0.0.1", False),
            ("64:ff9b::5db8:d70e", True),
            ("2002:a00:1::", False),
        ],
    )
    def test_addresses(self, address: str, *, public: bool) -> None:
        """Addresses inside are known as such, also in the ways that IPv6 wraps them."""
        assert is_public(address) is public

    def test_a_group_of_refusals(self) -> None:
        """The refusal is found in whatever the connector makes of several addresses."""
        denied = DeniedAddress("10.0.0.1 is not a public address")
        assert _denied(BaseExceptionGroup("all", [OSError("x"), denied])) is denied
        assert _denied(OSError("Multiple exceptions: 10.0.0.1 is not a public address")) is not None
        assert _denied(BaseExceptionGroup("all", [OSError("x")])) is None
