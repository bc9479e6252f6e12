"""The program of one worker process; started by `ws_web._supervisor`, not by people."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress

from ws_core.errors import WsError
from ws_web._sockets import join
from ws_web._supervisor import STARTUP_FAILED
from ws_web.server import load_app, serve_here

__all__ = ("main",)


def main(told: str) -> int:
    """
    Serve on the parent's port until SIGTERM, or until the parent is gone.

    Args:
        told: What the parent says, as JSON; see `ws_web._supervisor.WorkerCommand`.

    Returns:
        The exit code: 0, or `STARTUP_FAILED` when the application did not start.
    """
    order = json.loads(told)
    sys.path[:] = order["path"]
    report: int = order["report"]
    threading.Thread(target=_watch_parent, args=(order["parent"],), daemon=True, name="parent watch").start()

    try:
        app = load_app(order["app"])

        with join(*order["address"]) as listener:
            serve_here(app, listener, order["options"], ready=lambda: _report(report, {"ready": os.getpid()}))
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

    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
