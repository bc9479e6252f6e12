"""redis-py's own tests of its asyncio client, with `RedisPool.redis` in its place.

    python -m tools.conformance.redis_suite [TEST FILES]

Downloads the source distribution of the installed version into ``.dev/``, with an environment that has
what its tests need. They run with the plugin beside this file, once for each protocol version and each on a
server of its own; what fails runs again on redis-py's own client. What fails on ours alone is named in
``redis_exceptions.json`` with its reason, or is a failure; so is a named exception that passes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tools.conformance._sources import ROOT, interpreter, source
from tools.servers import RedisServer

KNOWN = Path(__file__).with_name("redis_exceptions.json")
NEEDS = ("cachetools", "numpy", "packaging", "pytest>=9,<9.3", "pytest-asyncio", "pytest-timeout")
CHOSEN = tuple(
    f"tests/test_asyncio/test_{name}.py"
    for name in (
        *("client", "commands", "encoding", "keyspace_notifications", "lock", "monitor", "pipeline"),
        *("pubsub", "scripting"),
    )
)
PROTOCOLS = (3, 2)


@dataclass(frozen=True)
class Run:
    """What one run of the tests has shown."""

    protocol: int
    ours: set[str]  # tests that fail with our client
    plain: set[str]  # those of them that fail with redis-py's own as well
    line: str  # pytest's last one


def python() -> str:
    """Return the interpreter of an environment that has what the tests need."""
    return interpreter("redis", [*(f"{name}=={version(name)}" for name in ("redis", "hiredis")), *NEEDS])


def failures(url: str, protocol: int, client: str, tests: list[str]) -> tuple[set[str], str]:
    """Run tests with a client, ours or plain; return the ids of those that fail, with pytest's last line."""
    paths = [ROOT, ROOT / "packages/ws-core/src", ROOT / "packages/ws-pool/src"]
    pytest = [python(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "--tb=no"]
    ran = subprocess.run(
        [
            *(*pytest, "-p", "tools.conformance.redis_plugin", "--disable-warnings"),
            *(f"--redis-url={url}", f"--protocol={protocol}", *tests),
        ],
        cwd=source("redis", version("redis")),
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "WS_CONFORMANCE_CLIENT": client,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(?:FAILED|ERROR) (tests\S+?)(?: - .*)?$", ran.stdout, re.MULTILINE)

    if ran.returncode not in {0, 1}:  # neither "all passed" nor "some failed": nothing was learnt
        raise RuntimeError(f"pytest ended with {ran.returncode}:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")

    line = re.sub(r", \d+ warnings?| in [\d.]+s.*", "", ran.stdout.splitlines()[-1])  # they differ each time
    return set(found), line.strip("= ")


def run(protocol: int, tests: list[str]) -> Run:
    """Run the tests on a server of their own."""
    with RedisServer(config={"enable-debug-command": "yes"}) as server:
        ours, line = failures(server.url, protocol, "ours", tests)
        plain = failures(server.url, protocol, "plain", sorted(ours))[0] if ours else set()

    return Run(protocol, ours, plain & ours, line)


def main(arguments: list[str]) -> int:
    """Run the tests that are named, all by default; return how many differences have no reason."""
    tests = arguments or list(CHOSEN)
    known: dict[str, str] = json.loads(KNOWN.read_text())

    with ThreadPoolExecutor(len(PROTOCOLS)) as threads:
        runs = list(threads.map(lambda protocol: run(protocol, tests), PROTOCOLS))

    for one in runs:
        also = f", {len(one.plain)} of which fail on redis-py's own client, too" if one.plain else ""
        print(
            f"redis-py {version('redis')}, its tests on RedisPool.redis, RESP{one.protocol}: {one.line}{also}"
        )

    differing = set().union(*(one.ours - one.plain for one in runs))
    others = sorted(differing - set(known))
    stale = sorted(set(known) - differing) if not arguments else []

    for test in sorted(differing & set(known)):
        print(f"  known: {test}: {known[test]}")

    for test in others:
        print(f"  differs: {test}")

    for test in stale:
        print(f"  passes, though it is named as an exception: {test}")

    return len(others) + len(stale)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
