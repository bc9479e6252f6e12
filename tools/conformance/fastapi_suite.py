"""FastAPI's own tests, with `create_app` in FastAPI's place.

    python -m tools.conformance.fastapi_suite [TEST FILES]

Downloads the source distribution of the installed version into ``.dev/``, with an environment that has
what its tests need. They run twice: on plain FastAPI, and with the plugin beside this file. What passes on
the first and fails on the second is named in ``fastapi_exceptions.json`` with its reason, or is a failure;
so is a named exception that passes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KNOWN = Path(__file__).with_name("fastapi_exceptions.json")
PLACE = ROOT / ".dev" / "conformance"
# What the chosen tests import; telemetry, benchmarks and release scripts are not about routes.
NEEDS = (
    "a2wsgi", "anyio[trio]", "dirty-equals", "email-validator", "flask<4", "httpx", "httpx2",
    "inline-snapshot", "itsdangerous", "jinja2", "opentelemetry-sdk", "orjson", "passlib", "pwdlib[argon2]",
    "pydantic-extra-types", "pydantic-settings", "pyjwt", "pytest>=9.0,<9.2", "pytest-timeout",
    "pytest-xdist", "python-multipart", "pyyaml", "sqlmodel", "strawberry-graphql<1", "ujson", "uvicorn",
)  # fmt: skip
LEFT_OUT = (
    "benchmarks", "memory_benchmarks", "test_fastapi_cli.py", "test_prepare_release.py", "test_telemetry",
    "test_tutorial/test_opentelemetry",
)  # fmt: skip


def source() -> Path:
    """Return the unpacked source distribution of the installed FastAPI."""
    wanted = version("fastapi")
    place = PLACE / f"fastapi-{wanted}"

    if not place.is_dir():
        PLACE.mkdir(parents=True, exist_ok=True)
        command = [python(), "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "fastapi"]
        subprocess.run([*command, "-d", str(PLACE), f"fastapi=={wanted}"], check=True)

        with tarfile.open(PLACE / f"fastapi-{wanted}.tar.gz") as archive:
            archive.extractall(PLACE, filter="data")

    return place


def python() -> str:
    """Return the interpreter of an environment that has what the tests need."""
    place = PLACE / "fastapi-env"
    interpreter = place / "bin" / "python"

    if not (place / "ready").exists():
        venv.create(place, with_pip=True, clear=True)
        wanted = [f"fastapi=={version('fastapi')}", f"starlette=={version('starlette')}"]
        subprocess.run([interpreter, "-m", "pip", "install", "-q", *wanted, *NEEDS], check=True)
        (place / "ready").touch()

    return str(interpreter)


def failures(tests: list[str], *options: str) -> tuple[set[str], str]:
    """Run tests, and return the ids of those that fail, with pytest's last line."""
    paths = [ROOT, ROOT / "packages/ws-core/src", ROOT / "packages/ws-web/src"]
    ignored = [f"--ignore=tests/{name}" for name in LEFT_OUT]
    pytest = [python(), "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-o", "addopts="]
    ran = subprocess.run(
        [*pytest, "--tb=no", *options, *ignored, *tests],
        cwd=source(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(?:FAILED|ERROR) (tests\S+?)(?: - .*)?$", ran.stdout, re.MULTILINE)
    return set(found), (ran.stdout.splitlines() or [ran.stderr])[-1]


def main(arguments: list[str]) -> int:
    """Run the tests that are named, all by default; return how many differences have no reason."""
    tests = arguments or ["tests"]
    plain, plain_line = failures(tests)
    ours, our_line = failures(tests, "-p", "tools.conformance.fastapi_plugin")
    known: dict[str, str] = json.loads(KNOWN.read_text())
    differing = ours - plain
    others = sorted(differing - set(known))
    stale = sorted(set(known) - differing) if not arguments else []
    print(f"FastAPI {version('fastapi')}, plain: {plain_line}\ncreate_app (DEBUG on):  {our_line}")

    for test in sorted(differing & set(known)):
        print(f"  known: {test}: {known[test]}")

    for test in others:
        print(f"  differs: {test}")

    for test in stale:
        print(f"  passes, though it is named as an exception: {test}")

    return len(others) + len(stale)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
