"""Checks that read the tree themselves: file sizes, exports, private names, stray words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from tools.checks._model import IMPORT_NAMES, PACKAGES, ROOT, Check, Failed, command

__all__ = (
    "extras_missing",
    "misplaced_exports",
    "module_problems",
    "oversized",
    "stray_words",
    "tracked_files",
    "tree_checks",
)

LOOK_AGAIN = 500
TOO_LONG = 600

PUBLIC_MODULES: Mapping[str, frozenset[str]] = {
    "ws_core": frozenset(
        {
            "errors", "metaclass", "component", "backoff", "redaction", "metrics",
            "inspection", "sources", "otel", "testing", "context",
        }
    ),
    "ws_logging": frozenset(
        {"register", "intercept", "sink", "rotation", "context", "redact", "otel", "errors"}
    ),
    "ws_tasks": frozenset(
        {
            "interface", "tasks", "scheduler", "triggers", "circular", "engine", "taskiq", "ntp", "errors",
            "observe", "otel", "stores",
        }
    ),
    "ws_redislock": frozenset(
        {
            "mutex", "semaphore", "rwlock", "limiter", "leader", "errors",
            "admin", "claims", "fencing", "multi", "observe", "otel", "sync",
        }
    ),
    "ws_pool": frozenset(
        {
            "base", "context", "pool", "mysql", "postgres", "sqlite", "redis", "mongo", "http", "es",
            "health", "events", "cache", "errors", "otel", "testing",
        }
    ),
    "ws_web": frozenset(
        {
            "app", "conf", "global_setting", "request", "response", "exception_handlers", "middlewares", "ws",
            "health", "ops", "server", "testing", "errors", "dependencies", "idempotency", "caching", "pages",
            "metrics",
        }
    ),
}  # fmt: skip
"""Names that may stand without a leading underscore; the facade's are the original's and are tested there."""

# Assembled from pieces, so that this file does not hold what it looks for.
FORBIDDEN_WORDS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\bpypi\." + r"org\b",
        r"\bfiles\.pythonhosted\." + r"org\b",
        r"\bregistry\.npmjs\." + r"org\b",
        r"\bdeb\.debian\." + r"org\b",
        r"\bproxy\.golang\." + r"org\b",
        r"(?<![\w.])/work" + r"/",
        r"/tmp" + r"/boot",  # noqa: S108 - looked for, not used
    )
)

BINARY = {".png", ".ico", ".woff", ".woff2", ".gz", ".jpg"}
CODE = {".py", ".js", ".lua", ".html", ".css"}


def tree_checks() -> list[Check]:
    """Return the checks of this module."""
    return [
        Check("size", check_sizes),
        Check("exports", check_exports, cost=6),
        Check("posix", check_posix, cost=8),
        Check("modules", check_modules),
        Check("words", check_words),
        Check("extras", check_extras),
    ]


def tracked_files() -> list[Path]:
    """List what belongs to the project: tracked files and new ones that are not ignored."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]

    try:
        listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return sorted(path for path in ROOT.rglob("*") if path.is_file() and not _hidden(path))

    return sorted({path for name in listed.split("\0") if name and (path := ROOT / name).is_file()})


def _hidden(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(part in {".git", ".venv", ".dev", "node_modules", "site", "dist"} for part in parts)


def check_sizes() -> str | None:
    """No file of code grows past what one can hold in mind."""
    code = [path for path in tracked_files() if path.suffix in CODE and not _vendored(path)]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in code}
    long, too_long = oversized(lengths)

    if too_long:
        raise Failed("\n".join(f"{_short(p)}: {n} lines, {TOO_LONG} at most" for p, n in too_long))

    if not long:
        return None

    return f"look again at {', '.join(f'{_short(path)} ({length})' for path, length in long)}"


def oversized(lengths: Mapping[Path, int]) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Split files into those to look at again, and those that are too long; the longest first."""
    ordered = sorted(lengths.items(), key=lambda item: -item[1])
    too_long = [item for item in ordered if item[1] > TOO_LONG]
    return [item for item in ordered if LOOK_AGAIN < item[1] <= TOO_LONG], too_long


def _vendored(path: Path) -> bool:
    return "vendor" in path.parts or ".min." in path.name


def check_exports() -> str | None:
    """Every public module lists its names, they exist, and classes show where to import them from."""
    problems = [line for source in _sources() for path in source.rglob("*.py") for line in _exports_of(path)]

    for imported in filter(None, IMPORT_NAMES.values()):
        problems += command([sys.executable, "-W", "error", "-c", _PROBE, imported]).splitlines()

    if problems:
        raise Failed("\n".join(problems))

    return None


_PROBE = """
import importlib, inspect, sys

name = sys.argv[1]
module = importlib.import_module(name)

for export in getattr(module, "__all__", ()):
    try:
        value = getattr(module, export)
    except AttributeError:
        print(f"{name}.__all__ names {export}, which does not exist")
        continue

    if inspect.isclass(value):
        home = value.__module__

        if home.partition(".")[0] == name and any(part.startswith("_") for part in home.split(".")):
            print(f"{name}.{export}: its __module__ is {home}, which is private")
"""


def _sources() -> Iterator[Path]:
    for name, imported in IMPORT_NAMES.items():
        if imported is not None:
            yield PACKAGES / name / "src" / imported


def _exports_of(path: Path) -> Iterator[str]:
    private = any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(PACKAGES).parts)

    if private or "scaffold" in path.parts or path.name == "__main__.py":
        return

    for problem in misplaced_exports(path.read_text(encoding="utf-8")):
        yield f"{_short(path)}: {problem}"


def misplaced_exports(source: str) -> list[str]:
    """
    Check the ``__all__`` of a public module.

    Args:
        source: The module's text.

    Returns:
        What is wrong with it.

    Example:
        >>> misplaced_exports("__all__ = ['b', 'a']")
        ['__all__ is a list: write a tuple']
        >>> misplaced_exports("x = 1")
        ['there is no __all__']
    """
    body = ast.parse(source).body
    values = [node.value for node in body if _is_export(node)]

    if not values:
        statements = [node for node in body if not _is_text(node)]
        return ["there is no __all__"] if statements else []

    value = values[0]

    if not isinstance(value, ast.Tuple):
        kind = type(value).__name__.lower()
        return [f"__all__ is a {kind}: write a tuple"]

    names = [str(item.value) for item in value.elts if isinstance(item, ast.Constant)]
    problems = []

    if len(set(names)) != len(names):
        problems.append("__all__ names something twice")

    problems += [f"__all__ names the private {name}" for name in names if re.match(r"_(?!_)", name)]
    return problems


def _is_export(node: ast.stmt) -> TypeGuard[ast.Assign | ast.AnnAssign]:
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    else:
        return False

    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def check_modules() -> str | None:
    """Public modules are those of the design; everything else starts with an underscore."""
    problems = []

    for package, allowed in PUBLIC_MODULES.items():
        distribution = next(name for name, imported in IMPORT_NAMES.items() if imported == package)
        found = [entry.name for entry in (PACKAGES / distribution / "src" / package).iterdir()]
        problems += [f"{package}: {problem}" for problem in module_problems(found, allowed)]

    if problems:
        raise Failed("\n".join(problems))

    return None


def module_problems(entries: Sequence[str], allowed: frozenset[str]) -> list[str]:
    """
    Name the modules that are public without being in the design.

    Example:
        >>> module_problems(["__init__.py", "_x.py", "pool.py", "utils.py"], frozenset({"pool"}))
        ['utils is public: start its name with an underscore']
    """
    names = [entry.removesuffix(".py") for entry in entries if entry.endswith(".py") or "." not in entry]
    public = sorted(name for name in names if not name.startswith("_"))
    return [f"{name} is public: start its name with an underscore" for name in public if name not in allowed]


def check_words() -> str | None:
    """Nothing in the tree names the host of a registry or a path of one machine."""
    problems = []

    for path in tracked_files():
        if path.suffix not in BINARY:
            text = path.read_text(encoding="utf-8", errors="replace")
            problems += [f"{_short(path)}:{line}: {word}" for line, word in stray_words(text)]

    if problems:
        raise Failed("\n".join(problems))

    return None


def stray_words(text: str) -> list[tuple[int, str]]:
    """Find forbidden words with their line numbers."""
    return [
        (number, found[0])
        for number, line in enumerate(text.splitlines(), 1)
        for pattern in FORBIDDEN_WORDS
        if (found := pattern.search(line))
    ]


def check_extras() -> str | None:
    """Every extra is installed where its distribution is tested alone, so that it is tested at all."""
    hatch = tomllib.loads((ROOT / "hatch.toml").read_text(encoding="utf-8"))
    problems = []

    for name in IMPORT_NAMES:
        project = tomllib.loads((PACKAGES / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = set(project.get("optional-dependencies", {}))
        environment = f"isolated-{name.removeprefix('ws-')}"

        if extras:
            missing = extras_missing(extras, hatch["envs"][environment], f"packages/{name}")
            problems += [
                f"hatch.toml: {environment} lacks the extra {extra!r} of {name}" for extra in missing
            ]

    if problems:
        raise Failed("\n".join(problems))

    return None


def check_posix() -> str | None:
    """Everything imports without POSIX, and one process can log: for development on Windows."""
    libraries = [
        name for name in IMPORT_NAMES.values() if name and name != "wintersweet"
    ]  # its demo is POSIX's
    command([sys.executable, "-m", "tools.checks._without_posix", *libraries], timeout=120)
    return None


def extras_missing(extras: set[str], environment: Mapping[str, object], path: str) -> list[str]:
    """List the extras of a distribution that an environment does not install."""
    workspace = environment.get("workspace")
    members = workspace.get("members", []) if isinstance(workspace, dict) else []
    installed = {
        extra for member in members if member["path"] == path for extra in member.get("features", ())
    }
    return sorted(extras - installed)


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT))
