"""What the tests of ws-logging share: nothing they set up stays, and a log can be held up."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from ws_logging import QueuedFileSink, register


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Close what a test has set up, and give standard logging back to pytest."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield

    if register._current is not None:
        register._current.close()

    logger.remove()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def hold() -> Any:
    """Return a context manager that keeps every process from writing to a log file."""

    @contextmanager
    def held(path: Path) -> Iterator[None]:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT)

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    return held


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    """Make sinks, and stop them at the end."""
    made = []

    def new(**options: Any) -> Any:
        made.append(QueuedFileSink(tmp_path / "app.log", **options))
        return made[-1]

    yield new

    for sink in made:
        sink.stop()
