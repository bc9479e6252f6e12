"""Checks of the documentation: it builds, and translations keep in step."""

from __future__ import annotations

import re

from tools import dev
from tools.checks._model import ROOT, Check, Failed, command
from tools.checks._tree import tracked_files

__all__ = ("page_checks", "translation_problems")


def page_checks() -> list[Check]:
    """Return the checks of this module."""
    return [Check("docs", build_docs, cost=12), Check("translations", check_translations)]


def build_docs() -> str | None:
    """The documentation builds without a warning: no dead link, no page left out."""
    python = dev.hatch_environment("docs")
    # Not with --quiet: warnings that are not printed are not counted by --strict either.
    words = [
        str(python),
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(dev.STATE / "site"),
    ]
    command(words, environment={"NO_MKDOCS_2_WARNING": "1"})
    return None


def check_translations() -> str | None:
    """A translated page has the headings and the very code of its original."""
    problems = []
    pages = [path for path in tracked_files() if path.name.endswith(".zh-CN.md")]

    for path in pages:
        original = path.with_name(path.name.replace(".zh-CN.md", ".md"))

        if not original.exists():
            problems.append(f"{path.relative_to(ROOT)} translates nothing: there is no {original.name}")
            continue

        texts = (file.read_text(encoding="utf-8") for file in (original, path))
        problems += [f"{path.relative_to(ROOT)}: {problem}" for problem in translation_problems(*texts)]

    if problems:
        raise Failed("\n".join(problems))

    return f"{len(pages)} pages"


def translation_problems(original: str, translated: str) -> list[str]:
    r"""
    Compare the skeletons of two pages.

    Example:
        >>> translation_problems("# One\n## Two\n", "# 一\n")
        ['2 headings became 1']
    """
    problems = []
    blocks = [re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL) for text in (original, translated)]
    proses = [
        re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL) for text in (original, translated)
    ]
    headings = [[len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in proses]

    if headings[0] != headings[1]:
        counts = [len(levels) for levels in headings]
        detail = "levels differ" if counts[0] == counts[1] else f"{counts[0]} headings became {counts[1]}"
        problems.append(detail)

    if len(blocks[0]) != len(blocks[1]):
        problems.append(f"{len(blocks[0])} code blocks became {len(blocks[1])}")

    changed = [
        n for n, (a, b) in enumerate(zip(*blocks, strict=False), 1) if _uncommented(a) != _uncommented(b)
    ]
    problems += [f"code block {number} differs" for number in changed]
    return problems


def _uncommented(block: str) -> str:
    """Leave comments out: they may be translated."""
    return re.sub(r"[ \t]*#.*$", "", block, flags=re.MULTILINE)
