"""Checks of the documentation and of what GitHub reads: pages build, translations keep in step, files fit."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from tools import dev
from tools.checks._model import ROOT, Check, Failed, command
from tools.checks._tree import tracked_files

__all__ = ("page_checks", "titled_blocks", "translation_problems")

GITHUB = ROOT / ".github"
SCHEMAS = {
    "vendor.github-workflows": "workflows/*.yml",
    "vendor.github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "vendor.github-issue-config": "ISSUE_TEMPLATE/config.yml",
    "vendor.dependabot": "dependabot.yml",
}
"""A schema that comes with check-jsonschema → the files that it is for."""


def page_checks() -> list[Check]:
    """Return the checks of this module."""
    return [
        Check("docs", build_docs, cost=12),
        Check("translations", check_translations),
        Check("github", check_github, cost=5),
        Check("deploy", check_deploy, cost=5),
    ]


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


def check_github() -> str | None:
    """Workflows, issue forms and dependabot's file fit their schemas; zizmor finds no unsafe workflow."""
    programs = dev.hatch_environment("release").parent

    for schema, pattern in SCHEMAS.items():
        files = sorted(GITHUB.glob(pattern))

        if not files:
            raise Failed(f"{schema}: there is no .github/{pattern}")

        command([programs / "check-jsonschema", "--builtin-schema", schema, *files])

    command([programs / "zizmor", "--offline", "--no-progress", "--strict-collection", GITHUB])
    return None


def check_deploy() -> str | None:
    """The Dockerfile, the compose file and the nginx configuration of the page on deployment are valid."""
    programs = dev.hatch_environment("release").parent
    page = (ROOT / "docs/how-to/deploy.md").read_text(encoding="utf-8")

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        for title, text in titled_blocks(page).items():
            (place / Path(title).name).write_text(text, encoding="utf-8")

        (place / "nginx.conf").write_text("events {}\nhttp { include shop.conf; }\n", encoding="utf-8")
        command([programs / "hadolint", "--no-color", place / "Dockerfile"])
        compose = place / "compose.yaml"
        command([programs / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", compose])
        parsed = json.loads(command([programs / "crossplane", "parse", place / "nginx.conf"]))

    if parsed["status"] != "ok":
        raise Failed(f"nginx: {parsed['errors']}")

    return None


def titled_blocks(page: str) -> dict[str, str]:
    r"""
    Return the blocks of a page that are files, by their paths.

    Example:
        >>> titled_blocks('```ini title="a.ini"\n[a]\n```\n')
        {'a.ini': '[a]\n'}
    """
    return dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL))


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
