"""The sink inside one process: accounts, policies, and the file beneath."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from loguru import logger

from tests.logging._accounts import balanced, lines
from ws_logging import LoggingConfigError, QueuedFileSink
from ws_logging._line_queue import LineQueue
from ws_logging._sink_options import live_path


class TestWriting:
    """Lines in, lines out."""

    def test_in_order_and_whole(self, make: Any) -> None:
        """What was put is in the file."""
        sink = make()

        for number in range(1000):
            sink.put(b"%d\n" % number)

        assert sink.drain(30)
        assert lines(sink.path) == [str(number) for number in range(1000)]
        assert balanced(sink).written == 1000
        assert balanced(sink).pending_bytes == 0

    def test_nothing_starts_before_the_first_line(self, make: Any) -> None:
        """A sink that is never used costs no thread."""
        sink = make()
        assert sink._worker is None
        sink.stop()
        assert sink.drain(1)

    def gathering(self, make: Any) -> Any:
        """Return a sink whose writer has a line and waits for more."""
        sink = make()
        sink.put(b"first\n")

        while not sink._sleeping or sink.statistics().pending:
            time.sleep(0.001)

        sink.put(b"normal\n")

        while not sink._gathering:
            time.sleep(0.001)

        assert sink.statistics().written == 1
        return sink

    def test_an_urgent_line_does_not_wait_for_more(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error is on disk at once, even if the writer would wait for a minute."""
        monkeypatch.setattr("ws_logging._queued_sink.GATHER", 60.0)
        sink = self.gathering(make)
        sink.put(b"urgent\n", urgent=True)

        while sink.statistics().written < 3:
            time.sleep(0.001)

    def test_much_does_not_wait_for_more(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor do 192 KiB."""
        monkeypatch.setattr("ws_logging._queued_sink.GATHER", 60.0)
        sink = self.gathering(make)

        for _ in range(210):
            sink.put(b"x" * 1023 + b"\n")

        while sink.statistics().written < 190:
            time.sleep(0.001)

    def test_as_a_sink_of_loguru(self, make: Any) -> None:
        """Write takes loguru's message, with its level."""
        sink = make()
        number = logger.add(sink, format="{message}")
        logger.error("a \ud800 surrogate")
        logger.remove(number)
        assert lines(sink.path) == ["a \\ud800 surrogate"]
        assert "app.log" in repr(sink)

    def test_writes_after_stop_are_synchronous(self, make: Any) -> None:
        """They are in the file when the call returns; stop may be called again."""
        sink = make()
        sink.stop()
        sink.stop()
        sink.put(b"late\n")
        assert lines(sink.path) == ["late"]
        assert balanced(sink).written == 1
        assert not sink.drain(0.0) or sink.statistics().pending == 0

    def test_drain_gives_up_in_time(self, make: Any, hold: Any) -> None:
        """It says so, and it goes on when there is no limit."""
        sink = make()

        with hold(sink.path):
            sink.put(b"x\n")
            assert not sink.drain(0.02)

        assert sink.drain()

    def test_many_threads_stopped_in_the_middle(self, make: Any) -> None:
        """A line that races with stop is written by the writer, by stop, or by itself."""
        sink = make()
        go = threading.Barrier(5)

        def work(name: str) -> None:
            go.wait()

            for number in range(2000):
                sink.put(f"{name} {number}\n".encode())

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]

        for thread in threads:
            thread.start()

        go.wait()
        sink.stop()

        for thread in threads:
            thread.join()

        assert len(set(lines(sink.path))) == 8000
        assert balanced(sink).written == 8000


class TestStops:
    """The ways in which stop can come at a bad moment."""

    def test_in_the_middle_of_a_put(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A signal handler that interrupts a caller: the caller's line is written all the same."""
        sink = make()
        real = LineQueue.offer

        def interrupted(lines: LineQueue, line: bytes, **options: bool) -> bool:
            sink.stop()
            return real(lines, line, **options)

        monkeypatch.setattr(LineQueue, "offer", interrupted)
        sink.put(b"one\n")
        assert lines(sink.path) == ["one"]
        assert balanced(sink).written == 1

    def test_while_the_file_is_in_use(self, make: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """A writer that hangs in the system cannot keep the process; what it costs is reported."""
        sink = make(stop_timeout=0.05)
        taken, done = threading.Event(), threading.Event()

        def hang() -> None:
            with sink._io:
                taken.set()
                done.wait()

        thread = threading.Thread(target=hang)
        thread.start()
        taken.wait()
        sink.put(b"lost\n")
        sink.stop()
        assert balanced(sink).dropped == 1
        done.set()
        thread.join()
        sink._worker.join(10)  # it wakes up now, and must not meet the next test's disk
        assert not sink._worker.is_alive()

    def test_while_the_disk_is_failing(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stop tries again until its time is over, and succeeds when the disk heals."""
        sink = make()
        real, failures = os.write, [1] * 5

        def failing(fd: int, data: bytes) -> int:
            if failures:
                failures.pop()
                raise OSError(5, "Input/output error")

            return real(fd, data)

        monkeypatch.setattr(os, "write", failing)
        monkeypatch.setattr(sink, "_start", lambda: None)
        sink.put(b"one\n")
        sink.stop()
        assert lines(sink.path) == ["one"]
        assert balanced(sink).errors == 5

    def test_two_first_callers(self, make: Any) -> None:
        """One writer is started; after stop none."""
        sink = make()
        sink._start()
        first = sink._worker
        sink._start()
        assert sink._worker is first
        sink.stop()
        sink._worker = None
        sink._start()
        assert sink._worker is None


class TestPolicies:
    """A full queue: exact counts for each policy."""

    def fill(self, sink: Any, count: int, *, start: Any = 0) -> None:
        """Put lines of 10 bytes."""
        for number in range(start, start + count):
            sink.put(b"%09d\n" % number)

    def test_drop_newest(self, make: Any, hold: Any) -> None:
        """The first ones stay; one line reports how many are missing."""
        sink = make(max_records=100, overflow="drop_newest")

        with hold(sink.path):
            self.fill(sink, 1000)
            assert balanced(sink).dropped == 910  # a tenth is kept for errors
            sink.put(b"error\n", urgent=True)
            assert balanced(sink).dropped == 910

        sink.drain(30)
        sink.stop()
        written = lines(sink.path)
        written.remove("910 log messages were dropped")
        assert written == [*(f"{n:09}" for n in range(90)), "error"]
        assert balanced(sink).written == 91

    def test_drop_oldest(self, make: Any, hold: Any) -> None:
        """The last ones stay; what the writer has taken already is written."""
        sink = make(max_records=100, overflow="drop_oldest")

        with hold(sink.path):
            self.fill(sink, 1)

            while sink._lines:
                time.sleep(0.001)  # until the writer has taken it

            self.fill(sink, 999, start=1)
            assert balanced(sink).dropped == 910

        sink.stop()
        written = lines(sink.path)
        written.remove("910 log messages were dropped")
        assert written == ["000000000", *(f"{n:09}" for n in range(911, 1000))]

    def test_drop_oldest_when_the_writer_has_it_all(self, make: Any, hold: Any) -> None:
        """Then the newest is dropped."""
        sink = make(max_records=2, overflow="drop_oldest")

        with hold(sink.path):
            self.fill(sink, 1)

            while sink._lines:
                time.sleep(0.001)

            sink._lines._room = (0, 0)
            self.fill(sink, 1)
            assert balanced(sink).dropped == 1

    @pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
    def test_errors_are_dropped_last(self, make: Any, hold: Any, overflow: str) -> None:
        """An error takes the place of a line that is not one, whatever the policy is."""
        sink = make(max_records=100, overflow=overflow, block_timeout=0.01)

        with hold(sink.path):
            self.fill(sink, 1)

            while sink._lines:
                time.sleep(0.001)  # until the writer has taken it

            for number in range(60):
                sink.put(b"error %d\n" % number, urgent=True)
                self.fill(sink, 100, start=100 * number)

            pending = balanced(sink).pending
            assert pending >= 90

        sink.stop()
        written = [line for line in lines(sink.path) if "were dropped" not in line]
        assert [line for line in written if line.startswith("error")] == [f"error {n}" for n in range(60)]
        assert len(written) == pending

    def test_order_of_urgent_lines(self, make: Any) -> None:
        """They are among the others in the order in which they came."""
        queue = LineQueue(10_000, 1_000)

        for number in range(100):
            assert queue.offer(b"%d" % number, urgent=number % 3 == 0)

        assert queue.take(50) + queue.take(10**6) == [b"%d" % number for number in range(100)]

    def test_block_waits_and_then_drops(self, make: Any, hold: Any) -> None:
        """The first caller waits; the next ones do not add up their waits."""
        sink = make(max_records=10, block_timeout=0.05)

        with hold(sink.path):
            self.fill(sink, 9)
            began = time.monotonic()
            self.fill(sink, 1)
            assert time.monotonic() - began >= 0.05
            self.fill(sink, 1000)
            assert balanced(sink).dropped == 1001

        assert sink.drain(30)

    def test_block_goes_on_when_there_is_room(self, make: Any, hold: Any) -> None:
        """Nothing is dropped when the writer comes in time."""
        sink = make(max_records=10, block_timeout=60)

        with hold(sink.path):
            self.fill(sink, 9)
            thread = threading.Thread(target=self.fill, args=(sink, 100))
            thread.start()

        thread.join()
        assert sink.drain(30)
        assert balanced(sink).written == 109

    @pytest.mark.timeout(60)
    async def test_never_on_the_thread_of_an_event_loop(self, make: Any, hold: Any) -> None:
        """A loop must not stand still for a disk."""
        sink = make(max_records=10, block_timeout=600)

        with hold(sink.path):
            self.fill(sink, 20)
            assert balanced(sink).dropped == 11

    def test_never_in_a_loop_of_trio(self, make: Any, hold: Any) -> None:
        """Trio's thread runs an event loop as well."""
        sink = make(max_records=10, block_timeout=600.0)

        async def fill() -> None:
            self.fill(sink, 20)

        with hold(sink.path):
            trio.run(fill)
            assert balanced(sink).dropped > 0

    def test_bytes_count_too(self, make: Any, hold: Any) -> None:
        """Whichever limit is reached first."""
        sink = make(max_bytes=1000, overflow="drop_newest")

        with hold(sink.path):
            self.fill(sink, 200)
            assert balanced(sink).dropped == 110

    def test_a_line_longer_than_the_queue(self, make: Any) -> None:
        """It is taken when nothing else waits."""
        sink = make(max_bytes=10)
        sink.put(b"x" * 1000 + b"\n")
        assert sink.drain(30)

    def test_the_notice_is_tried_again(self, make: Any, hold: Any, tmp_path: Path) -> None:
        """Until it is in the file."""
        told = []

        def notice(count: int) -> Any:
            told.append(count)
            return f"lost {count}\n"

        sink = make(max_records=10, overflow="drop_newest", notice=notice)

        with hold(sink.path):
            self.fill(sink, 20)
            sink._file.path.unlink()
            sink._file.path.mkdir()

        deadline = time.monotonic() + 30

        while not sink.statistics().errors and time.monotonic() < deadline:
            time.sleep(0.001)

        sink._file.path.rmdir()
        assert sink.drain(30)
        sink.stop()
        assert "lost 11" in lines(sink.path)


class TestMistakes:
    """Arguments that make no sense."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rotation": "500 MB"}, "rotation: LogFileRotator.make"),
            ({"retention": -1}, "retention: a number of files"),
            ({"retention": True}, "retention: a number of files"),
            ({"retention": "10 days"}, "retention: a number of files"),
            ({"compression": "zip"}, "compression: 'gz', 'zst' or None"),
            ({"overflow": "explode"}, "overflow: 'block'"),
            ({"max_bytes": 0}, "max_bytes: a number of bytes of at least 1"),
            ({"max_records": "x"}, "max_records: a number of messages of at least 1"),
            ({"total_size": 0}, "total_size: a number of bytes of at least 1"),
            ({"block_timeout": -1}, "block_timeout: a number of seconds of at least 0"),
            ({"stop_timeout": True}, "stop_timeout: a number of seconds"),
            ({"stop_timeout": float("nan")}, "stop_timeout: a number of seconds"),
        ],
    )
    def test_options(self, make: Any, tmp_path: Path, options: Any, message: Any) -> None:
        """The message says what is expected, and nothing was opened."""
        with pytest.raises(LoggingConfigError, match=message):
            make(**options)

        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_cannot_be_opened(self, tmp_path: Path) -> None:
        """A directory in place of the file, a file in place of the directory."""
        (tmp_path / "app.log").mkdir()

        with pytest.raises(LoggingConfigError, match=r"app.log cannot be opened: Is a directory"):
            QueuedFileSink(tmp_path / "app.log")

        (tmp_path / "file").touch()

        with pytest.raises(LoggingConfigError, match="cannot be opened"):
            QueuedFileSink(tmp_path / "file" / "app.log")

    @pytest.mark.parametrize(
        ("name", "live"),
        [
            ("app.{time}.log", "app.log"),
            ("app_{time}.log", "app.log"),
            ("{time}app.log", "app.log"),
            ("a.log", "a.log"),
        ],
    )
    def test_the_time_is_for_rotated_files(self, name: str, live: str) -> None:
        """The live file has one name in all processes."""
        assert live_path(f"/x/{name}") == Path(f"/x/{live}")


class QueueMachine(RuleBasedStateMachine):
    """The queue against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = LineQueue(1000, 10)
        self.model: list[tuple[int, bool]] = []
        self.taken: list[int] = []
        self.appended = self.refused = self.evicted = self.written = 0

    @rule(size=st.integers(1, 300), urgent=st.booleans())
    def put(self, size: int, urgent: bool) -> None:
        """Append, if there is room."""
        if self.queue.offer(b"x" * size, urgent=urgent):
            self.model.append((size, urgent))
            self.appended += 1
        else:
            assert len(self.model) + len(self.taken) > 0
            self.queue.refused += 1
            self.refused += 1

    @rule(urgent=st.booleans())
    def evict(self, urgent: bool) -> None:
        """Drop the oldest that is not urgent, or for an urgent one the oldest."""
        others = [entry for entry in self.model if not entry[1]] or (self.model if urgent else [])
        assert self.queue.evict(urgent=urgent) == bool(others)

        if others:
            self.model.remove(others[0])
            self.evicted += 1

    @rule(size=st.integers(1, 500))
    def take(self, size: int) -> None:
        """The writer takes some, when it has none."""
        if not self.taken:
            batch = self.queue.take(size)
            self.taken = [len(line) for line in batch]
            assert self.taken == [size for size, _ in self.model[: len(self.taken)]]
            del self.model[: len(self.taken)]

    @rule(count=st.integers(0, 5))
    def write(self, count: int) -> None:
        """The writer has written some."""
        done = self.taken[:count]
        self.queue.written([b"x" * size for size in done])
        del self.taken[:count]
        self.written += len(done)

    @invariant()
    def accounts(self) -> None:
        """Nothing is counted twice or forgotten."""
        assert self.queue.waiting == len(self.model) + len(self.taken)
        assert self.queue.waiting_bytes == sum(size for size, _ in self.model) + sum(self.taken)
        assert self.queue.dropped == self.refused + self.evicted
        assert self.queue.done == self.written
        assert bool(self.queue) == bool(self.model)


class TestQueue:
    """The queue alone."""

    def test_accounts(self) -> None:
        """They agree after any sequence of operations."""
        run_state_machine_as_test(QueueMachine)
