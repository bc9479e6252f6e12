"""Named pools."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, update

from tests.pool.sql._accounts import ACCOUNT, METADATA
from ws_pool import SqlPoolManager
from ws_pool.errors import ConfigError, WsError


async def test_a_manager_runs_named_pools(tmp_path: Path):
    """All shortcuts take the pool's name; a closed manager can be started again."""
    manager = SqlPoolManager()
    manager.register({"default": {"path": str(tmp_path / "m.db")}, "memory": "sqlite:///:memory:"})

    for _ in range(2):
        async with manager:
            async with manager.get_client("memory", read_only=False) as client:
                await client.create_all(METADATA)

            name = {"pool_name": "memory"}
            assert await manager.insert(ACCOUNT, owner="a", balance=1, **name) == 1
            assert await manager.insert_many(ACCOUNT, [{"owner": "b", "balance": 2}], **name) == 1
            assert await manager.update(update(ACCOUNT), balance=3, **name) == 2
            assert await manager.count(ACCOUNT, **name) == 2
            assert len(await manager.select(select(ACCOUNT), **name)) == 2
            assert (await manager.find(select(ACCOUNT), **name)).owner == "a"
            assert (await manager.execute(select(ACCOUNT), **name)).rowcount == 2
            assert await manager.delete(ACCOUNT.delete(), **name) == 2
            assert await manager.check_health()

    with pytest.raises(ConfigError):
        manager.register({"default": {"url": "sqlite://host/x"}})

    with pytest.raises(WsError):
        await manager.select("SELECT 1")
