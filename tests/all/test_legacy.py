"""What wintersweet 1.1.4 had and did, recorded on it, and ours held against that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.conformance.legacy.compare import DIFFERENCES, RECORDED, Runner, missing_names, runner


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    """Start the servers, and an interpreter that runs users' code of 1.1.4."""
    with runner() as started:
        yield started


@pytest.mark.parametrize("name", RECORDED["behaviours"])
def test_behaviours(run: Runner, name: str) -> None:
    """Users' code returns what it returned on 1.1.4, unless the difference is listed; then it must differ."""
    found = run(name)
    same = found.get("result", found) == RECORDED["behaviours"][name]

    if name in DIFFERENCES["behaviours"]:
        assert not same, "this works now: take it off the list of differences"
    else:
        assert found == {"result": RECORDED["behaviours"][name]}


def test_names() -> None:
    """Each public name takes the parameters that it took on 1.1.4, unless the difference is listed."""
    lacking = dict(missing_names())
    assert {name: lacking[name] for name in lacking if name not in DIFFERENCES["names"]} == {}
    assert set(DIFFERENCES["names"]) <= set(lacking), "these work now: take them off the list of differences"


def test_at_most_one_in_twenty_differs() -> None:
    """95 % of the behaviours are those of 1.1.4."""
    assert len(DIFFERENCES["behaviours"]) <= 0.05 * len(RECORDED["behaviours"])


def test_differences_are_documented() -> None:
    """Each has a row on the migration page, which begins with its subject."""
    page = Path(__file__).parents[2].joinpath("docs/migration.md").read_text(encoding="utf-8")
    subjects = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")}
    listed = {subject for kind in DIFFERENCES.values() for subject in kind.values()}
    assert listed - subjects == set()
