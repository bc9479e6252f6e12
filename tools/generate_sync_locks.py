"""Write ``ws_redislock.sync`` from the source of ``ws_redislock``.

    python tools/generate_sync_locks.py           write the files
    python tools/generate_sync_locks.py --check   only check whether they are up to date

What differs between a task and a thread lives in modules that have a twin written by hand
(``_coordination``, ``_redis``, ``_lease`` and ``_lock/renewal``); everything else is the same
text without ``async``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "packages" / "ws-redislock" / "src" / "ws_redislock"
GENERATED = (
    "_lock/acquisition",
    "_lock/held",
    "_lock/hold",
    "_lock/base",
    "_lock/status",
    "_lock/options",
    "claims",
    "leader",
    "limiter",
    "multi",
    "mutex",
    "rwlock",
    "semaphore",
    "__init__",
)
TWINS = (
    *(name.replace("/", r"\.") for name in GENERATED[:-1]),
    r"_redis\.script_client",
    r"_coordination\.coordinator",
    r"_lease\.cancel_scope",
    r"_lock\.renewal",
)

HEADER = "# Written by tools/generate_sync_locks.py from {source}; do not edit.\n"

REPLACEMENTS = (
    (r"\bfrom redis\.asyncio import Redis\b", "from redis import Redis"),
    (r"``redis\.asyncio\.Redis``", "``redis.Redis``"),
    (r"client of ``redis\.asyncio``", "blocking client"),
    (rf"\bws_redislock\.({'|'.join(TWINS)})\b", r"ws_redislock.sync.\1"),
    (r"\bfrom ws_redislock import\b", "from ws_redislock.sync import"),
    (r"Awaitable\[None\] \| None", "None"),
    (r"(?:Awaitable\[|Coroutine\[Any, Any, )R\]", "R"),
    (r"Awaitable\[tuple\[float, Reply\]\]", "tuple[float, Reply]"),
    (r"\bimport Awaitable, Callable(?:, Coroutine)?", "import Callable"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAn asynchronous iterator\b", "An iterator"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\b__aiter__\b", "__iter__"),
    (r"\b__anext__\b", "__next__"),
    (r"\baclose\b", "close"),
    (r"or use `async with`", "or use `with`"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"  # noqa: ASYNC109 - [^\n]*", ""),
    (r"; a function or coroutine function\.", "."),
    (r"; may be a coroutine function\.", "."),
    (r"Decorate a coroutine function", "Decorate a function"),
    (r"in the holder's event loop, when", "in a thread of its own, when"),
    (
        r"renewed while its event loop lives; when it is lost, the holder is told at once",
        "renewed while its process lives",
    ),
    (r", which is cancelled when the lock is lost\.", "."),
    (r", which is cancelled when one of them is lost\.", "."),
    (r"whose block is cancelled when the term ends early", "whose block should ask `check` while it works"),
    (
        r"is cancelled when office is lost; when\n    it ends by itself, the leader resigns\. Candidates",
        "should ask\n    ``term.check()`` while it works; when it ends, the leader resigns.\n    Candidates",
    ),
    (r"Whether the task that holds", "Whether the thread that holds"),
    (r"or belongs to another loop\.", "in another thread."),
    (r"; the object belongs to the loop of its first use from then on", ""),
    (r"Redis locks that tell", "Redis locks for threads that tell"),
)


def translate(source: str) -> str:
    """
    Take ``async`` out of a module.

    Args:
        source: The text of the module.

    Returns:
        The text of its twin.
    """
    for pattern, replacement in REPLACEMENTS:
        source = re.sub(pattern, replacement, source)

    return source


def generate() -> dict[Path, str]:
    """Return the text of every generated file."""
    files = {}
    ruff = shutil.which("ruff") or str(Path(sys.executable).parent / "ruff")

    for name in GENERATED:
        path = PACKAGE / f"{name}.py"
        text = HEADER.format(source=f"ws_redislock/{name}.py") + translate(path.read_text(encoding="utf-8"))
        target = PACKAGE / "sync" / f"{name}.py"

        for command in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
            done = subprocess.run(
                [ruff, *command, "--stdin-filename", str(target), "-"],
                input=text,
                capture_output=True,
                text=True,
                check=True,
            )
            text = done.stdout

        files[target] = text

    return files


def main(arguments: list[str]) -> int:
    """Write the files, or compare them."""
    stale = [
        path
        for path, text in generate().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]

    if "--check" in arguments:
        for path in stale:
            print(f"{path.name} is not up to date: run python tools/generate_sync_locks.py", file=sys.stderr)

        return 1 if stale else 0

    for path, text in generate().items():
        path.write_text(text, encoding="utf-8")

    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
