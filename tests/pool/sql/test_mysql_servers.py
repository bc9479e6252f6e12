"""Servers with settings of their own: TLS or none, and packets of every size."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.servers import StartServer
from tools.servers import MariaDBServer
from ws_pool import MysqlPool
from ws_pool.errors import UnavailableError

CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"
MEGABYTES_16 = 0xFFFFFF


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
class TestTls:
    """The option ssl."""

    async def test_a_server_without_tls_is_refused(self, driver: str, start_server: StartServer):
        """A server that offers no TLS gets neither user nor password when TLS was asked for."""
        server = start_server(MariaDBServer, config={"skip-ssl": ""})
        url = server.url.replace("mysql://", f"mysql+{driver}://", 1)

        async with MysqlPool(url) as pool:
            assert await pool.find("SHOW STATUS LIKE 'Ssl_cipher'") == ("Ssl_cipher", "")

        with pytest.raises(UnavailableError, match="cannot connect"):
            async with MysqlPool(url, ssl=ssl.create_default_context(cafile=CERTIFICATE)):
                pytest.fail("it went on without TLS")

    async def test_a_server_with_tls_is_used_over_it(self, driver: str, start_server: StartServer):
        """The connection is encrypted, and the certificate and its name are checked."""
        config = {"ssl-cert": str(CERTIFICATE), "ssl-key": str(CERTIFICATE)}
        server = start_server(MariaDBServer, config=config)
        url = server.url.replace("mysql://", f"mysql+{driver}://", 1)
        trusted = url.replace(f"@{server.host}:", "@localhost:", 1)

        async with MysqlPool(trusted, ssl={"ca": str(CERTIFICATE)}) as pool:
            assert (await pool.find("SHOW STATUS LIKE 'Ssl_cipher'"))[1] != ""

        with pytest.raises(UnavailableError, match="cannot connect"):
            await MysqlPool(trusted, ssl=True).start()


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
async def test_statements_around_the_packet_size_go_through(driver: str, start_server: StartServer):
    """At 16 MB and above a statement takes several packets; the connection stays sound."""
    server = start_server(MariaDBServer, config={"max-allowed-packet": "64M"})

    async with MysqlPool(server.url.replace("mysql://", f"mysql+{driver}://", 1), max_size=1) as pool:
        overhead = len("SELECT LENGTH('') AS n") + 1

        for size in (
            MEGABYTES_16 - 1,
            MEGABYTES_16,
            MEGABYTES_16 + 1,
            2 * MEGABYTES_16,
            2 * MEGABYTES_16 + 5,
        ):
            text = "x" * (size - overhead)
            assert (await pool.find(f"SELECT LENGTH('{text}') AS n")).n == len(text)

        assert pool.statistics().opened == 1
