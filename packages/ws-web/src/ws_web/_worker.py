"""The program of one worker process; started by `ws_web._supervisor`, not by people."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress

from ws_core.errors import WsError
from ws_web._acceptor import Board
from ws_web._supervisor import STARTUP_FAILED
from ws_web._worker_group import set_parent
from ws_web.server import load_app, serve_here

__all__ = ("main",)


def main(order: str) -> int:
    """Serve on the parent's socket until a signal, or the parent's end, and return the exit code."""
    given = json.loads(order)
    sys.path[:] = given["path"]
    report: int = given["report"]
    set_parent(os.getppid())
    threading.Thread(target=_watch_parent, args=(given["parent"],), daemon=True, name="parent watch").start()

    try:
        with socket.socket(fileno=given["listener"]) as listener:
            serve_here(
                load_app(given["app"]),
                listener,
                given["options"],
                ready=lambda: _report(report, {"ready": os.getpid()}),
                board=Board(given["board"], given["size"], given["place"]),
            )
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
