"""Checks of what is published: wheels and sdists, alone in empty environments."""

from __future__ import annotations

import email
import json
import re
import shutil
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tools import dev
from tools.checks._model import IMPORT_NAMES, PACKAGES, ROOT, Check, Failed, command, script_path
from tools.servers import RedisServer

__all__ = ("missing_files", "sibling_problems", "wheel_checks")

BUILT = ROOT / ".dev" / "wheels"
ALONE = ROOT / ".dev" / "alone"

# A lock library is chosen because it is small; what redis itself needs depends on its version.
EXACT: Mapping[str, frozenset[str]] = {
    "ws-core": frozenset({"ws-core"}),
    "ws-redislock": frozenset({"ws-redislock", "ws-core", "redis"}),
    "ws-pool": frozenset({"ws-pool", "ws-core"}),
}


def wheel_checks() -> list[Check]:
    """Return the checks of this module."""
    return [
        Check("wheels:build", build, cost=100),
        Check("wheels:contents", check_contents, needs=("wheels:build",)),
        Check("wheels:metadata", check_metadata, cost=8, needs=("wheels:build",)),
        *(
            Check(f"alone:{name}", partial(check_alone, name), cost=6, needs=("wheels:build",))
            for name in IMPORT_NAMES
        ),
    ]


def build() -> str | None:
    """Build every sdist, and every wheel from its sdist."""
    shutil.rmtree(BUILT, ignore_errors=True)
    uv = dev.install_uv()

    def build_one(name: str) -> None:
        command([uv, "build", "--quiet", "--out-dir", BUILT, PACKAGES / name])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build_one, IMPORT_NAMES))

    (BUILT / ".gitignore").unlink(missing_ok=True)
    return f"{len(list(BUILT.glob('*.whl')))} wheels, {len(list(BUILT.glob('*.tar.gz')))} sdists"


def _wheel(name: str) -> Path:
    """Return the one wheel of a distribution."""
    (found,) = BUILT.glob(f"{name.replace('-', '_')}-*.whl")
    return found


def check_contents() -> str | None:
    """What has to be in a wheel and an sdist is in them, and siblings are pinned to ranges."""
    versions = {name: _project(name)["version"] for name in IMPORT_NAMES}
    problems: list[str] = []

    for name, imported in IMPORT_NAMES.items():
        wheel = _wheel(name)

        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            (described,) = [entry for entry in names if entry.endswith(".dist-info/METADATA")]
            metadata = email.message_from_bytes(archive.read(described))

        with tarfile.open(wheel.parent / f"{name.replace('-', '_')}-{versions[name]}.tar.gz") as archive:
            source = archive.getnames()

        wanted = [".dist-info/licenses/LICENSE"] + ([f"{imported}/py.typed"] if imported else [])
        problems += [f"{wheel.name} lacks {missing}" for missing in missing_files(names, wanted)]
        wanted = ["README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"]
        problems += [f"sdist of {name} lacks {missing}" for missing in missing_files(source, wanted)]

        if not str(metadata.get_payload()).strip():
            problems.append(f"{wheel.name} has no description: README.md is empty")

        pins = metadata.get_all("Requires-Dist") or []
        problems += [f"{name}: {problem}" for problem in sibling_problems(pins, versions)]

    if problems:
        raise Failed("\n".join(problems))

    return None


def _project(name: str) -> dict[str, str]:
    data = tomllib.loads((PACKAGES / name / "pyproject.toml").read_text(encoding="utf-8"))
    project: dict[str, str] = data["project"]
    return project


def missing_files(names: Iterable[str], wanted: Sequence[str]) -> list[str]:
    """
    List which endings no name has.

    Example:
        >>> missing_files(["a-1.dist-info/licenses/LICENSE"], ["LICENSE", "py.typed"])
        ['py.typed']
    """
    listed = list(names)
    return [ending for ending in wanted if not any(name.endswith(ending) for name in listed)]


def sibling_problems(requirements: Sequence[str], versions: Mapping[str, str]) -> list[str]:
    """
    Check that siblings are required by a range that their present version lies in.

    Args:
        requirements: As in the metadata.
        versions: Sibling → present version.

    Returns:
        What is wrong.

    Example:
        >>> sibling_problems(["ws-core<0.2,>=0.1", "redis>=7"], {"ws-core": "0.1.3"})
        []
        >>> sibling_problems(["ws-core==0.1.0"], {"ws-core": "0.1.0"})
        ["'ws-core==0.1.0' must be a range: >=a,<b"]
    """
    problems = []

    for requirement in requirements:
        name = re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0]

        if name not in versions:
            continue

        bounds = dict(re.findall(r"(>=|<)(?!=)\s*([\d.]+)", requirement))

        if set(bounds) != {">=", "<"}:
            if ";" not in requirement or "extra" not in requirement:  # an extra may name its own distribution
                problems.append(f"{requirement!r} must be a range: >=a,<b")
        elif not _numbers(bounds[">="]) <= _numbers(versions[name]) < _numbers(bounds["<"]):
            problems.append(f"{requirement!r} leaves out the present {name} {versions[name]}")

    return problems


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def check_metadata() -> str | None:
    """Twine and check-wheel-contents have nothing to say."""
    python = dev.hatch_environment("release")
    tools = script_path(python)
    command([python, "-m", "twine", "check", "--strict", *sorted(BUILT.iterdir())], environment=tools)
    libraries = [_wheel(name) for name, imported in IMPORT_NAMES.items() if imported is not None]
    command([python.parent / "check-wheel-contents", *libraries], environment=tools)
    # The meta-package is empty on purpose.
    command([python.parent / "check-wheel-contents", "--ignore", "W007,W008", _wheel("wintersweet")])
    return None


def check_alone(name: str) -> str | None:
    """A wheel in an empty environment brings what it declares, imports, and does what its README shows."""
    uv = dev.install_uv()
    environment = ALONE / name
    command([uv, "venv", "--quiet", "--clear", "--python", dev.base_python(), environment])
    python = dev.executable(environment, "python")
    # The same version is built again and again here: its wheels must not come from a cache.
    fresh = [word for sibling in IMPORT_NAMES for word in ("--refresh-package", sibling)]
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--find-links", str(BUILT)]
    command([*install, *fresh, str(_wheel(name))])
    listed = json.loads(command([uv, "pip", "list", "--quiet", "--python", python, "--format", "json"]))
    installed = {entry["name"] for entry in listed}
    expected = EXACT.get(name)

    if expected is not None and installed - expected != _needs_of("redis", python) - expected:
        raise Failed(
            f"{name} brings {sorted(installed)}: expected {sorted(expected)} and what redis itself needs"
        )

    _smoke(name, python)

    if name == "ws-redislock":
        _run_readme(name, python)
    elif name == "wintersweet":
        _run_demo(python)

    return f"{len(installed)} distributions"


def _needs_of(name: str, python: Path) -> set[str]:
    """Ask an environment what an installed distribution itself requires there."""
    code = (
        "import importlib.metadata as m, json, re, sys\n"
        "try: needs = m.requires(sys.argv[1]) or []\n"
        "except m.PackageNotFoundError: needs = []\n"
        "here = {d.name.lower().replace('_', '-') for d in m.distributions()}\n"
        "names = {re.split(r'[^A-Za-z0-9._-]', n)[0].lower() for n in needs if 'extra ==' not in n}\n"
        "print(json.dumps(sorted(names & here)))"
    )
    return set(json.loads(command([python, "-c", code, name])))


def _smoke(name: str, python: Path) -> None:
    command([python, "-I", "-W", "error", "-c", _PROBE, IMPORT_NAMES[name] or "wintersweet"])


# Every exported name is there, or says what to install.
_PROBE = """
import importlib, sys

module = importlib.import_module(sys.argv[1])
assert ".dev" in module.__file__, f"{module.__file__} is not the wheel's"

for name in module.__all__:
    try:
        getattr(module, name)
    except Exception as error:
        if "pip install" not in str(error):
            raise
"""


def _run_readme(name: str, python: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.docs._examples import REDIS, markdown_examples, run_example\n"
        "examples = list(markdown_examples(Path(sys.argv[1])))\n"
        "assert examples, 'the README has no example'\n"
        "for example in examples: run_example(example, {REDIS: sys.argv[2]})\n"
    )

    with RedisServer() as server:
        readme = PACKAGES / name / "README.md"
        words = [str(python), "-W", "error", "-c", code, str(readme), server.url]
        command(words, environment={"PYTHONPATH": str(ROOT)})


def _run_demo(python: Path) -> None:
    """Sell from the installed wheels: `pip install wintersweet && wintersweet demo`."""
    words = ["demo", "--workers", "2", "--load", "300", "--stock", "50", "--exit"]
    output = command([dev.executable(python.parent.parent, "wintersweet"), *words])
    lines = [line for line in output.splitlines() if line.startswith("{")]

    if not lines:
        raise Failed(f"{output}\nthe demo printed no sum")

    told = json.loads(lines[-1])

    if (told["sold"], told["oversold"], told["errors"]) != (50, 0, 0):
        raise Failed(f"{output}\n50 pieces for 300 buyers, and this came of it")
