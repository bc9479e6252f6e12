"""What importing ws_core does, and which names it has."""

from __future__ import annotations

import builtins
import subprocess
import sys


def test_nothing_happens_at_import() -> None:
    """Importing all of it starts no thread, adds no handler, and imports no sibling or driver."""
    program = (
        "import sys, threading, logging\n"
        "handlers = list(logging.root.handlers)\n"
        "import ws_core\n"
        "assert not {'asyncio', 'email', 'importlib.metadata', 'zoneinfo'} & set(sys.modules)\n"
        "import ws_core.backoff, ws_core.redaction, ws_core.testing\n"
        "assert threading.active_count() == 1\n"
        "assert logging.root.handlers == handlers\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not roots & {'ws_logging', 'ws_pool', 'loguru', 'uvloop', 'redis', 'pytest'}, roots\n"
        "import asyncio\n"
        "assert asyncio._get_running_loop() is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


def test_top_level_names() -> None:
    """The package has exactly the names that it lists, and no builtin is hidden by them."""
    import ws_core

    assert all(hasattr(ws_core, name) for name in ws_core.__all__)
    assert list(ws_core.__all__) == sorted(ws_core.__all__)
    assert not set(ws_core.__all__) & set(dir(builtins))
