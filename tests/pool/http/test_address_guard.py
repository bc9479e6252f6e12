"""Addresses that a request for a stranger's URL may not reach."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from tests.pool.http._server import Site
from ws_pool._http.address_guard import DeniedAddress, is_public
from ws_pool._http.errors import _denied
from ws_pool.errors import ConfigError, HttpAddressDenied, HttpConnectionError, UsageError
from ws_pool.http import HttpPool

INSIDE = "127.0.0.1"  # where the test's server is
PUBLIC = "127.0.0.2"


class Rebinding(AbstractResolver):
    """A resolver whose answer changes after the first look-up, as that of a server which attacks."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.lookups = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        """Return the present answer."""
        self.lookups += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=found, port=port, family=socket.AF_INET, proto=0, flags=0)
            for found in answer
        ]

    async def close(self) -> None:
        """Close nothing."""


def use(pool: HttpPool, resolver: Rebinding) -> None:
    """Let a pool look names up here, each time anew."""
    connector: Any = pool._connector
    connector._resolver = resolver
    connector._use_dns_cache = False


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

    async def test_a_name_whose_address_changes(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """The address that is checked is the one that is connected to, whatever the next look-up says."""
        port = URL(site.url).port
        resolver = Rebinding([PUBLIC], [INSIDE])
        url = f"http://rebind.example:{port}/echo"
        monkeypatch.setattr("ws_pool._http.address_guard.is_public", lambda address: address != INSIDE)

        # What a guard does that looks the name up by itself, and then makes the request: it gets inside.
        assert [host["host"] for host in await resolver.resolve("rebind.example")] == [PUBLIC]

        async with HttpPool(retries=0) as pool:
            use(pool, resolver)
            assert (await pool.client.get(url)).ok
            assert len(site.hits) == 1

        resolver = Rebinding([PUBLIC], [INSIDE])

        async with HttpPool(deny_private=True, retries=5, retry_wait=0) as pool:
            use(pool, resolver)

            with pytest.raises(HttpConnectionError):  # nobody listens at the public address
                await pool.client.get(url, retries=0)

            with pytest.raises(HttpAddressDenied):
                await pool.client.get(url)

            with pytest.raises(HttpAddressDenied):
                async with pool.client.websocket(url):
                    pass

        assert len(site.hits) == 1
        assert resolver.lookups >= 3

    async def test_a_name_with_two_addresses(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the public address does not answer, the private one beside it is not tried."""
        monkeypatch.setattr("ws_pool._http.address_guard.is_public", lambda address: address != INSIDE)
        port = URL(site.url).port

        for answer in ([PUBLIC, INSIDE], [INSIDE, PUBLIC], [INSIDE]):
            async with HttpPool(deny_private=True, retries=0) as pool:
                use(pool, Rebinding(answer))

                with pytest.raises((HttpConnectionError, HttpAddressDenied)):
                    await pool.client.get(f"http://rebind.example:{port}/echo")

        assert site.hits == []

    @pytest.mark.parametrize(
        "host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:127.0.0.1]", "127.0.0.1."]
    )
    async def test_disguises(self, site: Site, host: str) -> None:
        """Other spellings of an address inside lead nowhere."""
        async with HttpPool(deny_private=True, retries=0) as pool:
            with pytest.raises((HttpConnectionError, HttpAddressDenied, UsageError)):
                await pool.client.get(f"http://{host}:{URL(site.url).port}/echo")

        assert site.hits == []

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


@pytest.mark.parametrize(
    "address",
    [
        "fec0::1",
        "64:ff9b:1::a00:1",
        "64:ff9b::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "2001:470:1f0b::5efe:10.0.0.1",
        "2001:470:1f0b:0:200:5efe:10.0.0.1",
        "fe80::5efe:8.8.8.8",
        "3fff::1",
        "5f00::1",
        "192.0.0.8",
        "192.88.99.1",
    ],
)
def test_more_addresses_that_are_not_public(address: str) -> None:
    """Disguises of IPv4 and blocks that older versions of Python take for global."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["64:ff9b::8.8.8.8", "2001:470:1f0b::5efe:8.8.8.8", "2606:4700::1111"])
def test_more_public_addresses(address: str) -> None:
    """A disguise alone does not make an address private."""
    assert is_public(address)
