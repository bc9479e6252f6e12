# ruff: noqa: T201 - it speaks over its output
"""A worker process for the tests: runs a ProcessHealthChecker and obeys lines on its input."""

from __future__ import annotations

import asyncio
import sys
import time

from ws_pool.health import ProcessHealthChecker


async def main(directory: str, name: str, workers: int) -> None:
    """Report the node's health for each line ``ask``; block, fail or end on command."""
    healthy = True

    async def check() -> bool:
        return healthy

    loop = asyncio.get_running_loop()

    async with ProcessHealthChecker(
        workers, 0.05, 1.0, name=name, directory=directory, checks=[check]
    ) as checker:
        print("ready", flush=True)

        while (line := await loop.run_in_executor(None, sys.stdin.readline)).strip() not in {"", "end"}:
            if line.strip() == "block":
                time.sleep(60)  # noqa: ASYNC251 - blocking the loop is the point
            elif line.strip() == "fail":
                healthy = False
                print("ok", flush=True)
            else:
                print(checker.detail or "healthy", flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
