"""What happens at the edges of managers, options and blocks that are seldom reached."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from tests.pool.core.fakes import FakePool, make_pool
from ws_pool import SqlitePool
from ws_pool._components import _sql_extra
from ws_pool._redis.connection.endpoint import _keep_alive
from ws_pool._redis.pool import DedicatedContext
from ws_pool._sql.manager import SqlPoolManager
from ws_pool._sql.options import _row_type
from ws_pool.errors import ClosedError, ConfigError
from ws_pool.redis import RedisPool


@pytest.fixture
def manager(tmp_path: Path) -> SqlPoolManager:
    """Return a manager of one SQLite database, not started."""
    manager = SqlPoolManager()
    manager.register({"default": {"url": f"sqlite:///{tmp_path / 'x.db'}"}})
    return manager


class TestManagers:
    """Starts and closes that cross."""

    async def test_two_starts_at_once_are_one(self, manager: SqlPoolManager):
        """A caller that comes while the manager starts waits for the same start."""
        await asyncio.gather(manager.initialize(), manager.initialize())
        assert manager.ready
        await manager.close()

    async def test_a_close_waits_for_the_start(self, manager: SqlPoolManager):
        """A close during the start leaves nothing open."""
        starting = asyncio.create_task(manager.initialize())
        await asyncio.sleep(0)
        await manager.close()
        await starting
        assert not manager.ready

    async def test_a_start_that_is_cancelled(self, manager: SqlPoolManager):
        """The pools that were started are closed, and the next start works."""
        starting = asyncio.create_task(manager.initialize())
        await asyncio.sleep(0)
        assert manager._starting is not None
        manager._starting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await starting

        await manager.initialize()
        assert manager.ready
        await manager.close()

    async def test_a_pool_that_fails_to_close(self, manager: SqlPoolManager):
        """The others are closed all the same, and the error is raised."""
        await manager.initialize()
        pool = manager.get_pool()

        class Broken:
            async def close(self) -> None:
                raise OSError("stuck")

        manager._pools = {"broken": cast("Any", Broken()), "default": pool}

        with pytest.raises(OSError, match="stuck"):
            await manager.close()

        with pytest.raises(ClosedError):
            await pool.select("SELECT 1")


class TestOptions:
    """Values of types that no option has."""

    @pytest.mark.parametrize("value", [[], object(), True])
    def test_values_that_are_not_numbers(self, value: object):
        """The error names the option."""
        with pytest.raises(ConfigError, match="acquire_timeout"):
            SqlitePool(url="sqlite:///x.db", acquire_timeout=value)

    def test_no_cursor_class(self):
        """The original's None means the default rows."""
        assert _row_type(None, "DATABASES.default.cursorclass") is None

    @pytest.mark.parametrize(
        "section", [None, {}, {"default": {"url": "sqlite:///x.db"}}, {"a": "mysql://h/d"}]
    )
    def test_the_extra_for_databases(self, section: object):
        """Where all drivers are installed, the default one is named."""
        assert _sql_extra(section) == "ws-pool[mysql]"


class TestBlocks:
    """Blocks and leases that were never entered, or have ended."""

    async def test_a_lease_block_that_was_not_entered(self):
        """Leaving it releases nothing."""
        pool: FakePool = make_pool()
        await pool.start()
        leased = pool.statistics().leased
        await pool.lease().__aexit__(None, None, None)
        assert pool.statistics().leased == leased
        await pool.close()

    async def test_a_redis_block_that_was_not_entered(self):
        """Leaving it releases nothing."""
        block = RedisPool(url="redis://localhost:1/0").get_client(alone=True)
        assert isinstance(block, DedicatedContext)
        await block.__aexit__(None, None, None)
        assert block._lease is None

    def test_a_transport_without_a_socket(self):
        """There is nothing to keep alive."""
        _keep_alive(None)
