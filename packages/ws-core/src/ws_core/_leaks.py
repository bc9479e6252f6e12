"""What a block of code leaves behind. Published by `ws_core.testing`."""

from __future__ import annotations

import asyncio
import gc
import os
import sysconfig
import threading
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TextIO, get_args

from ws_core.errors import UsageError, WsError
from ws_core.metrics import Source, registered

Kind = Literal["tasks", "threads", "processes", "files", "connections", "pools", "environment", "warnings"]
KINDS: Final[frozenset[Kind]] = frozenset(get_args(Kind))
_PACKAGES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
_OURS = ("ws_core", "ws_logging", "ws_tasks", "ws_redislock", "ws_pool", "ws_web", "wintersweet")
_TURNS = 20  # of the loop, in which what was just cancelled may end


class LeakError(AssertionError):
    """Something was left behind; the message names each thing."""


@dataclass(slots=True)
class _State:
    """What there is at one moment."""

    threads: set[threading.Thread] = field(default_factory=set)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)  # Any: tasks of anyone
    processes: set[int] = field(default_factory=set)
    files: set[tuple[int, str]] = field(default_factory=set)
    leased: dict[Source, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = ""

    @classmethod
    def now(cls) -> Self:
        return cls(
            # Those of asyncio's executor stay until their loop is closed.
            {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")},
            _tasks(),
            _children(),
            _files(),
            {source: _leased(source) for source in registered()},
            {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
            str(Path.cwd()),
        )


class no_leaks:  # noqa: N801 - used like a function
    """
    Fail a block that leaves something behind: ``with`` or, where tasks may need a moment, ``async with``.

    Looked for are: tasks and threads that run on, child processes, open files and pipes, connections that
    were not released, pools that were not closed, what Python reports as a `ResourceWarning` (sockets,
    files and transports that were forgotten), a changed environment or directory. What was there before
    is left out, and so are the tasks of installed libraries, which end with their pools.

    Args:
        settle: Seconds that threads, processes and tasks have to end.
        look_for: Only these kinds: ``"tasks"``, ``"threads"``, ``"processes"``, ``"files"``,
            ``"connections"``, ``"pools"``, ``"environment"`` (and the directory), ``"warnings"``.

    Raises:
        LeakError: Something was left, and the block itself did not fail.

    Example:
        >>> with no_leaks(settle=0.0):
        ...     file = open(os.devnull)
        Traceback (most recent call last):
        ...
        ws_core.testing.LeakError: left behind: the open file /dev/null
        >>> file.close()
    """

    def __init__(self, *, settle: float = 1.0, look_for: Collection[Kind] = KINDS) -> None:
        if unknown := set(look_for) - KINDS:
            message = f"no_leaks looks for {', '.join(sorted(KINDS))}, not for {', '.join(sorted(unknown))}"
            raise UsageError(message)

        self._settle = settle
        self._look_for = frozenset(look_for)
        self._before = _State()
        self._forgotten: list[str] = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        gc.collect()  # what was forgotten before is not the block's
        self._before = _State.now()

        if "warnings" in self._look_for:
            self._note_warnings()

        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._undo:
            if error is not None:
                return

            gc.collect()
            deadline = time.monotonic() + self._settle

            # One look decides both: what ends between two would be left and not waited for.
            while left := self._left(now := _State.now()):
                if time.monotonic() >= deadline or not self._may_end(now):
                    break

                time.sleep(0.01)

        if left:
            raise LeakError(f"left behind: {'; '.join(left)}")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            loop = asyncio.get_running_loop()
            deadline, turns = loop.time() + self._settle, 0

            while self._tasks_run() and (turns < _TURNS or loop.time() < deadline):
                await asyncio.sleep(0 if turns < _TURNS else 0.01)
                turns += 1

        self.__exit__(kind, error, trace)

    def _tasks_run(self) -> bool:
        return "tasks" in self._look_for and bool(_tasks() - self._before.tasks)

    def _note_warnings(self) -> None:
        """Keep what Python reports as forgotten until the block ends."""
        self._undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always", ResourceWarning)
        show = warnings.showwarning

        def note(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, ResourceWarning):
                self._forgotten.append(str(message))
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = note

    def _may_end(self, now: _State) -> bool:
        """Whether waiting can help: threads and processes end by themselves."""
        return bool(now.threads - self._before.threads or now.processes - self._before.processes)

    def _left(self, now: _State) -> list[str]:
        return [thing for kind, things in self._compare(now) if kind in self._look_for for thing in things]

    def _compare(self, now: _State) -> Iterator[tuple[Kind, list[str]]]:
        """Return what there is now and was not before, by kind."""
        before = self._before
        yield "tasks", [f"the task {_described(task)}" for task in now.tasks - before.tasks]
        yield "threads", [f"the thread {thread.name}" for thread in now.threads - before.threads]
        yield "processes", [f"the process {pid}" for pid in sorted(now.processes - before.processes)]
        yield "files", [f"the open file {path}" for _, path in sorted(now.files - before.files)]

        for source, leased in now.leased.items():
            more = leased - before.leased.get(source, 0)

            if source not in before.leased and getattr(source, "ready", False):
                yield "pools", [f"{source!r}, which was not closed"]
            elif more > 0:
                yield "connections", [f"{more} connections in use of {source!r}"]

        changed = dict(set(now.environment.items()) ^ set(before.environment.items()))
        yield "environment", [f"the environment variable {name}" for name in sorted(changed)]

        if now.directory != before.directory:
            yield "environment", [f"the working directory {now.directory}"]

        yield "warnings", self._forgotten


def _tasks() -> set[asyncio.Task[Any]]:
    """Return the tasks of the running loop, without those of installed libraries."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return set()

    return {task for task in tasks if not _is_of_a_library(task)}


def _is_of_a_library(task: asyncio.Task[Any]) -> bool:
    frame = getattr(task.get_coro(), "cr_frame", None)

    if frame is None:
        return True  # it has ended, or is not Python's: nobody could say whose it is

    module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return module in _OURS or frame.f_code.co_filename.startswith(_PACKAGES)


def _described(task: asyncio.Task[Any]) -> str:
    return f"{task.get_name()} of {getattr(task.get_coro(), '__qualname__', task.get_coro())}"


def _leased(source: Source) -> int:
    """Return how many connections of a pool are in use; 0 for what is not a pool."""
    try:
        leased = getattr(source.statistics(), "leased", 0)
    except WsError:  # not started, or closed
        return 0

    return sum(node.leased for node in leased) if isinstance(leased, tuple) else int(leased)


def _children() -> set[int]:
    """Return the processes that this one has started; none where the system does not say."""
    found: set[int] = set()

    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found.update(map(int, children.read_text().split()))

    return {pid for pid in found if not _has_ended(pid)}


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _files() -> set[tuple[int, str]]:
    """Return open files and pipes."""
    # Not the standard ones, which pytest exchanges, and no sockets, which pools open when they need one.
    found: set[tuple[int, str]] = set()

    for descriptor in Path("/proc/self/fd").glob("*"):
        if int(descriptor.name) < 3:
            continue

        with suppress(OSError):  # closed meanwhile
            target = str(descriptor.readlink())

            if target.startswith(("/", "pipe:")) and "/proc/" not in target and not _is_sqlite(target):
                found.add((int(descriptor.name), target))

    return found


def _is_sqlite(path: str) -> bool:
    """Whether a file is a database, which a pool opens when it needs one more connection."""
    if path.endswith(("-wal", "-shm", "-journal")):
        return True

    with suppress(OSError), Path(path).open("rb") as file:
        return Path(path).is_file() and file.read(15) == b"SQLite format 3"

    return False
