"""ws-web with the pools, limiters, event buses and logging of its siblings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket

from tests.servers import StartServer
from tools.servers import RedisServer
from ws_core import catch_error
from ws_logging import logger
from ws_pool.events import RedisEventBus
from ws_pool.redis import RedisPool
from ws_redislock import FrequencyLimiter, TokenBucketLimiter
from ws_tasks import LocalEngine, task
from ws_web import (
    MessageHandler,
    Settings,
    WsChatConnectionManager,
    create_app,
    get_request_id,
)
from ws_web.dependencies import Limiter, client, rate_limit
from ws_web.testing import AppClient


class TestComponents:
    """`create_app` starts what the settings name."""

    async def test_redis_and_sql(self, any_redis_url: str, mysql_url: str) -> None:
        """Both pools are started, serve routes, are seen by the health check, and closed in the end."""
        settings = Settings(
            DATABASES={"default": {"url": mysql_url}}, REDIS_CONFIG={"default": {"url": any_redis_url}}
        )
        app = create_app(settings)

        # Any: clients of drivers
        @app.get("/visits")
        async def visits(
            redis: Annotated[Any, Depends(client("REDIS_CONFIG"))],
            sql: Annotated[Any, Depends(client("DATABASES"))],
        ) -> list[int]:
            rows = await sql.select("SELECT 40 + 2 AS answer")
            return [await redis.incr("visits"), rows[0]["answer"]]

        async with AppClient(app) as web:
            assert (await web.get("/visits")).data() == [1, 42]
            assert (await web.get("/readyz")).status_code == 200
            assert list(app.state.components) == ["DATABASES", "REDIS_CONFIG"]
            health = [await component.health() for component in app.state.components.values()]
            assert all(one.ok for one in health)

    async def test_rows_are_sent_as_objects(self, mysql_url: str) -> None:
        """A result keeps the names of its columns, whether the route is typed or not."""
        app = create_app(Settings(DATABASES={"default": {"url": mysql_url}}))
        statement = "SELECT 1 AS id, 'ann' AS name"

        @app.get("/untyped")
        async def untyped(sql: Annotated[Any, Depends(client("DATABASES"))]):
            return await sql.select(statement)

        @app.get("/typed")
        async def typed(sql: Annotated[Any, Depends(client("DATABASES"))]) -> list[dict[str, Any]]:
            return await sql.select(statement)  # type: ignore[no-any-return]

        @app.get("/twice")
        async def twice(sql: Annotated[Any, Depends(client("DATABASES"))]) -> Any:
            return await sql.select("SELECT 1 AS id, 2 AS id")

        async with AppClient(app) as web:
            for path in ("/untyped", "/typed"):
                assert (await web.get(path)).data() == [{"id": 1, "name": "ann"}]

            assert (await web.get("/twice")).status_code == 500  # one of the two would be lost

    async def test_readiness_follows_the_server(self, start_server: StartServer) -> None:
        """With Redis gone the application lives and is not ready; it is ready again by itself."""
        server = start_server(RedisServer)
        app = create_app(Settings(REDIS_CONFIG={"default": {"url": server.url}}))

        async with AppClient(app) as web:
            component = app.state.components["REDIS_CONFIG"]
            assert (await component.health()).ok
            server.kill()
            assert not (await component.health()).ok
            assert (await web.get("/livez")).status_code == 200
            server.restart()

            async with asyncio.timeout(20):
                while not (await component.health()).ok:
                    await asyncio.sleep(0.05)


class TestRateLimit:
    """The dependency `rate_limit` with the limiters of ws-redislock."""

    @pytest.mark.parametrize("kind", ["frequency", "bucket"])
    async def test_shared_by_two_applications(self, any_redis_url: str, kind: str) -> None:
        """Two applications share one limit; what is refused says when to come again."""
        async with RedisPool(url=any_redis_url) as one, RedisPool(url=any_redis_url) as other:
            replies = []

            for number, pool in enumerate([one, other, one, other, one]):
                limiter: Limiter = (
                    FrequencyLimiter(pool, 60, 3)
                    if kind == "frequency"
                    else TokenBucketLimiter(pool, rate=0.01, burst=3)
                )
                app = create_app(Settings())

                @app.get("/buy", dependencies=[Depends(rate_limit(limiter))])
                async def buy(number: int = number) -> int:
                    return number

                async with AppClient(app) as web:
                    replies.append(await web.get("/buy"))

        assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
        assert replies[3].error()["code"] == 429
        assert int(replies[3].headers["retry-after"]) >= 1


class TestRooms:
    """Broadcast over the event bus of ws-pool."""

    async def test_messages_reach_the_sockets_of_every_process(self, any_redis_url: str) -> None:
        """A broadcast in one application reaches the sockets of another, in order."""
        async with (
            RedisPool(url=any_redis_url) as one,
            RedisPool(url=any_redis_url) as other,
            RedisEventBus(one, "chat") as bus,
            RedisEventBus(other, "chat") as far_bus,
            WsChatConnectionManager(bus=bus) as here,
            WsChatConnectionManager(bus=far_bus) as there,
            AppClient(_chat(here)) as here_web,
            AppClient(_chat(there)) as there_web,
            here_web.websocket("/ws/ann") as ann,
            there_web.websocket("/ws/bob") as bob,
        ):
            assert await ann.receive_text() == "hello ann"
            assert await bob.receive_text() == "hello bob"

            for number in range(20):
                await here.broadcast(f"message {number}")

            for socket in (ann, bob):
                seen = [await asyncio.wait_for(socket.receive_text(), 20) for _ in range(20)]
                assert seen == [f"message {number}" for number in range(20)]


class TestLogging:
    """ws-logging as a component of ws-web."""

    async def test_request_ids_and_caught_errors(self, tmp_path: Path) -> None:
        """Lines of a request carry its id; what `catch_error` caught is among them, with traceback."""
        section = {"file_path": str(tmp_path), "file_name": "app.log", "json": True}
        app = create_app(Settings(LOGGING_CONFIG=section))

        @app.get("/")
        async def root() -> str:
            with catch_error(message="the mail was not sent"):
                raise ConnectionResetError("by peer")

            logger.info("went on")
            return get_request_id() or ""

        async with AppClient(app) as web:
            reply = await web.get("/", headers={"x-request-id": "abc-123"})

        assert reply.data() == "abc-123"
        lines = (tmp_path / "app.log").read_text().splitlines()
        (caught,) = [line for line in lines if "the mail was not sent" in line]
        (later,) = [line for line in lines if "went on" in line]
        assert "ConnectionResetError: by peer" in caught
        assert all("abc-123" in line and json.loads(line) for line in (caught, later))


class TestJobs:
    """Jobs of ws-tasks in an application of ws-web."""

    async def test_a_job_has_the_id_of_its_request(self) -> None:
        """What a request enqueues is done under its id, in the log and in code."""

        @task("mail")
        def mail() -> str:
            return get_request_id()

        app = create_app(Settings())

        @app.get("/")
        async def root() -> str:
            return await (await mail.enqueue()).result(timeout=20)

        async with LocalEngine(), AppClient(app) as web:
            replies = [await web.get("/", headers={"x-request-id": f"id-{number}"}) for number in range(2)]

        assert [reply.data() for reply in replies] == ["id-0", "id-1"]


def _chat(manager: WsChatConnectionManager) -> FastAPI:
    class Greeter(MessageHandler):
        async def hello(self, key: str, ws: WebSocket, count: int) -> None:
            await manager.send_message(key, f"hello {key}")

    app = create_app(Settings())

    @app.websocket("/ws/{user}")
    async def chat(ws: WebSocket, user: str) -> None:
        await manager.append(user, ws, Greeter())
        await manager.handle_message(user)

    return app
