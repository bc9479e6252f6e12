"""One worker process of the demo: ``python -m wintersweet.demo.worker HOST PORT``.

Serves on a port that the parent holds until SIGTERM, or until the parent is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from wintersweet.demo.supervisor import FAILED, READY
from ws_core.errors import WsError
from ws_web.server import join, load_app, serve_here

__all__ = ("main",)

_APP = "wintersweet.demo.app:create"


def main(arguments: list[str] | None = None) -> int:
    """
    Serve until stopped.

    Args:
        arguments: Address and port, and nothing else.

    Returns:
        The exit status: 0 after an orderly stop, 1 when the shop could not open.
    """
    host, port = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=_stop_with_parent, name="lifeline", daemon=True).start()
    options = {"timeout_graceful_shutdown": 5}

    try:
        app = load_app(os.environ.get("WINTERSWEET_DEMO_APP", _APP))
        serve_here(app, join(host, int(port)), options, ready=_say_ready)
    except WsError as error:
        text = str(error).strip()

        if "\n" in text:  # a bug of the application: its traceback is for who wrote it, the last line for all
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - see above

        os.write(sys.stdout.fileno(), FAILED + text.rpartition("\n")[2].encode() + b"\n")
        return 1

    return 0


def _say_ready() -> None:
    os.write(sys.stdout.fileno(), READY)


def _stop_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 64):
        pass

    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
