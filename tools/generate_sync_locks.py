"""Write ``ws_redislock.sync`` from the source of ``ws_redislock``.

    python tools/generate_sync_locks.py           write the files
    python tools/generate_sync_locks.py --check   only report whether they are up to date

The twin is the same text without ``async`` and ``await``, over another ``_concurrency``: what that module
and the parts made for an event loop (`LOOP`) are for tasks, ``sync/_concurrency.py`` is for threads, the
only file there that is written by hand. No rule translates prose: the docstrings fit both.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "packages" / "ws-redislock" / "src" / "ws_redislock"

LOOP = (
    "_concurrency",
    "_lease.cancel_scope",
    "_lease.timers",
    "_redis.connection",
    "_redis.spare_connection",
)
"""Modules in whose place ``sync/_concurrency.py`` stands."""

ONLY_LOOP = ("_redis.batching", "_redis.pipelined_protocol")
"""Modules that threads have no use for."""

CUT = re.compile(r"^ *# tasks only:\n.*?^ *# end\n", re.MULTILINE | re.DOTALL)
"""Lines that the twin leaves out: calls of threads never go together."""

PURE = ("_lease.lease", "_redis.keys", "_redis.scripts", "_redis.url", "errors", "fencing", "observe", "otel")
"""Modules without concurrency, which both use."""

HEADER = "# Written by tools/generate_sync_locks.py from ws_redislock/{source}; do not edit.\n"

RULES = (
    (r"\bimport redis\.asyncio\b", "import redis"),
    (r"\bredis\.asyncio\b", "redis"),
    (rf"\bws_redislock\.({'|'.join(map(re.escape, LOOP))})\b", "ws_redislock.sync._concurrency"),
    (
        rf"\bws_redislock\b(?!\.sync\b|\.(?:{'|'.join(map(re.escape, PURE))})\b)(?=\.| import)",
        "ws_redislock.sync",
    ),
    (r"\b(?:Awaitable|Coroutine), ", ""),
    (r", (?:Awaitable|Coroutine)\b(?!\[)", ""),
    (r"Awaitable\[None\] \| None", "None"),
    (r"Awaitable\[((?:[^\[\]]|\[[^\[\]]*\])+)\]", r"\1"),
    (r"Coroutine\[Any, Any, ((?:[^\[\]]|\[[^\[\]]*\])+)\]", r"\1"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
)


def sources() -> list[str]:
    """Return the modules that have a generated twin, as paths below the package."""
    found = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
    apart = {f"{name.replace('.', '/')}.py" for name in (*LOOP, *ONLY_LOOP, *PURE)}
    twins = [path for path in found if path.parts[0] != "sync" and str(path) not in apart]
    rooms = {path.parent for path in twins if path.name != "__init__.py"}
    return [str(path) for path in twins if path.parent in rooms]


def translate(source: str) -> str:
    """Take ``async``, and what only tasks need, out of a module's text."""
    source = CUT.sub("", source)

    for pattern, replacement in RULES:
        source = re.sub(pattern, replacement, source)

    return source


def generate() -> dict[Path, str]:
    """Return the text of every generated file."""
    return {
        PACKAGE / "sync" / name: HEADER.format(source=name)
        + translate((PACKAGE / name).read_text(encoding="utf-8"))
        for name in sources()
    }


def main(arguments: list[str]) -> int:
    """Write the files, or compare them."""
    files = generate()
    written = {*(PACKAGE / "sync").rglob("*.py")} - {PACKAGE / "sync" / "_concurrency.py"}
    stale = [
        path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    left = sorted(written - set(files))

    if "--check" in arguments:
        for path in (*stale, *left):
            name = path.relative_to(PACKAGE)
            print(f"{name} is not up to date: run python tools/generate_sync_locks.py", file=sys.stderr)

        return 1 if stale or left else 0

    for path in left:
        path.unlink()

    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files[path], encoding="utf-8")

    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
