"""`no_leaks`: each kind of thing that can be left behind is found, and what is not the block's is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from ws_core._leaks import _State
from ws_core.errors import NotReadyError, UsageError
from ws_core.metrics import Sample, register
from ws_core.testing import LeakError, no_leaks, run_virtual


@dataclass(eq=False)
class FakePool:
    """A pool with so many connections in use."""

    leased: int | tuple[object, ...] = 0
    ready: bool = True

    def __repr__(self) -> str:
        return "<pool>"

    def statistics(self) -> FakePool:
        """Return itself; a pool that is not started has no numbers."""
        if self.leased == -1:
            raise NotReadyError("not started")

        return self

    def samples(self) -> tuple[Sample, ...]:
        """Export nothing."""
        return ()


class TestBlock:
    """A block without a loop."""

    def test_nothing_left(self, tmp_path: Path) -> None:
        """What is closed, joined and put back does not count; output of the block arrives."""
        with no_leaks(settle=30):
            (tmp_path / "file").write_text("words")
            thread = threading.Thread(target=lambda: None)
            thread.start()
            process = subprocess.Popen([sys.executable, "-c", ""])
            process.wait()
            thread.join()

    def test_other_warnings_pass(self) -> None:
        """They are not the block's to swallow."""
        with pytest.warns(UserWarning, match="mind the gap"), no_leaks():
            warnings.warn("mind the gap", UserWarning, stacklevel=1)

    def test_a_failing_block(self) -> None:
        """Its own error is what is raised."""
        with pytest.raises(KeyError), no_leaks(settle=0):
            os.environ["WS_LEFT"] = "1"
            raise KeyError

        del os.environ["WS_LEFT"]

    def test_a_thread_that_ends_late(self) -> None:
        """It is waited for."""
        ending = threading.Event()

        with no_leaks(settle=60):
            threading.Thread(target=ending.wait).start()
            threading.Timer(0.1, ending.set).start()

    def test_a_thread_that_ends_between_two_looks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the first has seen and the second has not is not left."""
        ending = threading.Event()
        thread = threading.Thread(target=ending.wait)
        look = _State.now

        def look_and_end() -> _State:
            found = look()

            if thread.is_alive():
                ending.set()
                thread.join()

            return found

        monkeypatch.setattr(_State, "now", look_and_end)

        with no_leaks(settle=60):
            thread.start()

    def test_a_thread(self) -> None:
        """One that runs on is named."""
        ending = threading.Event()
        thread = threading.Thread(target=ending.wait, name="left over")

        try:
            with pytest.raises(LeakError, match="the thread left over"), no_leaks(settle=0.05):
                thread.start()
        finally:
            ending.set()
            thread.join()

    def test_a_process(self) -> None:
        """A child that runs on is named."""
        block = no_leaks(settle=0.05)
        block.__enter__()
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

        with pytest.raises(LeakError, match=r"the process \d+"):
            block.__exit__(None, None, None)

        process.communicate()

    def test_only_some_kinds(self) -> None:
        """The others are let be; an unknown one is refused."""
        with no_leaks(look_for={"tasks", "files"}, settle=0):
            os.environ["WS_LEFT"] = "1"

        del os.environ["WS_LEFT"]

        with pytest.raises(UsageError, match="not for memory"):
            no_leaks(look_for={"memory"})  # type: ignore[arg-type]

    def test_a_file_and_a_pipe(self, tmp_path: Path) -> None:
        """Descriptors that are kept open are named; a database is its pool's."""
        with contextlib.ExitStack() as stack:
            with (
                pytest.raises(LeakError, match=r"the open file .*kept; the open file pipe:|pipe:.*kept"),
                no_leaks(),
            ):
                stack.enter_context((tmp_path / "kept").open("w"))
                for end in os.pipe():
                    stack.callback(os.close, end)

            with no_leaks():
                (tmp_path / "shop.db").write_bytes(b"SQLite format 3\0")
                stack.enter_context((tmp_path / "shop.db").open("rb"))
                stack.enter_context((tmp_path / "shop.db-wal").open("w"))

    def test_a_forgotten_file(self, tmp_path: Path) -> None:
        """Python says so itself."""
        with pytest.raises(LeakError, match="unclosed file"), no_leaks():
            (tmp_path / "forgotten").open("w")

    def test_environment_and_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A changed variable, a new one and another directory are named."""
        monkeypatch.setenv("WS_OLD", "1")
        monkeypatch.chdir(Path.cwd())

        with pytest.raises(LeakError) as caught, no_leaks():
            monkeypatch.setenv("WS_OLD", "2")
            monkeypatch.setenv("WS_NEW", "1")
            monkeypatch.chdir(tmp_path)

        assert str(caught.value) == (
            "left behind: the environment variable WS_NEW; the environment variable WS_OLD;"
            f" the working directory {tmp_path}"
        )

    def test_pools(self) -> None:
        """New pools must be closed, old ones have their connections back."""
        old, node = FakePool(1), FakePool(2)
        register(old)

        with pytest.raises(LeakError) as caught, no_leaks():
            new, closed = FakePool(), FakePool(-1, ready=False)
            register(new)
            register(closed)
            old.leased = (node, FakePool(1))

        assert str(caught.value).count("<pool>, which was not closed") == 1
        assert "2 connections in use of <pool>" in str(caught.value)


class TestTasks:
    """A block within a loop."""

    async def test_a_task(self) -> None:
        """One that runs on is named; one that was there before is not."""
        before = asyncio.create_task(asyncio.Event().wait())

        with pytest.raises(LeakError, match=r"left behind: the task mail of Event\.wait$"):
            async with no_leaks(settle=0.05):
                task = asyncio.create_task(asyncio.Event().wait(), name="mail")

        task.cancel()
        before.cancel()
        await asyncio.wait([task, before])

    async def test_a_task_that_ends(self) -> None:
        """It has some turns of the loop, and then some time."""
        async with no_leaks(settle=60):
            asyncio.create_task(asyncio.sleep(0.05), name="short")  # noqa: RUF006 - that is the point
            asyncio.create_task(asyncio.Event().wait()).cancel()

    def test_in_virtual_time(self) -> None:
        """No real time passes."""

        async def run() -> None:
            async with no_leaks(settle=3600):
                asyncio.create_task(asyncio.sleep(600))  # noqa: RUF006

        run_virtual(run())

    async def test_tasks_of_libraries(self) -> None:
        """They belong to what started them."""
        async with no_leaks(settle=0):
            module: dict[str, object] = {"__name__": "ws_pool._core.maintenance", "asyncio": asyncio}
            exec("async def maintain(): await asyncio.Event().wait()", module)
            task = asyncio.create_task(module["maintain"]())  # type: ignore[operator]

        task.cancel()
        await asyncio.wait([task])
