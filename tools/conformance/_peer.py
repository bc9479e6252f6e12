"""Run a peer's own tests with our application in place of the peer's, and name what differs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tools.conformance._sources import ROOT, interpreter, source

__all__ = ("Peer", "run")

# What the tests of both import; benchmarks and release scripts are not about routes.
NEEDS = (
    "a2wsgi", "anyio[trio]", "dirty-equals", "email-validator", "flask<4", "httpx", "httpx2",
    "inline-snapshot", "itsdangerous", "jinja2", "opentelemetry-sdk", "orjson", "passlib",
    "pwdlib[argon2]", "pydantic-extra-types", "pydantic-settings", "pyjwt", "pytest>=9.0,<9.2",
    "pytest-timeout", "pytest-xdist", "python-multipart", "pyyaml", "sqlmodel", "strawberry-graphql<1",
    "typing-extensions", "ujson", "uvicorn",
)  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """A library whose tests are run."""

    name: str
    title: str
    tests: Sequence[str]
    left_out: Sequence[str] = ()
    options: Sequence[str] = ()

    @property
    def version(self) -> str:
        """The installed version."""
        return version(self.name)

    def failures(self, tests: Sequence[str], *options: str) -> tuple[set[str], str]:
        """Run tests, and return the ids of those that fail, with pytest's last line."""
        paths = [ROOT, ROOT / "packages/ws-core/src", ROOT / "packages/ws-web/src"]
        ignored = [f"--ignore={path}" for path in self.left_out]
        pytest = [python(), "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-o", "addopts="]
        ran = subprocess.run(
            [*pytest, "--tb=no", *self.options, *options, *ignored, *tests],
            cwd=source(self.name, self.version),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.findall(r"^(?:FAILED|ERROR) (tests\S+?)(?: - .*)?$", ran.stdout, re.MULTILINE)
        lines = ran.stdout.splitlines() or [ran.stderr]

        if ran.returncode not in (0, 1):  # no tests, or tests that could not be collected
            raise SystemExit("\n".join([*lines[-20:], ran.stderr]))

        return set(found), re.sub(r" in [\d.]+s.*", "", lines[-1]).strip("= ")


def python() -> str:
    """Return the interpreter of an environment that has what the tests need."""
    ours = [f"{name}=={version(name)}" for name in ("fastapi", "starlette")]
    return interpreter("fastapi", [*ours, *NEEDS])


def run(peer: Peer, arguments: Sequence[str]) -> int:
    """
    Run the tests that are named, all by default, and print the figures.

    Those that fail with ours are run on the plain library too: what fails there as well says nothing of us.

    Returns:
        How many differences have no reason in ``NAME_exceptions.json``, or a reason but no difference.
    """
    known_file = Path(__file__).with_name(f"{peer.name}_exceptions.json")
    known: dict[str, str] = json.loads(known_file.read_text())
    tests = arguments or peer.tests
    ours, summary = peer.failures(tests, "-p", f"tools.conformance.{peer.name}_plugin")
    plain = peer.failures(sorted(ours))[0] if ours else set()
    differing = ours - plain
    others = sorted(differing - set(known))
    stale = sorted(set(known) - differing) if not arguments else []
    print(f"figures:\n{peer.title} {peer.version}, its own tests on create_app: {summary}")
    print(f"  {len(plain)} of the failures are those of the plain library here too")

    for test in sorted(differing & set(known)):
        print(f"  known: {test}: {known[test]}")

    for test in others:
        print(f"  differs: {test}")

    for test in stale:
        print(f"  passes, though it is named as an exception: {test}")

    return len(others) + len(stale)


def main(peer: Peer) -> int:
    """Run with the arguments of the command line."""
    return min(run(peer, sys.argv[1:]), 1)
