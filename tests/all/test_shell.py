"""``wintersweet shell``: lines as they are typed, in each of the two prompts."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.all._support import TIMEOUT, running, until

SETTINGS = """
DATABASES = {"default": {"url": "sqlite:///notes.db"}}
"""
LINES = """
await sql_pool_manager.execute("CREATE TABLE notes (text VARCHAR(9))")
async with atomic() as sql:
    await sql.insert("INSERT INTO notes (text) VALUES ('a')")

async with atomic() as sql:
    await sql.insert("INSERT INTO notes (text) VALUES ('b')")
    raise LookupError("undo")

task = asyncio.get_running_loop().create_task(asyncio.sleep(0, "from a task"))
"counted", await sql_pool_manager.count("SELECT * FROM notes")
await task
"port", settings.LISTEN_PORT
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Make a project that has settings."""
    (tmp_path / "shell_settings.py").write_text(SETTINGS)
    (tmp_path / "pyproject.toml").write_text('[tool.wintersweet]\nsettings = "shell_settings"\n')
    return tmp_path


@pytest.mark.parametrize("options", [["--plain"], []], ids=["plain", "ipython"])
def test_lines(place: Path, options: list[str]) -> None:
    """Pools are started, await and transactions work, an error is shown and the prompt goes on."""
    env = {"IPYTHONDIR": str(place / "ipython"), "WS_LISTEN_PORT": "1234", "TERM": "dumb"}

    with running("shell", *options, cwd=place, env=env, stdin=subprocess.PIPE) as process:
        out, err = process.communicate(LINES, timeout=TIMEOUT)

    out = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert process.returncode == 0, out + err
    assert "sql_pool_manager, atomic" in err
    assert "LookupError: undo" in out + err
    assert "('counted', 1)" in out
    assert "'from a task'" in out
    assert "('port', 1234)" in out
    assert "shell.py" not in out + err


def test_an_interrupt(place: Path) -> None:
    """Ctrl-C ends what runs, and not the prompt."""
    with running("shell", "--plain", cwd=place, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write("open('begun', 'w').close(); await asyncio.sleep(600)\n")
        process.stdin.flush()
        until((place / "begun").exists)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate("'goes', 'on'\nexit()\n", timeout=TIMEOUT)

    assert (process.returncode, "KeyboardInterrupt" in err) == (0, True), err
    assert "('goes', 'on')" in out
