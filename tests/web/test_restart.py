"""Restarts under load: no request fails, whoever is stopped, and whoever replaces it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

import pytest

from tests.web._server import Served, both, serve, shop

pytestmark = pytest.mark.deployment

__all__ = ("serve", "shop")


NEW_ROUTE = """
@app.get("/new")
async def new() -> str:
    return "new"
"""


class Load:
    """Clients with kept and with new connections, which repeat a request only where HTTP allows it."""

    def __init__(self, port: int, *, kept: int = 6, new: int = 4, pause: float = 0.03) -> None:
        self.failures: list[str] = []
        self.retries = 0
        self.answered = 0
        self._port = port
        self._pause = pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._keep) for _ in range(kept)]
        self._threads += [threading.Thread(target=self._renew) for _ in range(new)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()

        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

        for thread in self._threads:
            thread.join()

    def _request(self, connection: http.client.HTTPConnection) -> None:
        connection.request("GET", "/pid")
        reply = connection.getresponse()
        body = json.loads(reply.read())

        if reply.status != 200 or body["code"] != 0:
            self.failures.append(f"{reply.status} {body}")

        self.answered += 1

    def _renew(self) -> None:
        while not self._stop.wait(self._pause):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)

            try:
                self._request(connection)
            except (OSError, http.client.IncompleteRead) as error:
                self.failures.append(f"new connection: {error!r}")
            finally:
                connection.close()

    def _keep(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)

        while not self._stop.wait(self._pause):
            is_fresh = connection.sock is None

            try:
                self._request(connection)
            except http.client.IncompleteRead as error:
                connection.close()
                self.failures.append(f"a reply was cut: {error!r}")
            except OSError as error:
                connection.close()

                if is_fresh:
                    self.failures.append(f"first request of a connection: {error!r}")
                else:
                    self.retries += 1  # a stale kept connection: RFC 9110 9.2.2 allows to repeat a GET

        connection.close()


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    """Two workers that serve."""
    served = serve("workers=2")
    both(served)
    return served


def replaced(served: Served, before: set[int]) -> set[int]:
    """Wait until two other workers have answered."""
    deadline = time.monotonic() + 60

    while before & (now := both(served)):
        assert time.monotonic() < deadline

    return now


class TestUnderLoad:
    """About 200 requests per second, on kept and on new connections."""

    def test_each_worker_is_stopped_in_turn(self, served: Served) -> None:
        """SIGTERM to a worker: it answers what it has accepted, and another takes its place."""
        with Load(served.port) as load:
            for pid in both(served):
                time.sleep(0.5)
                os.kill(pid, signal.SIGTERM)
                replaced(served, {pid})

        assert load.failures == []
        assert load.retries == 0
        assert load.answered > 100

    def test_a_rolling_restart(self, served: Served) -> None:
        """SIGHUP to the parent: each new worker serves before an old one stops."""
        before = both(served)

        with Load(served.port) as load:
            time.sleep(0.5)
            served.process.send_signal(signal.SIGHUP)
            served.wait_for("all workers are restarted")

        assert not before & both(served)
        assert load.failures == []
        assert load.retries == 0
        assert "killed" not in "".join(served.said)

    def test_a_deployment_that_replaces_the_directory(self, served: Served) -> None:
        """The new workers run the new code."""
        place = served.place
        source = (place / "shop.py").read_text()

        with Load(served.port) as load:
            old = place.rename(place.with_name("old"))
            place.mkdir()
            (place / "shop.py").write_text(
                source + '\n\n@app.get("/new")\nasync def new() -> str:\n    return "new"\n'
            )
            served.process.send_signal(signal.SIGHUP)
            served.wait_for("all workers are restarted")

        assert served.get("/new")["data"] == "new"
        assert load.failures == []
        assert (old / "shop.py").exists()

    def test_a_broken_deployment_keeps_the_old_workers(self, served: Served) -> None:
        """A new worker that cannot start ends the restart, not the service."""
        before = both(served)

        with Load(served.port) as load:
            (served.place / "broken").touch()
            served.process.send_signal(signal.SIGHUP)
            served.wait_for("the restart is given up, the old workers go on: pool 'default' cannot reach")

        assert both(served) == before
        assert load.failures == []

    def test_a_killed_worker(self, served: Served) -> None:
        """Control: SIGKILL fails what the worker had in hand, so this load notices what goes wrong."""
        with Load(served.port, kept=20, new=0, pause=0.0) as load:
            time.sleep(0.3)
            os.kill(both(served).pop(), signal.SIGKILL)
            time.sleep(1)

        assert load.retries > 0 or load.failures


class TestDrain:
    """What SIGTERM does, in its order."""

    def test_readiness_fails_first(self, serve: Callable[..., Served]) -> None:
        """While everything is still served, so that load balancers notice."""
        served = serve("", WS_DRAIN_DELAY="2")
        assert served.get("/readyz")["code"] == 0
        served.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10

        while _status(served.port, "/readyz") != 503:
            assert time.monotonic() < deadline

        assert served.get("/pid")["code"] == 0
        assert served.process.wait(30) == 0

    def test_accepted_connections_are_answered(self, serve: Callable[..., Served]) -> None:
        """Also those whose request comes only after the signal; each reply ends its connection."""
        served = serve("", WS_DRAIN_DELAY="0")
        connections = [http.client.HTTPConnection("127.0.0.1", served.port, timeout=30) for _ in range(10)]

        for number, connection in enumerate(connections):
            connection.connect()

            if number % 2:
                connection.request("GET", "/pid")
                connection.getresponse().read()

        time.sleep(0.2)  # they are accepted now
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)

        for connection in connections:
            connection.request("GET", "/pid")
            reply = connection.getresponse()
            assert (reply.status, reply.getheader("connection")) == (200, "close")
            reply.read()
            connection.close()

        assert served.process.wait(30) == 0

    def test_event_streams_end(self, serve: Callable[..., Served]) -> None:
        """A stream that would go on for ever gets a proper end, and the stop does not wait for it."""
        served = serve("", WS_DRAIN_DELAY="0")
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        connection.request("GET", "/events")
        reply = connection.getresponse()
        assert reply.readline().startswith(b"data:")
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        reply.read()  # raises IncompleteRead when the stream is cut off
        assert served.process.wait(30) == 0
        assert time.monotonic() - began < 5
        connection.close()

    def test_a_request_that_is_cut_is_answered(self, serve: Callable[..., Served]) -> None:
        """With 503 in the envelope, when the time to stop is over."""
        served = serve("graceful_timeout=1", WS_DRAIN_DELAY="0")
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        connection.request("GET", "/stuck", headers={"x-request-id": "cut-1"})

        while not (served.place / "stuck").exists():
            time.sleep(0.01)

        served.process.send_signal(signal.SIGTERM)
        reply = connection.getresponse()
        body = json.loads(reply.read())
        assert (reply.status, reply.getheader("retry-after")) == (503, "1")
        assert (body["code"], body["request_id"]) == (503, "cut-1")
        assert served.process.wait(30) == 0
        connection.close()


class TestSlowClients:
    """A half-open request ends by itself."""

    @pytest.mark.parametrize(
        "begun",
        [
            b"",
            b"GET /pid HTTP/1.1\r\nhost: x\r\n",
            b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc",
        ],
    )
    def test_it_is_closed(self, serve: Callable[..., Served], begun: bytes) -> None:
        """In the head, in the body, and before the first byte; single bytes do not prolong a head."""
        served = serve("read_timeout=1")
        address = ("127.0.0.1", served.port)

        with _connect(address) as client:
            client.sendall(begun)
            began = time.monotonic()
            client.settimeout(0.3)

            while True:
                try:
                    if client.recv(4096) == b"":
                        break
                except TimeoutError:
                    assert time.monotonic() - began < 10

                    if b"\r\n\r\n" not in begun and begun:
                        client.sendall(b"x")
                except OSError:
                    break

        assert served.get("/pid")["code"] == 0

    def test_a_head_without_end(self, serve: Callable[..., Served]) -> None:
        """Beyond 64 KiB it is refused with 431."""
        served = serve()

        with _connect(("127.0.0.1", served.port)) as client:
            client.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n")
            for _ in range(17):
                client.sendall(b"x-padding: " + b"x" * 4000 + b"\r\n")

            assert client.recv(4096).startswith(b"HTTP/1.1 431 ")
        assert served.get("/pid")["code"] == 0


def _connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=30)


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
