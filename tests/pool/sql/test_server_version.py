"""Asking a server for its version, and a server that goes away meanwhile."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from ws_core.testing import FaultProxy
from ws_pool.errors import UnavailableError
from ws_pool.mysql import MysqlPool


class TestLearning:
    async def test_a_server_that_goes_away(self, mysql_url: str) -> None:
        """The error is ours and names the pool; another one can be started when the server is back."""
        parts = urlsplit(mysql_url)
        assert parts.hostname is not None
        assert parts.port is not None

        async with FaultProxy(parts.hostname, parts.port, protocol="mysql") as proxy:
            url = f"mysql://root@{proxy.host}:{proxy.port}{parts.path}"

            class Unlucky(MysqlPool):
                """Loses its server when the version is about to be asked for."""

                async def _for_engine(self, source: Any, lease: Any) -> Any:
                    taken = await super()._for_engine(source, lease)
                    proxy.cut()
                    return taken

            with pytest.raises(
                UnavailableError, match=r"'orders' lost its server while it was starting: .*Lost"
            ):
                await Unlucky(url=url, name="orders").start()

            proxy.heal()

            async with MysqlPool(url=url, name="orders") as pool, pool.get_client() as sql:
                row = await sql.find("SELECT 1 AS one")
                assert row is not None
                assert row.one == 1
