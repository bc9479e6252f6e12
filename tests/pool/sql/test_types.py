"""Rows have the types of their statement's columns, for mypy in its strict mode."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("typed_program.py")


def check(program: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy over a program."""
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), str(program)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cache)


def test_a_users_program_is_typed(tmp_path: Path):
    """What the program asserts of its rows holds, and a wrong use of one is found."""
    pytest.importorskip("mypy")
    pytest.importorskip("sqlalchemy", minversion="2.1", reason="the columns' types are generic from 2.1 on")
    right = check(PROGRAM, tmp_path)
    assert right.returncode == 0, right.stdout + right.stderr

    wrong = tmp_path / "wrong.py"
    text = PROGRAM.read_text()

    for right_part, wrong_part in (
        ("assert_type(number, int)", "assert_type(number, str)"),
        ("first.name, *", "first._tuple()[0], *"),
        ("client.load_data", "client.copy_from"),
        ("other.copy_from", "other.load_data"),
    ):
        assert right_part in text
        text = text.replace(right_part, wrong_part)

    wrong.write_text(text)
    found = check(wrong, tmp_path).stdout

    for message in (
        'Expression is of type "int", not "str"',
        'List item 0 has incompatible type "int"',
        '"MysqlClient" has no attribute "copy_from"',
        '"PostgresClient" has no attribute "load_data"',
    ):
        assert message in found, found
