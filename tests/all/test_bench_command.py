"""``wintersweet bench``: what is measured is what came, and load goes nowhere else."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.all._service import APP, HOST, answering, environment
from tests.all._support import wintersweet
from wintersweet._cli.bench import Load, Measured, measure
from ws_core.errors import ConfigError, UnavailableError, UsageError

SHORT = 0.3  # seconds


pytestmark = pytest.mark.usefixtures("wide_terminal")


def run(target: str, *, path: str | None = None, remote: bool = False, **options: Any) -> int:
    """Measure for a moment, and print JSON."""
    wanted = Load(**{"seconds": SHORT, "at_once": 3, **options})
    return measure(target, wanted, path=path, workers=1, remote=remote, as_json=True)


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the one line that was printed."""
    (line,) = capsys.readouterr().out.splitlines()
    return dict(json.loads(line))


class TestService:
    """Routes of a running service."""

    def test_figures(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Requests, rate and percentiles fit together; the bar is on stderr."""
        assert run(f"{url}/ok") == 0
        said = capsys.readouterr()
        found = json.loads(said.out)

        assert (found["url"], found["method"], found["concurrency"]) == (f"{url}/ok", "GET", 3)
        assert found["errors"] == {}
        assert found["requests"] >= 3
        assert found["seconds"] >= SHORT
        assert found["rps"] == pytest.approx(found["requests"] / found["seconds"], rel=0.05, abs=0.1)
        assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= found["max_ms"]
        assert "3 at once" in said.err
        assert f"{found['requests']} requests, 0 errors" in said.err

    def test_answers_that_are_errors(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """They are counted by status, with their latencies, and the command's status is 1."""
        assert run(f"{url}/fails") == 1
        found = answer(capsys)

        assert found["errors"] == {"status 503": found["requests"]}
        assert found["p50_ms"] > 0

    def test_no_answer_in_time(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """It is an error of its own, and no latency."""
        assert run(f"{url}/slow", timeout=0.2) == 1
        found = answer(capsys)

        assert found["errors"] == {"timeout": found["requests"]}
        assert (found["p99_ms"], found["rps"]) == (0.0, 0.0)

    def test_connections_that_end(self, capsys: pytest.CaptureFixture[str]) -> None:
        """So is a server that says nothing."""
        with answering({"/": None}) as url:
            assert run(url) == 1

        found = answer(capsys)
        assert found["errors"] == {"connection": found["requests"]}

    def test_a_redirect_is_an_answer(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Load does not go where it leads."""
        assert run(f"{url}/moved") == 0
        assert answer(capsys)["errors"] == {}

    def test_what_is_sent(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Method, body and headers."""
        assert run(url, path="echo", method="PUT", body="tea", headers=("x-kind: green",)) == 0
        assert answer(capsys)["url"] == f"{url}/echo"

        assert run(url, path="/echo", method="PUT", body="rice", headers=("x-kind: green",)) == 1
        assert set(answer(capsys)["errors"]) == {"status 400"}

    def test_the_table(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """It names each kind of error."""
        wanted = Load(seconds=SHORT, at_once=2)
        assert measure(f"{url}/fails", wanted, path=None, workers=1, remote=False, as_json=False) == 1
        said = capsys.readouterr().out

        assert said.startswith(f"GET {url}/fails, 2 at once\n")
        assert all(word in said for word in ("Answers/s", "p50", "p95", "p99", "Slowest", "status 503"))


def test_an_application(tmp_path: Path, redis_url: str) -> None:
    """It is started, measured and stopped."""
    (tmp_path / "till.py").write_text(APP)
    outcome = wintersweet(
        *("bench", "till:app", "--path", "/ok", "--duration", "0.3", "--concurrency", "2", "--json"),
        cwd=tmp_path,
        env=environment(redis_url),
    )
    found = outcome.json()

    assert outcome.status == 0, outcome.err
    assert found["url"].startswith("http://127.0.0.1:")
    assert found["requests"] >= 2
    assert found["errors"] == {}
    assert "GET /ok" not in outcome.err  # no access log
    others = [one for one in psutil.process_iter(["cwd"]) if one.pid != os.getpid()]
    assert not [one for one in others if one.info["cwd"] == str(tmp_path)]


class TestRefused:
    """Nothing is sent."""

    @pytest.mark.parametrize("target", ["http://shop.example/", "shop.example:80", "http://10.0.0.1"])
    def test_another_machine(self, target: str) -> None:
        """Without the switch load goes to this machine only."""
        with pytest.raises(UsageError, match=r"is not this machine.*--remote"):
            run(target)

    def test_another_machine_that_is_wanted(self) -> None:
        """With the switch it is something else that is wrong."""
        with pytest.raises(ConfigError, match="--header 'x' is wrong"):
            run("http://shop.example", remote=True, headers=("x",))

    def test_two_paths(self) -> None:
        """Which one is meant?"""
        with pytest.raises(UsageError, match=r"has the path /x already: leave --path /y out"):
            run(f"http://{HOST}/x", path="/y")

    def test_nobody_is_there(self) -> None:
        """That is said once, not counted for ten seconds."""
        with pytest.raises(
            UnavailableError, match=r"nobody answers at http://127\.0\.0\.1:1/ .*start the service"
        ):
            run("127.0.0.1:1")

    def test_no_application(self) -> None:
        """Neither a URL nor an application."""
        with pytest.raises(ConfigError, match=r"such as shop\.app:create"):
            run("shop")


def test_nothing_was_answered() -> None:
    """Figures without a value are 0, not an error."""
    assert Measured(errors=Counter(timeout=1), requests=1).summary() == {
        "requests": 1,
        "seconds": 0.0,
        "rps": 0.0,
        "p50_ms": 0.0,
        "p95_ms": 0.0,
        "p99_ms": 0.0,
        "max_ms": 0.0,
        "errors": {"timeout": 1},
    }
