"""Run behaviours by name, each in a process of its own; runs on Python 3.8 and under 1.1.4 too.

Names come in on the standard input, one a line; results leave on the standard output, one JSON a line.
"""

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import sys
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import behaviours

LIMIT = 30.0
"""Seconds that one behaviour may take."""

SLOW = (
    "fastapi",
    "aiohttp",
    "loguru",
    "aiomysql",
    "sqlalchemy.ext.asyncio",
    "pymongo",
    "redis.asyncio",
    "ws_pool.mysql",
    "ws_pool.redis",
    "ws_pool.mongo",
    "ws_pool.http",
    "ws_pool.cache",
    "ws_pool.events",
    "ws_redislock",
    "ws_tasks",
    "ws_logging",
    "ws_web",
)
"""Modules that the behaviours use, directly or not."""


def main():
    """Run what the standard input names."""
    # What is slow to import is imported once, but never wintersweet; each child is a copy of this process.
    for module in SLOW:
        with contextlib.suppress(ImportError):  # 1.1.4 has not all of them
            importlib.import_module(module)

    for line in sys.stdin:
        print(json.dumps(one(line.strip())), flush=True)


def one(name):
    """Return what a behaviour returned, or the error it ended with."""
    reader, writer = os.pipe()
    child = os.fork()

    if child == 0:
        os.close(reader)
        os.dup2(2, 1)  # what is printed must not get between the results
        try:
            result = json.loads(json.dumps({"result": run(behaviours.BEHAVIOURS[name])}))
        except BaseException as error:
            result = {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
        with os.fdopen(writer, "w") as pipe:
            pipe.write(json.dumps(result))
        os._exit(0)

    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"error": "Died", "text": "the process ended without a result"}


def run(function):
    """Call a function of either kind."""
    if not inspect.iscoroutinefunction(function):
        return function()

    async def bounded():
        return await asyncio.wait_for(function(), LIMIT)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(bounded())


if __name__ == "__main__":
    main()
