"""`install_uvloop` with uvloop itself, which the facade does not require."""

from __future__ import annotations

import subprocess
import sys


def test_asyncio_run_uses_uvloop() -> None:
    """After the call, `asyncio.run` runs uvloop's loop, and nothing warns."""
    program = (
        "import asyncio\n"
        "from wintersweet.utils.base import install_uvloop\n"
        "assert install_uvloop() is True\n"
        "async def main():\n"
        "    print(type(asyncio.get_running_loop()).__module__)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=False, capture_output=True, text=True
    )

    assert (done.stdout.strip(), done.stderr) == ("uvloop", "")
