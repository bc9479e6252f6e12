"""The flash sale over the real command line: on embedded backends, and on MariaDB and Redis."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tests.all._demo import Demo, alive
from tests.all._support import running, until, wintersweet
from wintersweet.demo.backends import _state

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(600)]

Backends = Mapping[str, str]


@pytest.fixture(
    params=["embedded", *(pytest.param(n, marks=pytest.mark.once) for n in ("mysql_url", "postgres_url"))]
)
def backends(request: pytest.FixtureRequest) -> Backends:
    """Yield the environment of embedded backends, then those of a server of each database and Redis."""
    if request.param == "embedded":
        return {}

    return {
        "WS_DATABASES__default__url": request.getfixturevalue(request.param),
        "WS_REDIS_CONFIG__default__url": request.getfixturevalue("redis_url"),
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory in which the demo makes its temporary files."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", str(directory))

    return directory


@pytest.fixture
def demo() -> Iterator[Callable[..., Demo]]:
    """Yield what starts a demo."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, env: Backends | None = None) -> Demo:
            return Demo(stack.enter_context(running("demo", *arguments, env=env)))

        yield start


class TestSale:
    """A sale from the first buyer to the JSON line."""

    def test_more_buyers_than_stock(self, backends: Backends, temporary: Path) -> None:
        """2,000 buyers at two workers: sold is the stock, nothing oversold, no error, one line on stdout."""
        outcome = wintersweet(
            "demo", "--workers", "2", "--load", "2000", "--stock", "500", "--exit", env=backends
        )
        summary = outcome.json()

        assert outcome.status == 0, outcome.err
        assert {key: summary[key] for key in ("buyers", "stock", "sold", "oversold", "errors")} == {
            "buyers": 2000,
            "stock": 500,
            "sold": 500,
            "oversold": 0,
            "errors": 0,
        }
        assert summary["acknowledged"] == 500
        assert 0 < summary["p50_ms"] <= summary["p99_ms"]
        assert summary["rps"] > 0
        assert "2000/2000" in outcome.said
        assert list(temporary.iterdir()) == []

    def test_less_buyers_than_stock(self, backends: Backends, tmp_path: Path) -> None:
        """Every buyer gets a piece and the rest stays; what --state-dir names is kept."""
        state = tmp_path / "state"
        summary = wintersweet(
            *("demo", "--workers", "1", "--load", "30", "--stock", "100", "--exit", "--quiet"),
            *("--state-dir", str(state)),
            env=backends,
        ).json()
        lines = (state / "demo.log").read_text().splitlines()

        assert (summary["sold"], summary["acknowledged"], summary["errors"]) == (30, 30, 0)
        assert lines, "a log of JSON lines"
        assert all(json.loads(line) for line in lines)
        assert (state / "shop.db").exists() == (not backends)

    def test_nothing_in_stock(self) -> None:
        """A sale of nothing sells nothing; settings of the log are kept, and nothing is reported."""
        outcome = wintersweet(
            *("demo", "--workers", "1", "--load", "20", "--stock", "0", "--exit", "--quiet"),
            env={"WS_LOGGING_CONFIG__level": "critical"},
        )
        summary = outcome.json()

        assert (outcome.status, outcome.err) == (0, "")
        assert (summary["sold"], summary["oversold"], summary["errors"]) == (0, 0, 0)


class TestEngine:
    """Chores as jobs on a Redis stream, in processes of their own."""

    def test_taskiq(self, backends: Backends) -> None:
        """Each payment has its receipt, written by the workers of jobs; the sale is right."""
        outcome = wintersweet(
            *("demo", "--engine", "taskiq", "--workers", "2", "--load", "600", "--stock", "200", "--exit"),
            env=backends,
        )
        summary = outcome.json()
        jobs = summary["jobs"]

        assert outcome.status == 0, outcome.err
        assert (summary["sold"], summary["oversold"], summary["errors"]) == (200, 0, 0)
        assert (jobs["done"], jobs["lost"], jobs["dead"], jobs["workers_replaced"]) == (200, 0, 0, 0)
        assert sum(jobs["by_worker"].values()) == 200
        assert 1 <= len(jobs["by_worker"]) <= 2
        assert all(f"process {pid} {count}" in outcome.said for pid, count in jobs["by_worker"].items())

    def test_a_killed_worker(self, demo: Callable[..., Demo]) -> None:
        """SIGKILL of the only one that runs jobs in mid-sale: another one takes its place, none is lost."""
        sale = demo(
            *("--engine", "taskiq", "--workers", "1", "--job-workers", "1"),
            *("--load", "600", "--stock", "600", "--exit"),
        )
        until(lambda: sale.taken() > 100)
        (worker,) = sale.job_workers()
        worker.kill()
        summary = sale.finish()

        assert (summary["sold"], summary["oversold"], summary["errors"]) == (600, 0, 0)
        assert (summary["jobs"]["done"], summary["jobs"]["lost"], summary["jobs"]["dead"]) == (600, 0, 0)
        assert summary["jobs"]["workers_replaced"] == 1

    def test_no_worker_of_jobs_can_start(self, temporary: Path) -> None:
        """That ends the demo with the reason, and leaves nothing behind."""
        env = {"WS_REDIS_CONFIG__default__url": "redis://127.0.0.1:1/0"}
        outcome = wintersweet("demo", "--engine", "taskiq", "--load", "1", "--exit", env=env)

        assert (outcome.status, outcome.out) == (1, "")
        assert "127.0.0.1:1" in outcome.err
        assert "Traceback" not in outcome.err
        assert list(temporary.iterdir()) == []


class TestKill:
    """A worker that dies in the middle of the sale."""

    def test_killed_workers(self, demo: Callable[..., Demo]) -> None:
        """SIGKILL twice in mid-sale: nothing oversold, all is sold, the database agrees with the buyers."""
        stock = 800
        sale = demo("--workers", "2", "--load", "1200", "--stock", str(stock), "--exit")

        for kill in (1, 2):
            until(lambda: sale.taken() > 100 * kill)  # noqa: B023 - called at once
            sale.kill_worker()

        summary = sale.finish()

        assert (summary["sold"], summary["oversold"], summary["errors"]) == (stock, 0, 0)
        assert summary["acknowledged"] == stock
        assert summary["workers_replaced"] == 2

    def test_a_shop_without_guards_oversells(self, backends: Backends) -> None:
        """Control: without the lock and the conditional update the same count shows what is oversold."""
        env = {**backends, "WINTERSWEET_DEMO_APP": "tests.all._broken:create"}
        outcome = wintersweet(
            "demo", "--workers", "1", "--load", "200", "--stock", "40", "--exit", "--quiet", env=env
        )
        summary = outcome.json()

        assert outcome.status == 1
        assert summary["oversold"] > 0
        assert summary["errors"] > 0

    def test_when_no_worker_can_start(self, temporary: Path) -> None:
        """An application that cannot start ends the demo with its reason, and leaves nothing behind."""
        outcome = wintersweet("demo", "--load", "1", "--exit", env={"WINTERSWEET_DEMO_APP": "no.such:app"})

        assert (outcome.status, outcome.out) == (1, "")
        assert "no.such" in outcome.err
        assert "Traceback" not in outcome.err
        assert list(temporary.iterdir()) == []


def own(temporary: Path) -> list[Path]:
    """Return the demo's folders: that of a killed server's workers is removed by the next server."""
    return [path for path in temporary.iterdir() if path.name.startswith("wintersweet-demo-")]


class TestStop:
    """The way out."""

    @pytest.mark.parametrize(
        ("number", "status", "load"), [(signal.SIGINT, 130, 5000), (signal.SIGTERM, 0, 0)]
    )
    def test_a_signal_stops_everything(
        self, demo: Callable[..., Demo], temporary: Path, number: signal.Signals, status: int, load: int
    ) -> None:
        """Workers and Valkey end with the demo, and temporary files go, in mid-sale and when nobody buys."""
        sale = demo("--port", "0", "--load", str(load), "--stock", "5000")

        if load:
            until(lambda: sale.taken() > 20)

        children = sale.children()
        assert len(children) >= 3, "two workers and a Valkey"
        sale.process.send_signal(number)
        out, err = sale.process.communicate(timeout=60)

        assert (sale.process.returncode, out) == (status, "")
        assert "Traceback" not in err
        assert not [child for child in children if alive(child)]
        assert list(temporary.iterdir()) == []

    def test_a_signal_during_the_start(self, temporary: Path) -> None:
        """Told to stop before the first worker serves, it stops all the same."""
        with running("demo", "--port", "0") as process:
            root = psutil.Process(process.pid)
            children = until(lambda: root.children(recursive=True))
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)

        assert (process.returncode, out) == (0, "")
        assert "Traceback" not in err
        assert not [child for child in children if alive(child)]
        assert list(temporary.iterdir()) == []

    def test_after_the_parent_was_killed(self, demo: Callable[..., Demo], temporary: Path) -> None:
        """SIGKILL of the demo itself leaves no worker and no Valkey running; the next one tidies up."""
        sale = demo("--port", "0")
        children = sale.children()
        os.kill(sale.process.pid, signal.SIGKILL)

        until(lambda: not [child for child in children if alive(child)])
        (left,) = own(temporary)

        with _state(None) as first, _state(None) as second:
            assert sorted(own(temporary)) == sorted([first, second])
            assert left not in {first, second}

        assert own(temporary) == []
