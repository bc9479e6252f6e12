"""Find the examples of documentation, and run them. Standard library only.

In Markdown and in docstrings, a fenced block marked ``python`` is an example that runs by itself, in
a namespace of its own; ``await``, ``async with`` and ``async for`` may stand outside of functions, as
in a notebook. A block that starts with ``>>>``, fenced or bare in a docstring, is a doctest. A block
marked ``python no-run`` is not run; the text around it says why. One with ``title="path"`` is a file of a
project, which tests/all/test_tutorial.py builds as its reader does.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ("MYSQL", "POSTGRES", "REDIS", "Example", "docstring_examples", "markdown_examples", "run_example")

REDIS = "redis://localhost:6379/0"
MYSQL = "mysql://root@localhost:3306/test"
POSTGRES = "postgresql://postgres@localhost:5432/test"

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>```+|~~~+)[ \t]*(?P<info>[^\n`]*)\n"
    r"(?P<body>.*?)"
    r"^(?P=indent)(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Example:
    """
    One block that runs by itself.

    Args:
        path: The file that holds it.
        line: The line of its first statement, from 1.
        code: Its text, without indentation.
    """

    path: Path
    line: int
    code: str

    @property
    def is_doctest(self) -> bool:
        """Whether it is a dialogue with an interpreter."""
        return self.code.lstrip().startswith(">>>")

    @property
    def urls(self) -> frozenset[str]:
        """The addresses of servers in it, which have to be replaced by those of real ones."""
        return frozenset(url for url in (REDIS, MYSQL, POSTGRES) if url in self.code)


def markdown_examples(path: Path, text: str | None = None, *, first_line: int = 1) -> Iterator[Example]:
    """
    Find the runnable blocks of a Markdown text.

    Args:
        path: Where the text is from.
        text: The text, or None to read it from there.
        first_line: The line of the file on which the text begins.

    Yields:
        The examples, in their order.
    """
    text = path.read_text(encoding="utf-8") if text is None else text

    for found in _FENCE.finditer(text):
        language, *marks = found["info"].split() or [""]

        placed = any(mark.startswith("title=") for mark in marks)

        if language in {"python", "py", "pycon"} and "no-run" not in marks and not placed:
            line = first_line + text.count("\n", 0, found.start("body"))
            yield Example(path=path, line=line, code=textwrap.dedent(found["body"]))


def docstring_examples(path: Path) -> Iterator[Example]:
    """Find the fenced examples in all docstrings of a module, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue

        first = node.body[0] if node.body else None

        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            text = first.value.value

            if isinstance(text, str) and "```" in text:
                yield from markdown_examples(path, text, first_line=first.lineno)


def run_example(example: Example, replace: Mapping[str, str] | None = None) -> None:
    """
    Run one example to its end.

    Args:
        example: What to run.
        replace: Text → text, such as a URL of the documentation → the URL of a real server.

    Raises:
        AssertionError: A dialogue gave another answer than the one that is shown.
        Exception: Whatever the example raised.
    """
    code = example.code

    for old, new in (replace or {}).items():
        code = code.replace(old, new)

    if example.is_doctest:
        _run_doctest(example, code)
    else:
        _run_block(example, code)


def _run_block(example: Example, code: str) -> None:
    # Line numbers in tracebacks are those of the document.
    padded = "\n" * (example.line - 1) + code
    compiled = compile(
        padded, str(example.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    module = types.ModuleType(f"example_{example.path.stem}_{example.line}".replace(".", "_"))
    sys.modules[module.__name__] = module  # dataclasses and pydantic look themselves up there

    try:
        if compiled.co_flags & inspect.CO_COROUTINE:
            asyncio.run(_evaluate(types.FunctionType(compiled, vars(module))))
        else:
            exec(compiled, vars(module))
    finally:
        del sys.modules[module.__name__]


async def _evaluate(block: Callable[[], object]) -> None:
    result = block()

    if inspect.isawaitable(result):
        await result


def _run_doctest(example: Example, code: str) -> None:
    test = doctest.DocTestParser().get_doctest(
        code, {}, f"{example.path.name}:{example.line}", str(example.path), example.line - 1
    )
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=said.append)

    if runner.failures:
        raise AssertionError("".join(said))
