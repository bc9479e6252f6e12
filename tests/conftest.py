"""What all tests share: the servers, and the flag for long runs."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.servers import (
    any_redis,
    any_redis_url,
    cluster_servers,
    cluster_url,
    mariadb_server,
    mongo_server,
    mongo_url,
    mysql_url,
    postgres_server,
    postgres_url,
    redis_server,
    redis_url,
    sentinel_servers,
    sentinel_url,
    start_server,
    valkey_server,
    valkey_url,
)

__all__ = (
    "any_redis",
    "any_redis_url",
    "cluster_servers",
    "cluster_url",
    "mariadb_server",
    "mongo_server",
    "mongo_url",
    "mysql_url",
    "postgres_server",
    "postgres_url",
    "redis_server",
    "redis_url",
    "sentinel_servers",
    "sentinel_url",
    "start_server",
    "valkey_server",
    "valkey_url",
)

# The same examples each time, however long one takes: a busy machine is no failure. For new examples, which
# may find something: --hypothesis-profile=default.
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that runs the long tests too."""
    parser.addoption("--soak", action="store_true", help="run the long tests marked soak too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the long tests unless they are asked for."""
    if config.getoption("--soak"):
        return

    skip = pytest.mark.skip(reason="a long run: only with --soak")

    for item in items:
        if "soak" in item.keywords:
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Keep what the imports made out of the collections at each module's end: there are hundreds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether long runs were asked for, for tests that only choose a larger count then."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(autouse=True, scope="module")
def _garbage_belongs_to_its_module() -> Iterator[None]:
    """Collect what a module's tests forgot to close, so that no later test is blamed for it."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _no_thread_outlives_its_test() -> Iterator[None]:
    """Fail a test that leaves a thread behind: it would disturb a later one, which nobody could explain."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 30.0  # a pool of threads needs a moment to end on a busy machine

    # The one thread that starts servers lives as long as the process does: see tools.servers. Those of
    # ws_redislock.sync serve all locks of the process, and end when they have been idle for a while, as
    # trio's do after ten seconds (at work, they bear the names of their functions).
    lasting = ("ws-servers", "ws_redislock", "Trio thread ")

    while left := [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.name.startswith(lasting)
    ]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads outlive their test: {left}")

        left[0].join(0.1)
