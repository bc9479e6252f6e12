"""The pytest plugin: fixtures and markers, each of which does nothing until a test asks for it.

pytest imports this module in every run on a machine that has ws-all, so it imports nothing but pytest; what
a fixture needs is imported by the fixture.
"""

from __future__ import annotations

import functools
import inspect
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from wintersweet.testing import Service
    from ws_core.testing import no_leaks
    from ws_web import Settings

__all__ = ("ServiceFixture", "SettingsFixture")

_LEAKS = "ws_no_leaks"
_ROLLED_BACK = "ws_rolled_back"
_BLOCK: pytest.StashKey[no_leaks] = pytest.StashKey()
"""What was there when the test began, kept until its fixtures have ended."""


class SettingsFixture(Protocol):
    """The type of the fixture ``ws_settings``."""

    def __call__(self, **changes: Any) -> Settings:  # Any: validated like arguments
        """Change settings until the test ends, and return all."""
        ...


class ServiceFixture(Protocol):
    """The type of the fixture ``ws_service``."""

    def __call__(self, target: str, *, workers: int = 1, **options: Any) -> Service:  # Any: of `Service`
        """Start an application in processes of its own; it is stopped when the test ends."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch of the leak checks."""
    parser.getgroup("wintersweet").addoption(
        "--ws-no-leaks", action="store_true", help="fail tests that leave something behind"
    )
    parser.addini(_LEAKS, "fail tests that leave something behind", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line(
        "markers", f"{_LEAKS}(check=True): fail this test when it leaves tasks, connections, files behind"
    )
    config.addinivalue_line(
        "markers", f"{_ROLLED_BACK}(name='default'): undo what this test does in a pool of sql_pool_manager"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Put the wanted blocks around the test."""
    if not isinstance(item, pytest.Function):
        return

    rolled_back = item.get_closest_marker(_ROLLED_BACK)

    if rolled_back is not None:
        item.obj = _rolled_back(item.obj, *rolled_back.args, **rolled_back.kwargs)

    marker = item.get_closest_marker(_LEAKS)
    always = item.config.getoption("--ws-no-leaks") or item.config.getini(_LEAKS)

    if always if marker is None else _wants(*marker.args, **marker.kwargs):
        item.obj = _without_leaks(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Look for what neither the test nor its fixtures have put away."""
    yield

    if (block := item.stash.get(_BLOCK, None)) is not None:
        block.__exit__(None, None, None)


@pytest.fixture(scope="session")
def _ws_redis_server() -> Iterator[str]:
    """Yield the URL of a private Valkey server, of this process: with pytest-xdist each worker has one."""
    from ws_pool.testing import embedded_redis

    with embedded_redis() as url:
        yield url


@pytest.fixture
def ws_redis_url(_ws_redis_server: str) -> str:
    """Return the URL of a private Valkey server, emptied."""
    # By hand: a client would have a connection pool and an event loop, only to send one word.
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(_ws_redis_server.removeprefix("unix://"))
        connection.sendall(b"FLUSHALL\r\n")
        connection.recv(16)

    return _ws_redis_server


@pytest.fixture
def ws_sqlite_url(tmp_path: Path) -> str:
    """Return the URL of an SQLite database of this test's own, not made yet."""
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def ws_settings() -> Iterator[SettingsFixture]:
    """Yield a function that changes settings until the test ends."""
    from ws_web import settings

    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(settings.override(**changes))


@pytest.fixture
def ws_service() -> Iterator[ServiceFixture]:
    """Yield a function that serves an application in processes of its own, until the test ends."""
    from wintersweet.testing import Service

    with ExitStack() as stack:
        yield lambda target, **options: stack.enter_context(Service(target, **options))


def _wants(check: bool = True) -> bool:  # noqa: FBT001, FBT002 - the argument of a marker
    return check


def _without_leaks(item: pytest.Function) -> Callable[..., Any]:
    """Return the test, checked; what fixtures may still put away is looked for when they have ended."""
    from ws_core.testing import no_leaks

    test: Callable[..., Any] = item.obj
    at_once = no_leaks(look_for={"tasks", "connections", "warnings"})
    later = no_leaks(look_for={"threads", "processes", "files", "pools", "environment"})

    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def checked(*arguments: Any, **values: Any) -> None:
            later.__enter__()

            async with at_once:
                await test(*arguments, **values)

            item.stash[_BLOCK] = later

        return checked

    @functools.wraps(test)
    def checked_at_once(*arguments: Any, **values: Any) -> None:
        later.__enter__()

        with at_once:
            test(*arguments, **values)

        item.stash[_BLOCK] = later

    return checked_at_once


def _rolled_back(test: Callable[..., Any], name: str = "default") -> Callable[..., Any]:
    """Return the test in a transaction that is rolled back."""
    from ws_pool.testing import rolled_back

    if not inspect.iscoroutinefunction(test):
        message = f"{_ROLLED_BACK} is for asynchronous tests: {test.__qualname__} is not one"
        raise pytest.UsageError(message)

    @functools.wraps(test)
    async def undone(*arguments: Any, **values: Any) -> Any:
        async with rolled_back(name):
            return await test(*arguments, **values)

    return undone
