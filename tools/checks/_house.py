"""Checks of words and walls: docstrings, the glossary, commits, circles, exceptions of the linter."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.checks._model import IMPORT_NAMES, PACKAGES, ROOT, Check, Failed
from tools.checks._tree import tracked_files

__all__ = (
    "circles",
    "exceptions",
    "foldable",
    "forms",
    "house_checks",
    "import_graph",
    "long_subjects",
    "private_forms",
    "stray_english",
    "stray_names",
)

SUBJECT = 72
"""Characters of a commit's subject, at most."""
FIRST_COMMIT = "e4c32a9"
"""Commits after this one are checked."""

EXCEPTIONS: Mapping[str, int] = {"packages": 160, "tests": 64, "tools": 34}
"""Exceptions of the linter in a folder's source, at most."""

STRAY_NAMES: Mapping[str, str] = {
    "borrow": "acquire",
    "borrowed": "pooled",
    "greet": "handshake",
    "greeting": "handshake",
    "lane": "connection",
    "lanes": "connections",
    "ledger": "pool state",
    "lend": "acquire",
    "lending": "checkout",
    "lent": "acquired, dedicated",
    "patience": "backoff, timeout",
    "upkeep": "maintenance",
}
"""A word inside of a name → what the glossary of CONTRIBUTING.md calls it."""

STRAY_ENGLISH: Mapping[str, str] = {
    r"(?<![Tt]here )\b(?:is|are|was|were) no (?!longer\b|more\b)": "is not a",
    r"\btells?\b|\btold\b": "report, notify, raise, return",
    r"\bhears?\b|\bheard\b": "receive, notice",
    r"\bgives\b(?! up\b| way\b)": "return, pass",
    r"\basks\b(?! for\b)": "send, query, call",
    r'^\w?"""(?:Give|Tell|Hear)s?\b(?! (?:back|up)\b)': "return, yield, report, receive",
    r"\bone's own\b": "its own, your own",
    r'(?:^|[.:;] |^\w?""")Who(?:ever)? (?!.*\?)': "name the subject",
    r"\bpatience\b": "timeout, backoff",
    r"\bgreet(?:s|ed|ings?)?\b": "handshake",
    r"\blanes?\b": "connection",
    r"\bledgers?\b": "pool state",
    r"\blow[- ]water\b": "exhausted",
    r"\blen(?:d|ds|ding|t)\b": "acquire, dedicated",
    r"\bborrow(?:s|ed|ing)?\b": "acquire",
}
"""A pattern in docstrings, messages and pages → what to write instead."""

EXEMPT = frozenset(
    {
        "tools/checks/_house.py",  # it holds what it looks for
        "tests/tools/test_house.py",
        "CONTRIBUTING.md",  # its glossary names the words that are not used
    }
)
GREETS = ("scaffold", "tests/all/", "docs/how-to", "docs/tutorial", "README")
"""Places of the example that greets a user: there the word means what it says."""

SMALL = 60
"""Lines below which a private file with one importer is a part of that importer."""

SMALL_FILES: Mapping[str, str] = {
    "ws_pool._core.deadlines": "a part of the pool's decisions, which know no I/O",
    "ws_pool._events.tracing": "its importer is a face, which holds no code",
    "ws_pool._redis.cluster.backoff": "the cluster's client is full",
    "ws_pool._sql.compile.counting": "a part of the compiler",
    "ws_pool._sql.iteration": "the SQL client is full",
    "ws_pool._sql.mysql.dialect": "each database has one",
    "ws_pool._sql.sqlite.dialect": "each database has one",
    "ws_pool._sql.task_lock": "a lock, which knows no sessions",
    "ws_redislock._redis.spare_connection": "for event loops only: threads have another",
    "ws_tasks._due_runs": "pure, while the timer around it is not",
    "ws_web._worker": "a program",
    "ws_web._ws_handler": "the WebSocket manager is full",
    "ws_web.ops._page": "all of the ops page is in this folder",
}
"""Small files that stand for themselves → why."""

_FORM = re.compile(r"^\s*(?:Args|Arguments|Returns|Raises|Yields|Attributes):\s*$", re.MULTILINE)


def house_checks() -> list[Check]:
    """Return the checks of this module."""
    return [
        Check("forms", check_forms),
        Check("english", check_english, cost=3),
        Check("commits", check_commits),
        Check("circles", check_circles, cost=2),
        Check("exceptions", check_exceptions),
        Check("small", check_small_files, cost=2),
    ]


def check_forms() -> str | None:
    """Docstrings of private modules are prose: Args, Returns and Raises are for what users see."""
    problems = []

    for source in _sources():
        exported = exported_names(source)

        for path in sorted(source.rglob("*.py")):
            if _is_private(path.relative_to(source)):
                text = path.read_text(encoding="utf-8")
                problems += [f"{_short(path)}:{line}: {name}" for line, name in private_forms(text, exported)]

    if problems:
        raise Failed("\n".join([f"{len(problems)} forms in private modules; write one line:", *problems]))

    return None


def exported_names(source: Path) -> frozenset[str]:
    """Return the names in ``__all__`` of the public modules of a package."""
    names: set[str] = set()

    for path in source.rglob("*.py"):
        if not _is_private(path.relative_to(source)):
            found = re.search(
                r"^__all__ = \((.*?)\)", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
            )
            names |= set(re.findall(r'"(\w+)"', found[1])) if found else set()

    return frozenset(names)


def private_forms(source: str, exported: frozenset[str]) -> list[tuple[int, str]]:
    """
    Find docstrings with an Args, Returns or Raises section.

    Args:
        source: The text of a private module.
        exported: Names that a public module hands on; their docstrings, and those of their public
            members, are for users.

    Returns:
        Line and name of each definition whose docstring has one.
    """
    return list(forms(ast.parse(source), exported))


def forms(node: ast.AST, exported: frozenset[str], prefix: str = "") -> Iterator[tuple[int, str]]:
    """Walk through the definitions of a module, leaving out what is exported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not isinstance(child, ast.expr):
                yield from forms(child, exported, prefix)

            continue

        if not prefix and child.name in exported:
            # A member of an exported class that starts with an underscore is private all the same.
            yield from (found for found in forms(child, frozenset(), f"{child.name}.") if "._" in found[1])
            continue

        if _FORM.search(ast.get_docstring(child, clean=False) or ""):
            yield child.lineno, f"{prefix}{child.name}"

        yield from forms(child, frozenset(), f"{prefix}{child.name}.")


def check_english() -> str | None:
    """Names, docstrings, messages and pages speak the words of the glossary, in plain English."""
    problems = []

    for path in tracked_files():
        name = _short(path)

        if name in EXEMPT or path.name == "CHANGELOG.md" or "benchmarks" in path.parts:
            continue

        greets = any(place in name for place in GREETS)

        if path.suffix == ".py":
            text = path.read_text(encoding="utf-8")
            problems += [f"{name}:{found}" for found in stray_names(text)]
            problems += [f"{name}:{found}" for found in stray_english(_texts(text), greets=greets)]
        elif path.suffix == ".md":
            problems += [f"{name}:{found}" for found in stray_english(_prose(path), greets=greets)]

    if problems:
        raise Failed("\n".join([f"{len(problems)} strays; see the glossary in CONTRIBUTING.md:", *problems]))

    return None


def stray_names(source: str) -> list[str]:
    """
    Find words in names that the glossary has another word for.

    Example:
        >>> stray_names("lane_count = 1")
        ['1: lane_count: connection']
    """
    found = []

    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", token.string)
            stray = next((word for word in map(str.lower, words) if word in STRAY_NAMES), None)

            if stray is not None:
                found.append(f"{token.start[0]}: {token.string}: {STRAY_NAMES[stray]}")

    return list(dict.fromkeys(found))


def stray_english(lines: Sequence[tuple[int, str]], *, greets: bool = False) -> list[str]:
    """
    Find phrases that have a plainer form.

    Args:
        lines: Line numbers and text.
        greets: Whether greeting somebody is what the text is about.

    Returns:
        A line for each, with what to write instead.

    Example:
        >>> stray_english([(3, "A list is no tuple.")])
        ["3: 'is no ': write is not a"]
    """
    return [
        f"{number}: {found[0]!r}: write {better}"
        for number, line in lines
        for pattern, better in STRAY_ENGLISH.items()
        if not (greets and "greet" in pattern) and (found := re.search(pattern, line))
    ]


def _texts(source: str) -> list[tuple[int, str]]:
    """Collect the lines of all strings: docstrings and messages, not comments."""
    kinds = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return [
        (token.start[0] + offset, line)
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type in kinds
        for offset, line in enumerate(token.string.splitlines())
    ]


def _prose(path: Path) -> list[tuple[int, str]]:
    """Collect the lines of a page, without its blocks of code."""
    lines, fenced = [], False

    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            lines.append((number, line))

    return lines


def check_commits() -> str | None:
    """Subjects of commits fit into one line of a log."""
    words = ["git", "log", "--no-merges", "--format=%h %s", f"{FIRST_COMMIT}..HEAD"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)

    if done.returncode:
        return "skipped: the history is not here"

    if problems := long_subjects(done.stdout.splitlines()):
        raise Failed("\n".join(problems))

    return None


def long_subjects(lines: Sequence[str]) -> list[str]:
    """
    Find subjects of more than 72 characters.

    Example:
        >>> long_subjects(["abc1234 pool: mend", f"abc1235 pool: {'x' * 67}"])
        ['abc1235: 73 characters']
    """
    pairs = [line.partition(" ")[::2] for line in lines]
    return [f"{commit}: {len(subject)} characters" for commit, subject in pairs if len(subject) > SUBJECT]


def check_circles() -> str | None:
    """No modules of a distribution, or of the tools, import each other in a circle."""
    places = {source.name: source for source in _sources()} | {"tools": ROOT / "tools"}
    problems = [
        " -> ".join([*circle, circle[0]])
        for name, place in places.items()
        for circle in circles(import_graph(name, place))
    ]

    if problems:
        raise Failed("\n".join(problems))

    return None


def import_graph(name: str, place: Path) -> dict[str, set[str]]:
    """
    Read which modules of a package import which, those under TYPE_CHECKING and in functions included.

    Args:
        name: The package's name.
        place: Its folder.

    Returns:
        Each module with those that it imports; faces of packages (``__init__``) are left out.
    """
    modules = {}

    for path in place.rglob("*.py"):
        parts = path.relative_to(place).with_suffix("").parts

        if parts[-1] != "__init__" and "template" not in parts:
            modules[".".join((name, *parts))] = path

    graph: dict[str, set[str]] = {}

    for module, path in modules.items():
        wanted: set[str] = set()

        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                wanted |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}

        graph[module] = wanted & modules.keys() - {module}

    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """
    Find groups of modules that reach each other.

    Example:
        >>> circles({"a": {"b"}, "b": {"a"}, "c": {"a"}})
        [['a', 'b']]
    """
    reach: dict[str, set[str]] = {}

    for module in graph:
        seen: set[str] = set()
        todo = list(graph[module])

        while todo:
            current = todo.pop()

            if current not in seen:
                seen.add(current)
                todo += graph.get(current, ())

        reach[module] = seen

    groups = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in graph
        if module in reach[module]
    }
    return [list(group) for group in sorted(groups)]


def check_small_files() -> str | None:
    """A private file that is small and has one importer is folded into it."""
    found = [
        name
        for source in _sources()
        if source.name != "wintersweet"  # its commands are imported late, one by one
        for name in foldable(import_graph(source.name, source), _lengths(source))
    ]
    problems = [
        f"{name}: fold it into the one file that imports it" for name in found if name not in SMALL_FILES
    ]

    if problems:
        raise Failed("\n".join(problems))

    return None


def foldable(graph: Mapping[str, set[str]], lengths: Mapping[str, int]) -> list[str]:
    """
    Find private modules of fewer than 60 lines which one other module imports, or none.

    Example:
        >>> foldable({"p.a": {"p._b", "p._c"}, "p._b": {"p._c"}, "p._c": set()}, {"p._b": 20, "p._c": 20})
        ['p._b']
    """
    importers = Counter(wanted for modules in graph.values() for wanted in modules)
    private = (name for name in sorted(graph) if any(part.startswith("_") for part in name.split(".")))
    return [name for name in private if lengths.get(name, SMALL) < SMALL and importers[name] <= 1]


def _lengths(source: Path) -> dict[str, int]:
    """Return the lines of each module that is written by hand."""
    return {
        ".".join((source.name, *path.relative_to(source).with_suffix("").parts)): len(
            path.read_text(encoding="utf-8").splitlines()
        )
        for path in source.rglob("*.py")
        if "sync" not in path.parts
    }


def check_exceptions() -> str | None:
    """Exceptions of the linter stay few: a cause is mended, or a rule is decided on once, with its reason."""
    paths = [path for path in tracked_files() if path.suffix == ".py"]
    found = exceptions({_short(path): path.read_text(encoding="utf-8") for path in paths})
    remedy = "mend the cause, or decide on the rule in pyproject.toml"
    problems = [
        f"{folder} has {found[folder]} exceptions of the linter, more than {most}: {remedy}"
        for folder, most in EXCEPTIONS.items()
        if found[folder] > most
    ]

    if problems:
        raise Failed("\n".join(problems))

    return None


def exceptions(texts: Mapping[str, str]) -> Counter[str]:
    """
    Count the exceptions of the linter by folder; what is generated does not count.

    Example:
        >>> exceptions({"tools/a.py": "x = 1  # noqa: E501", "packages/b/sync/_lock/c.py": "y  # noqa: E501"})
        Counter({'tools': 1})
    """
    return Counter(
        path.partition("/")[0]
        for path, text in texts.items()
        if "/sync/" not in path
        for line in text.splitlines()
        if re.search(r"#.*\bnoqa\b", line)
    )


def _sources() -> list[Path]:
    return [PACKAGES / name / "src" / imported for name, imported in IMPORT_NAMES.items() if imported]


def _is_private(path: Path) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in path.parts)


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT))
