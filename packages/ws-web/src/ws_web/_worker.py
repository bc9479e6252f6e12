"""The program of one worker process that serves; started by `ws_web._supervisor`, not by people."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ws_web._acceptor import Board
from ws_web._worker_process import run_worker_process
from ws_web.server import load_app, serve_here


def main(order: str) -> int:
    """Serve on the parent's socket until a signal, or the parent's end, and return the exit code."""
    return run_worker_process(order, _serve)


def _serve(given: Mapping[str, Any], report_ready: Callable[[], None]) -> None:  # Any: of JSON types
    with socket.socket(fileno=given["listener"]) as listener:
        serve_here(
            load_app(given["app"]),
            listener,
            given["options"],
            ready=report_ready,
            board=Board(given["board"], given["size"], given["place"]),
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
