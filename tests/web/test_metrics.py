"""``/metrics``: what Prometheus reads, from one worker and from several together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from prometheus_client.parser import text_string_to_metric_families

from tests.web._server import Served, both, deploy, shop
from tools.servers import _binaries
from ws_core.metrics import METRICS, Metric, Sample, TimeRecorder, sample
from ws_web import Settings, create_app
from ws_web._request_metrics import EventLoopLag
from ws_web.metrics import exposition, prometheus_name
from ws_web.testing import AppClient

pytestmark = pytest.mark.deployment

__all__ = ("deploy", "shop")  # fixtures

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def values(text: str) -> Values:
    """Return every value of an exposition by name and labels, read by Prometheus's own client."""
    return {
        (one.name, tuple(sorted((key, value) for key, value in one.labels.items() if value))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def total(found: Values, name: str, **labels: str) -> float:
    """Return the sum over all values of a name that have these labels."""
    wanted = labels.items()
    return sum(
        value for (key, given), value in found.items() if key == name and wanted <= dict(given).items()
    )


def every_metric() -> list[Sample]:
    """Return a sample of each metric with all of its attributes."""
    found: list[Sample] = []

    for metric in METRICS.values():
        if metric.kind == "histogram":
            times = TimeRecorder(metric.name)
            times.record(0.1, *metric.attributes)
            found += times.samples()
        else:
            found.append(sample(metric.name, 7, attributes=dict.fromkeys(metric.attributes, 'x\n"\\')))

    return found


class TestExposition:
    """The format."""

    def test_promtool(self) -> None:
        """Prometheus's own checker has nothing to say about any metric's name, unit or help."""
        text, content_type = exposition(every_metric())
        done = subprocess.run(
            [_binaries.promtool(), "check", "metrics"], input=text, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert content_type.startswith("text/plain")

    @pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
    def test_parser(self, metric: Metric) -> None:
        """What was counted is what is parsed, labels with strange characters included."""
        (found,) = (one for one in every_metric() if one.metric is metric)
        parsed = values(exposition([found])[0].decode())
        name = prometheus_name(metric)

        if metric.kind == "histogram":
            assert total(parsed, f"{name}_count") == 1
            assert total(parsed, f"{name}_sum") == 0.1
            assert sum(key[0] == f"{name}_bucket" for key in parsed) == len(metric.buckets) + 1
            assert total(parsed, f"{name}_bucket", le="+Inf") == 1
        else:
            ((key, labels),) = parsed
            assert key == (f"{name}_total" if metric.kind == "counter" else name)
            assert dict(labels) == {label.replace(".", "_"): 'x\n"\\' for label in metric.attributes}

    def test_open_metrics(self) -> None:
        """A scraper that asks for OpenMetrics gets it."""
        text, content_type = exposition(every_metric(), "application/openmetrics-text; version=1.0.0")
        assert content_type.startswith("application/openmetrics-text")
        assert text.endswith(b"# EOF\n")


def measured(**settings: Any) -> FastAPI:
    """Return an application with metrics."""
    app = create_app(Settings(METRICS=True, ACCESS_LOG="off", **settings))

    @app.get("/items/{item}")
    async def item(item: int) -> int:
        return item

    @app.get("/fails")
    async def fails() -> None:
        raise ZeroDivisionError

    @app.websocket("/ws")
    async def socket(ws: WebSocket) -> None:
        await ws.accept()
        await ws.receive_text()

    return app


class TestRoute:
    """What one process shows."""

    async def test_requests(self) -> None:
        """Duration by method, template, status and error; requests and WebSockets under way."""
        async with AppClient(measured()) as client:
            for path in ("/items/1", "/items/2", "/items/x", "/nothing/1", "/nothing/2"):
                await client.get(path)

            await client.get("/fails")
            await client.request("BREW", "/items/1")

            async with client.websocket("/ws"):
                found = values((await client.get("/metrics")).text)

        name = "http_server_request_duration_seconds_count"
        assert total(found, name, http_route="/items/{item}", http_response_status_code="200") == 2
        assert total(found, name, http_route="/items/{item}", http_response_status_code="422") == 1
        assert total(found, name, http_response_status_code="404") == 2
        assert total(found, name, http_route="/fails", error_type="500") == 1
        assert total(found, name, http_request_method="_OTHER") == 1
        assert total(found, "http_server_active_requests") == 1  # this one
        assert total(found, "wintersweet_websocket_connections") == 1

    async def test_token(self) -> None:
        """With METRICS_TOKEN the token is needed."""
        async with AppClient(measured(METRICS_TOKEN="let me in")) as client:
            for sent in ({}, {"authorization": "Bearer let me"}, {"authorization": "let me in"}):
                reply = await client.get("/metrics", headers=sent)
                assert (reply.status_code, "duration" in reply.text) == (401, False)

            reply = await client.get("/metrics", headers={"authorization": "Bearer let me in"})
            assert reply.status_code == 200

    async def test_off(self) -> None:
        """Without METRICS there is no such route."""
        async with AppClient(create_app()) as client:
            assert (await client.get("/metrics")).status_code == 404

    async def test_event_loop(self) -> None:
        """A callback that blocks the event loop is seen."""
        lag = EventLoopLag(every=0.001)

        async with lag.running():
            await asyncio.sleep(0.01)
            time.sleep(0.15)  # noqa: ASYNC251 - this is what is measured
            await asyncio.sleep(0.01)

        (found,) = lag.samples()
        assert sum(found.buckets[6:]) >= 1  # more than 0.1 s
        assert found.count > 1


class Client:
    """Requests that are counted: those that were answered, and those that a worker may have seen."""

    def __init__(self, served: Served) -> None:
        self._answered: list[int] = []
        self._cut: list[OSError] = []
        self._served = served
        self._stop = threading.Event()

    @property
    def answered(self) -> int:
        """How many were answered."""
        return len(self._answered)

    @property
    def cut(self) -> int:
        """How many were not."""
        return len(self._cut)

    @contextlib.contextmanager
    def load(self) -> Iterator[None]:
        """Send requests from a thread."""
        thread = threading.Thread(target=self._run)
        thread.start()

        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.ask()

    def ask(self) -> int:
        """Return the worker that has answered, or 0."""
        try:
            pid: int = self._served.get("/pid")["data"]
        except OSError as error:  # a worker that is just ending
            self._cut.append(error)
            return 0

        self._answered.append(pid)
        return pid


def scrape(served: Served) -> Values:
    """Return what is counted."""
    while True:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{served.url}/metrics", timeout=60) as reply,
        ):
            return values(reply.read().decode())


@pytest.mark.parametrize("server", ["run", "uvicorn", "gunicorn"])
def test_sums_of_all_workers(server: str, deploy: Callable[..., Served]) -> None:
    """Under load they never fall when a worker is replaced, and at the end they are exact."""
    served = deploy(server, workers=2, WS_METRICS="true", WS_ACCESS_LOG="off")
    workers = both(served)
    time.sleep(1.2)  # what another worker has counted is published once a second
    name, route = "http_server_request_duration_seconds_count", {"http_route": "/pid"}
    began = total(scrape(served), name, **route)
    client, seen = Client(served), [began]

    def watch(until: Callable[[], bool]) -> None:
        while not until():
            seen.append(total(scrape(served), name, **route))

    with client.load():
        watch(lambda: client.answered >= 200)
        os.kill(min(workers), signal.SIGTERM)
        watch(lambda: client.answered >= 500)
        watch(lambda: client.ask() not in {0, *workers})

    assert seen == sorted(seen)
    time.sleep(1.2)
    counted = total(scrape(served), name, **route) - began
    # A request may have been counted, and cut off before its answer was read, while the worker ended.
    assert client.answered <= counted <= client.answered + client.cut
