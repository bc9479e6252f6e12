"""A service that commands are tested against, and the terminal that they are typed at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.all._service import service
from tools.servers import RedisServer
from ws_web.conf import settings


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a service with a task, a lock, a pool, and routes that answer well, badly and slowly."""
    with RedisServer() as redis, service(tmp_path_factory.mktemp("service"), redis.url) as started:
        yield started


@pytest.fixture
def wide_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a directory without a project, at a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    settings.use(None)
