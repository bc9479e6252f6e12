"""TLS, for shared and for dedicated connections."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tools.servers import RedisServer
from ws_pool.errors import UnavailableError
from ws_pool.redis import RedisPool

CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"
"""A certificate for localhost that signs itself, with its key."""


class TestTls:
    """TLS, for shared and for dedicated connections."""

    async def test_encrypted(self, redis_server: RedisServer) -> None:
        """Shared and dedicated connections and the cache work through TLS; the certificate is checked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection(redis_server.host, redis_server.port)

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    target.write(data)

                target.close()

            await asyncio.gather(
                copy(reader, inner_writer), copy(inner_reader, writer), return_exceptions=True
            )

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]

        async with server:
            url = f"rediss://localhost:{port}/0?ssl_ca_certs={CERTIFICATE}"

            async with RedisPool(url=url, cache=10) as pool:
                await pool.redis.set("k", "v")
                assert await pool.redis.get("k") == await pool.redis.get("k") == b"v"
                assert await pool.redis.blpop("empty", timeout=0.001) is None
                assert pool.url == f"rediss://localhost:{port}/0"

            with pytest.raises(UnavailableError, match="certificate"):
                await RedisPool(url=f"rediss://localhost:{port}").start()
