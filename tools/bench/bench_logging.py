"""ws-logging against loguru, standard logging, picologging and structlog with orjson."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import picologging
import structlog
from loguru import logger

from tools.bench.harness import Candidate, Case, Round, Suite, Target, main
from ws_core.redaction import mask_text
from ws_logging import LogInterceptor, QueuedFileSink, register_logger

ABOUT = """\
Processor time of the whole process for one line with two values, with time, level and place, into a
file; threads that write are included. "null" is the same front with a sink that does nothing, so the
difference to it is what formatting, redaction, the queue and writing cost. Only ws-logging masks
secrets and escapes every part. "caller" is the time of each single call, and what its median is above
that of the null sink in the same round: nearly all of it is loguru's own front, which bounds how many times
faster than `enqueue=True` any sink can be. "4 threads, to the end" includes waiting until all lines are in
the file. "drain" is the writer alone, with 100,000 lines of 120 bytes that wait. "masking" is one text of
a megabyte against a thousand of a kilobyte: linear means 1."""

STYLE = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {name}:{function}:{line} - {message}"
STANDARD = "%(asctime)s | %(levelname)s | %(name)s:%(funcName)s:%(lineno)d - %(message)s"
# Secrets are looked for, and not found.
SHORT = ("GET /items/%d took 12 ms, keys: 3; user=ann http://shop.test/x " * 16)[:1024]


class Row:
    """Something behind loguru or standard logging, set up anew for each round."""

    def __init__(self, start: Callable[[Path], Callable[[], object]], count: int) -> None:
        self._start, self._count = start, count
        self._directory = Path()
        self._stop: Callable[[], object] = lambda: None

    def prepare(self) -> None:
        """End what another candidate has set up, and begin."""
        _end_all()
        self._directory = Path(tempfile.mkdtemp(prefix="bench-logging-"))
        self._stop = self._start(self._directory)
        _ending.append(self.close)

    def close(self) -> None:
        """Stop, and remove the files."""
        self._stop()
        logger.remove()
        shutil.rmtree(self._directory, ignore_errors=True)

    def loguru(self) -> None:
        """Log through loguru."""
        log = logger.info

        for number in range(self._count):
            log("order {} paid by {}", number, "ann")

    def each(self) -> Round:
        """Log through loguru, and measure each call; then the same with nothing behind loguru."""
        ours = self._latencies()
        self.close()
        logger.add(_nothing, level="INFO", format=STYLE)
        null = self._latencies()
        logger.remove()
        return Round(latencies=ours, metrics={"over_null_s": median(ours) - median(null)})

    def _latencies(self) -> list[float]:
        log, clock, found = logger.info, time.perf_counter, []

        for number in range(self._count):
            begun = clock()
            log("order {} paid by {}", number, "ann")
            found.append(clock() - begun)

        return found

    def bound(self) -> None:
        """Log through loguru with two fields."""
        log = logger.bind(order=7, user="ann").info

        for _ in range(self._count):
            log("order paid")

    def standard(self) -> None:
        """Log through standard logging."""
        log = logging.getLogger("bench").info

        for number in range(self._count):
            log("order %d paid by %s", number, "ann")

    def disabled(self) -> None:
        """Make calls that are below the level."""
        log = logger.debug

        for number in range(self._count):
            log("order {} paid by {}", number, "ann")

    def disabled_standard(self) -> None:
        """Make such calls of standard logging."""
        log = logging.getLogger("bench").debug

        for number in range(self._count):
            log("order %d paid by %s", number, "ann")

    def to_the_end(self) -> None:
        """Log from four threads, and wait until everything is written."""
        threads = [threading.Thread(target=self.loguru) for _ in range(4)]

        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()

        self._stop()
        logger.remove()


_ending: list[Callable[[], None]] = []


def _end_all() -> None:
    while _ending:
        _ending.pop()()


def ours(**options: Any) -> Callable[[Path], Callable[[], object]]:
    """Return how to start ws-logging."""

    def start(directory: Path) -> Callable[[], object]:
        return register_logger("info", file_path=directory, file_rotation=None, **options).close

    return start


def theirs(*, null: bool = False, **options: Any) -> Callable[[Path], Callable[[], object]]:
    """Return how to start loguru's own file, or nothing behind loguru."""

    def start(directory: Path) -> Callable[[], object]:
        logger.remove()
        logger.add(_nothing if null else directory / "app.log", level="INFO", format=STYLE, **options)
        return lambda: None

    return start


def _nothing(_: Any) -> None:
    """Take a message."""


def intercepted(_: Path) -> Callable[[], object]:
    """Lead standard logging into loguru, with nothing behind it."""
    logger.remove()
    logger.add(_nothing, level="INFO", format=STYLE)
    interceptor = LogInterceptor()
    interceptor.register("INFO")
    return interceptor.unregister


def _with_handler(handler: logging.Handler, stop: Callable[[], object]) -> Callable[[], object]:
    own = logging.getLogger("bench")
    own.handlers[:], own.propagate = [handler], False
    own.setLevel("INFO")

    def end() -> None:
        own.handlers[:], own.propagate = [], True
        own.setLevel("NOTSET")
        stop()

    return end


def queued(directory: Path) -> Callable[[], object]:
    """Start standard logging's queue."""
    file = logging.FileHandler(directory / "app.log")
    file.setFormatter(logging.Formatter(STANDARD))
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(waiting, file)
    listener.start()

    def stop() -> None:
        listener.stop()
        file.close()

    return _with_handler(logging.handlers.QueueHandler(waiting), stop)


def plain(directory: Path) -> Callable[[], object]:
    """Start standard logging's file."""
    file = logging.FileHandler(directory / "app.log")
    file.setFormatter(logging.Formatter(STANDARD))
    return _with_handler(file, file.close)


def standard_disabled(_: Path) -> Callable[[], object]:
    """Set standard logging's own levels."""
    logging.getLogger("bench").setLevel("INFO")
    return lambda: logging.getLogger("bench").setLevel("NOTSET")


class Drain:
    """A queue that is full, and its writer."""

    LINES = [b"x" * 119 + b"\n"] * 100_000

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="bench-logging-"))

    def prepare(self) -> None:
        """Fill the queue."""
        self._sink = QueuedFileSink(self._directory / "app.log")

        for line in self.LINES:
            self._sink._lines.offer(line)  # noqa: SLF001 - without its writer

    def run(self) -> None:
        """Write all of it."""
        self._sink.stop()

    def plain(self) -> None:
        """Write the same lines by one call of the system for each 256 KiB."""
        with (self._directory / "plain.log").open("ab", buffering=0) as file:
            for start in range(0, len(self.LINES), 2184):
                file.write(b"".join(self.LINES[start : start + 2184]))

    def clear(self) -> None:
        """Begin with an empty file."""
        (self._directory / "plain.log").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._directory, ignore_errors=True)


class Others:
    """picologging and structlog."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._directory = Path(tempfile.mkdtemp(prefix="bench-logging-"))
        self._file = (self._directory / "structlog.log").open("wb")
        handler = picologging.FileHandler(str(self._directory / "pico.log"))
        handler.setFormatter(picologging.Formatter(STANDARD))
        self._pico = picologging.getLogger("bench")
        self._pico.handlers = [handler]
        self._pico.setLevel(picologging.INFO)
        self._structlog = structlog.wrap_logger(
            structlog.BytesLogger(self._file),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.CallsiteParameterAdder(),
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
        )

    def picologging(self) -> None:
        """Log through picologging."""
        log = self._pico.info

        for number in range(self._count):
            log("order %d paid by %s", number, "ann")

    def structlog(self) -> None:
        """Log through structlog with two fields."""
        log = self._structlog.bind(order=7, user="ann").info

        for _ in range(self._count):
            log("order paid")

    def close(self) -> None:
        """Remove the files."""
        self._file.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def suite(quick: bool) -> Suite:
    """Build the suite."""
    count = 500 if quick else 5_000
    rounds = 3 if quick else 15
    others, drain = Others(count), Drain()

    def candidate(name: str, how: str, start: Callable[[Path], Callable[[], object]]) -> Candidate:
        one = Row(start, count)
        return Candidate(name, run=getattr(one, how), prepare=one.prepare, teardown=_end_all)

    many, one = [SHORT] * 1000, SHORT * 1000
    return Suite(
        name="logging",
        title="Logging",
        packages=("ws-logging", "loguru", "picologging", "structlog", "orjson"),
        about=ABOUT,
        cases=(
            Case(
                "caller, each call",
                operations=count,
                candidates=(
                    candidate("ws-logging", "each", ours()),
                    candidate("loguru, enqueue", "each", theirs(enqueue=True)),
                ),
                targets=(
                    Target("ws-logging", peer="loguru, enqueue", at_least=4, metric="p50"),
                    Target("ws-logging", at_most=2e-6, metric="over_null_s"),
                ),
                rounds=rounds,
                show="p50",
            ),
            Case(
                "loguru's front, text",
                operations=count,
                candidates=(
                    candidate("ws-logging", "loguru", ours()),
                    candidate("null", "loguru", theirs(null=True)),
                    candidate("loguru, enqueue", "loguru", theirs(enqueue=True)),
                    candidate("loguru, file", "loguru", theirs()),
                ),
                targets=(Target("ws-logging", peer="null", at_most=1.25, metric="cpu"),),
                rounds=rounds,
                show="cpu",
            ),
            Case(
                "standard logging, text",
                operations=count,
                candidates=(
                    candidate("ws-logging", "standard", ours()),
                    candidate("null", "standard", intercepted),
                    candidate("QueueHandler", "standard", queued),
                    candidate("FileHandler", "standard", plain),
                    Candidate("picologging, file", run=others.picologging),
                ),
                targets=(Target("ws-logging", peer="null", at_most=1.25, metric="cpu"),),
                rounds=rounds,
                show="cpu",
            ),
            Case(
                "JSON, two fields",
                operations=count,
                candidates=(
                    candidate("ws-logging", "bound", ours(json=True)),
                    candidate("null", "bound", theirs(null=True)),
                    candidate("loguru, serialize", "bound", theirs(serialize=True)),
                    Candidate("structlog, orjson", run=others.structlog, teardown=others.close),
                ),
                targets=(Target("ws-logging", peer="null", at_most=1.25, metric="cpu"),),
                rounds=rounds,
                show="cpu",
            ),
            Case(
                "disabled, loguru's front",
                operations=count,
                candidates=(
                    candidate("ws-logging", "disabled", ours()),
                    candidate("another module has a level", "disabled", ours(levels={"shop.stock": "debug"})),
                    candidate("loguru", "disabled", theirs(null=True)),
                ),
                targets=(
                    Target("ws-logging", peer="loguru", at_most=1.1, metric="cpu"),
                    Target("another module has a level", at_most=2e-6, metric="cpu"),
                ),
                rounds=rounds,
                show="cpu",
            ),
            Case(
                "disabled, standard logging",
                operations=count,
                candidates=(
                    candidate(
                        "another module has a level", "disabled_standard", ours(levels={"shop": "debug"})
                    ),
                    candidate("standard logging", "disabled_standard", standard_disabled),
                ),
                targets=(
                    Target("another module has a level", peer="standard logging", at_most=1.1, metric="cpu"),
                ),
                rounds=rounds,
                show="cpu",
            ),
            Case(
                "drain",
                operations=len(Drain.LINES),
                candidates=(
                    Candidate("ws-logging", run=drain.run, prepare=drain.prepare),
                    Candidate("write alone", run=drain.plain, prepare=drain.clear, teardown=drain.close),
                ),
                targets=(Target("ws-logging", at_most=1e-6, metric="cpu"),),
                rounds=rounds,
            ),
            Case(
                "4 threads, to the end",
                operations=4 * count,
                candidates=(
                    candidate("ws-logging", "to_the_end", ours()),
                    candidate("loguru, file", "to_the_end", theirs()),
                    candidate("loguru, enqueue", "to_the_end", theirs(enqueue=True)),
                ),
                targets=(Target("ws-logging", peer="loguru, file", at_least=1),),
                rounds=rounds,
            ),
            Case(
                "masking",
                operations=1000,
                candidates=(
                    Candidate("1 MB", run=lambda: mask_text(one) and None),
                    Candidate("1,000 of 1 KB", run=lambda: [mask_text(text) for text in many] and None),
                ),
                targets=(Target("1 MB", peer="1,000 of 1 KB", at_most=2, metric="cpu"),),
                rounds=rounds,
                show="cpu",
            ),
        ),
    )


if __name__ == "__main__":
    main(suite)
