"""The generic pool in virtual time: errors and warnings of misuse."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.pool.core.fakes import FakeConnector, make_pool
from ws_core.testing import run_virtual
from ws_pool.errors import ClosedError, NotReadyError, UsageError


@contextmanager
def unraised() -> Iterator[list[Any]]:
    """Collect errors that could not be raised because the collector was at work."""
    usual, reported = sys.unraisablehook, list[Any]()
    sys.unraisablehook = reported.append

    try:
        yield reported
    finally:
        sys.unraisablehook = usual


class TestMisuse:
    """Errors and warnings of misuse."""

    def test_a_lease_is_dead_after_its_release(self):
        """The handle of a released connection says so, and cannot be released twice."""

        async def scenario() -> None:
            async with make_pool() as pool, make_pool(name="other") as other:
                lease = await pool.acquire()

                with pytest.raises(UsageError, match="not the pool's own"):
                    other.release(lease)

                pool.release(lease)

                with pytest.raises(UsageError, match="was released"):
                    _ = lease.connection

                with pytest.raises(UsageError, match="released before"):
                    pool.release(lease)

                assert "released" in repr(lease)

        run_virtual(scenario())

    def test_a_pool_that_is_not_open_says_why(self):
        """Before the start and after the close each use is an error that says so."""

        async def scenario() -> None:
            pool = make_pool(name="p")

            with pytest.raises(NotReadyError, match="'p' is not started"):
                await pool.acquire()

            assert not (await pool.health()).ok
            await pool.start()

            with pytest.raises(UsageError, match="started before"):
                await pool.start()

            await pool.close()

            with pytest.raises(ClosedError, match="'p' is closed"):
                await pool.acquire()

            await pool.close()
            never = make_pool()
            await never.close()

        run_virtual(scenario())

    def test_another_loop_is_refused(self):
        """A pool used from another event loop raises an error instead of hanging."""
        pool = make_pool(clock=None)
        home = asyncio.new_event_loop()
        home.run_until_complete(pool.start())

        with pytest.raises(UsageError, match="another event loop"):
            asyncio.run(pool.acquire())

        with pytest.raises(UsageError, match="another event loop"):
            asyncio.run(pool.close())

        home.run_until_complete(pool.close())
        home.close()

    def test_a_pool_can_be_closed_after_its_loop(self):
        """A pool whose loop is gone closes its connections at once."""
        connector = FakeConnector()
        connector.delay = lambda: 0.0
        pool = make_pool(connector, clock=None)
        home = asyncio.new_event_loop()
        home.run_until_complete(pool.start())
        home.close()
        asyncio.run(pool.close())
        assert connector.live == []

    def test_a_forked_child_is_refused(self):
        """In a child process the parent's connections are not used."""

        async def scenario() -> int:
            pool = make_pool(clock=None)
            await pool.start()
            child = os.fork()

            if child == 0:
                code = 1

                try:
                    await pool.acquire()
                except UsageError as error:
                    code = 0 if "forked" in str(error) else 2
                finally:
                    os._exit(code)

            _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - the child ends at once
            await pool.close()
            return os.waitstatus_to_exitcode(status)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside other threads
            assert asyncio.run(scenario()) == 0

    def test_impossible_sizes_are_refused(self):
        """A pool whose bounds don't fit together cannot be made."""
        impossible: list[dict[str, Any]] = [
            {"min_size": 3, "max_size": 2},
            {"max_size": 0},
            {"min_size": -1},
            {"max_connecting": 0},
        ]

        for wrong in impossible:
            with pytest.raises(UsageError, match="0 <= min_size <= max_size"):
                make_pool(**wrong)

    def test_a_dropped_lease_is_warned_about_and_its_connection_replaced(self):
        """A lease that is garbage raises a ResourceWarning with the place, and the pool heals."""

        async def scenario() -> None:
            async with make_pool(max_size=1, leak_threshold=100.0) as pool:
                lease: Any = await pool.acquire()

                with pytest.warns(ResourceWarning, match="(?s)without being released.*scenario"):
                    lease = None

                async with pool.lease(timeout=1.0):
                    assert lease is None

        run_virtual(scenario())

    def test_a_dropped_lease_comes_back_where_warnings_are_errors(self):
        """With -W error the warning cannot be raised out of the collector; the pool heals all the same."""

        async def scenario() -> None:
            async with make_pool(max_size=1) as pool:
                lease: Any = await pool.acquire()

                with unraised() as reported:
                    lease = None

                assert "without being released" in str(reported[0].exc_value)

                async with pool.lease(timeout=1.0):
                    assert lease is None

        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            run_virtual(scenario())

    def test_a_forgotten_pool_is_warned_about(self):
        """A pool that is garbage while open raises a ResourceWarning."""

        async def scenario() -> None:
            pool = make_pool(clock=None)
            await pool.start()
            maintainer = pool._maintainer

            with pytest.warns(ResourceWarning, match="was not closed"):
                pool.__del__()

            await pool.close()
            assert maintainer.lifecycle.name == "CLOSED"

        asyncio.run(scenario())
