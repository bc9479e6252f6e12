"""Starlette's own tests of WebSockets, middlewares, routing and applications, on `create_app`.

    python -m tools.conformance.starlette_suite [TEST FILES]

Each application of these tests is one of ours, and each other ASGI application is served inside of one,
behind its middlewares. Differences are named in ``starlette_exceptions.json`` with their reasons.
"""

from __future__ import annotations

import sys

from tools.conformance._peer import Peer, main

STARLETTE = Peer(
    "starlette",
    "Starlette",
    [
        "tests/test_websockets.py",
        "tests/middleware",
        "tests/test_routing.py",
        "tests/test_applications.py",
        "tests/test_exceptions.py",
        "tests/test_background.py",
    ],
    ["tests/middleware/test_opentelemetry.py"],  # it compares whole traces, which have our span too
    ["-k", "not trio"],  # our applications run on asyncio
)

if __name__ == "__main__":
    sys.exit(main(STARLETTE))
