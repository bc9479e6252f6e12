"""What every worker process does beside its work: report to its supervisor, and end when that is gone."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ws_core.errors import WsError
from ws_web._supervisor import STARTUP_FAILED
from ws_web._worker_group import set_parent

Work = Callable[[Mapping[str, Any], Callable[[], None]], None]  # Any: of JSON types


def run_worker_process(order: str, work: Work) -> int:
    """
    Do the work of a process that a `Supervisor` has started, until a signal or the parent's end.

    Args:
        order: The argument of the process: the fields of its `WorkerCommand`, its descriptors, its place.
        work: Called with the order and with what reports that the worker serves; it returns after SIGINT
            or SIGTERM. SIGINT comes also when the parent has died.

    Returns:
        The exit code: 0, or `STARTUP_FAILED` after a `WsError`, whose message the supervisor gets.

    Example:
        ```python
        import signal
        import sys

        from ws_web.server import run_worker_process

        def work(order, report_ready):  # in mail/worker.py, whose last line calls `main`
            report_ready()
            signal.sigwait({signal.SIGINT, signal.SIGTERM})

        def main() -> None:  # WorkerCommand("", {}, program="mail.worker") runs it
            sys.exit(run_worker_process(sys.argv[1], work))
        ```
    """
    given = json.loads(order)
    sys.path[:] = given["path"]
    report: int = given["report"]
    set_parent(os.getppid())
    threading.Thread(target=_watch_parent, args=(given["parent"],), daemon=True, name="parent watch").start()

    try:
        work(given, lambda: _report(report, {"ready": os.getpid()}))
    except WsError as error:
        _report(report, {"failed": str(error)})
        return STARTUP_FAILED

    return 0


def _report(descriptor: int, what: dict[str, object]) -> None:
    with suppress(BrokenPipeError):  # the parent is gone; the watch thread stops us
        os.write(descriptor, json.dumps(what).encode() + b"\n")


def _watch_parent(descriptor: int) -> None:
    """Wait until the other end of the pipe is closed, which only the parent's death does."""
    while os.read(descriptor, 1):
        pass

    os.kill(os.getpid(), signal.SIGINT)
