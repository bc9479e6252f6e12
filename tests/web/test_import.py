"""Importing does nothing, and the public names are the ones promised."""

from __future__ import annotations

import subprocess
import sys

import ws_web

CONTRACT = [
    "create_app",
    "settings",
    "Settings",
    "Response",
    "ErrResponse",
    "APIRouter",
    "APIRoute",
    "Request",
    "RequestIDMiddleware",
    "get_request_id",
    "WsChatConnectionManager",
    "MessageHandler",
    "http_exception_handler",
    "request_validation_exception_handler",
]


class TestImport:
    """`import ws_web`."""

    def test_public_names(self) -> None:
        """The contract's names are exported, and everything exported is listed."""
        assert set(CONTRACT) <= set(ws_web.__all__)
        assert all(hasattr(ws_web, name) for name in ws_web.__all__)

    def test_nothing_happens(self) -> None:
        """No server, no sibling, no thread, no setting is read."""
        code = (
            "import threading, sys, os; os.environ['WS_LISTEN_PORT'] = 'broken'; import ws_web; "
            "assert threading.active_count() == 1; "
            "unwanted = {'uvicorn', 'uvloop', 'ws_pool', 'ws_logging', 'ws_tasks', 'ws_redislock'}; "
            "assert not unwanted & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
