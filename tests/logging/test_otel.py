"""Records arrive at a collector, each at least once, or are counted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from tests.logging._accounts import finish, launch, until
from tests.logging._collector import Collector
from ws_logging import register_logger
from ws_logging._documents import OtlpFormatter
from ws_logging.otel import OtlpSink


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Start a collector."""
    with Collector().serving() as one:
        yield one


def statistics(handle: Any) -> Any:
    """Return the accounts of the only collector, which must balance."""
    (found,) = handle.statistics().files.values()
    assert found.accepted == found.written + found.dropped + found.pending
    return found


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30

    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def documents(count: int) -> list[bytes]:
    """Return lines of OTLP whose bodies are numbers."""
    formatter = OtlpFormatter(None)
    record = '{"logRecords":[{"body":{"stringValue":"%d"}}]}'
    return [formatter.head + (record % number).encode() + formatter.tail for number in range(count)]


class TestSending:
    """A collector that is there."""

    def test_every_record_once(self, collector: Collector) -> None:
        """Records of several threads arrive in requests of many, each thread's in order."""
        handle = register_logger(
            "info", outputs=[{"to": collector.url, "timeout": 60, "headers": {"Authorization": "Bearer abc"}}]
        )

        def work(name: str) -> None:
            for number in range(500):
                logger.info("{} {}", name, number)

        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]

        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()

        assert handle.flush(30)
        found = statistics(handle)
        handle.close()

        assert (found.accepted, found.written, found.dropped) == (1000, 1000, 0)
        for name in "ab":
            assert [one for one in collector.taken if one[0] == name] == [f"{name} {n}" for n in range(500)]
        assert collector.requests < 500
        assert collector.headers["Authorization"] == "Bearer abc"
        assert list(handle.statistics().files) == [f"{collector.url}/v1/logs"]

    def test_beside_a_file(self, collector: Collector, tmp_path: Path) -> None:
        """The same lines stand in a file of OTLP."""
        handle = register_logger(
            "info",
            file_path=tmp_path,
            json="otlp",
            service="shop",
            outputs=[{"to": collector.url, "timeout": 60}],
        )
        logger.info("one")
        handle.close()

        assert collector.taken == ["one"]
        line = json.loads((tmp_path / "app.log").read_text())
        (resource,) = line["resourceLogs"]
        assert resource["resource"]["attributes"] == [
            {"key": "service.name", "value": {"stringValue": "shop"}}
        ]

    def test_a_connection_that_was_closed_meanwhile(self, collector: Collector) -> None:
        """The next request opens another one; the record is neither lost nor counted as trouble."""
        handle = register_logger("info", outputs=[{"to": collector.url, "timeout": 60}])
        logger.info("one")
        assert handle.flush(30)
        collector.disconnect()
        logger.info("two")
        assert handle.flush(30)

        assert collector.taken == ["one", "two"]
        assert statistics(handle).errors == 0

    def test_logging_of_the_sink_itself(self, collector: Collector) -> None:
        """Sending logs nothing, at any level: there would be no end to it."""
        handle = register_logger("trace", outputs=[{"to": collector.url, "timeout": 60}])
        logger.trace("one")
        assert handle.flush(30)
        handle.close()

        assert collector.taken == ["one"]

    def test_after_the_end(self, collector: Collector) -> None:
        """A record that comes after the sink was stopped is sent by its caller."""
        sink = OtlpSink(collector.url + "/v1/logs", OtlpFormatter(None), timeout=60)
        sink.stop()
        sink.put(
            sink._endpoint._head + b'{"logRecords":[{"body":{"stringValue":"late"}}]}' + sink._endpoint._tail
        )

        assert collector.taken == ["late"]


class TestTrouble:
    """A collector that is away, or does not take what it should."""

    def test_away_at_first(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Nothing is lost; stderr has one report."""
        with Collector().serving() as first:
            port = first.port

        handle = register_logger("info", outputs=[{"to": f"http://127.0.0.1:{port}"}])

        for number in range(100):
            logger.info("{}", number)

        eventually(lambda: statistics(handle).errors > 2)
        assert statistics(handle).pending == 100

        with Collector(port).serving() as second:
            assert handle.flush(30)

        assert second.taken == [str(number) for number in range(100)]
        assert statistics(handle).dropped == 0
        handle.close()
        assert capfd.readouterr().err.count("trouble with the log http://127.0.0.1") == 1

    @pytest.mark.parametrize("status", [429, 500, 503, 401, 404, 302, None])
    def test_what_is_tried_again(self, collector: Collector, status: int | None) -> None:
        """Busy, failing, an expired token, no answer at all: it is sent until it is taken."""
        answers = iter([status, status])
        collector.answer = lambda _: next(answers, 200)
        handle = register_logger("info", outputs=[{"to": collector.url, "timeout": 60}])
        logger.info("one")
        assert handle.flush(30)

        assert collector.taken == ["one"]
        found = statistics(handle)
        assert (found.written, found.dropped, found.errors) == (1, 0, 2)
        assert str(status or "") in found.last_error

    def test_a_record_that_is_refused(self, collector: Collector, capfd: pytest.CaptureFixture[str]) -> None:
        """It is dropped and counted, those beside it arrive, and the log says so."""
        collector.answer = lambda bodies: 400 if any("bad" in body for body in bodies) else 200
        handle = register_logger("info", outputs=[{"to": collector.url, "timeout": 60}])

        for number in range(50):
            logger.info("bad {}" if number in (17, 40) else "good {}", number)

        assert handle.flush(30)
        eventually(lambda: len(collector.taken) > 48)
        found = statistics(handle)
        handle.close()

        good = [body for body in collector.taken if body.startswith("good")]
        assert good == [f"good {number}" for number in range(50) if number not in (17, 40)]
        assert (found.written, found.dropped) == (48, 2)
        assert sum(int(body.split()[0]) for body in collector.taken if "were dropped" in body) == 2
        assert "HTTP 400" in capfd.readouterr().err

    @pytest.mark.parametrize(
        ("reply", "rejected"),
        [
            ({"partialSuccess": {"rejectedLogRecords": "3", "errorMessage": "too old"}}, 3),
            ({"partialSuccess": {"rejectedLogRecords": 99}}, 10),
            ({"partialSuccess": {"errorMessage": "a warning"}}, 0),
            ({"partialSuccess": None}, 0),
            ({"partialSuccess": {"rejectedLogRecords": "x"}}, 0),
            ([], 0),
        ],
    )
    def test_a_part_that_is_rejected(self, collector: Collector, reply: Any, rejected: int) -> None:
        """What the collector says it has not kept is counted as dropped."""
        answers = iter([(200, reply)])
        collector.answer = lambda _: next(answers, 200)
        sink = OtlpSink(collector.url, OtlpFormatter(None), timeout=60)

        for line in documents(10):
            sink._lines.offer(line)

        sink.stop()  # all of them in one request
        found = sink.statistics()
        assert (found.accepted, found.written, found.dropped) == (10, 10 - rejected, rejected)

    def test_half_a_request_and_then_trouble(self, collector: Collector) -> None:
        """What was taken of a divided batch is not sent a second time."""
        answers = iter([400, 200, 503])
        collector.answer = lambda _: next(answers, 200)
        sink = OtlpSink(collector.url, OtlpFormatter(None), timeout=60)
        lines = documents(4)
        done, error, _ = sink._endpoint.append(lines)
        assert (done, str(error)) == (2, "HTTP 503 '{}'")
        assert sink._endpoint.append(lines[done:]) == (2, None, [])
        assert collector.taken == ["0", "1", "2", "3"]
        sink.stop()

    def test_an_endless_reply(self, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only its beginning is read, and the connection is not used again."""
        monkeypatch.setattr("ws_logging.otel._LONGEST_REPLY", 10)
        collector.answer = lambda _: (200, {"x": "y" * 1000})
        handle = register_logger("info", outputs=[{"to": collector.url, "timeout": 60}])

        for number in range(3):
            logger.info("{}", number)
            assert handle.flush(30)

        handle.close()
        assert collector.taken == ["0", "1", "2"]


class TestEnds:
    """Processes that end while records wait."""

    PROGRAM = (
        "handle = register_logger('info', outputs=[{'to': URL, 'timeout': 60}])\n"
        "work('a', 2000)\nsay('queued')\n"
    )

    @pytest.mark.parametrize("ending", ["", "sys.exit(0)", "raise SystemExit(0)"])
    def test_return(self, collector: Collector, tmp_path: Path, ending: str) -> None:
        """The queue is sent at exit."""
        finish(launch(tmp_path, f"URL = {collector.url!r}\n" + self.PROGRAM + ending))
        assert len(collector.taken) == 2000

    def test_sigterm(self, collector: Collector, tmp_path: Path) -> None:
        """And before the process dies of the signal."""
        held, let = threading.Event(), threading.Event()

        def slow(_: object) -> int:
            held.set()
            let.wait(30)
            return 200

        collector.answer = slow
        process = launch(tmp_path, f"URL = {collector.url!r}\n" + self.PROGRAM + "sys.stdin.read()\n")
        until(process, "queued")
        assert held.wait(30)
        process.terminate()
        let.set()
        finish(process, -15)
        assert len(collector.taken) == 2000

    def test_a_collector_that_never_comes_back(self, tmp_path: Path) -> None:
        """The process ends all the same, and says how many are lost."""
        with Collector().serving() as gone:
            url = gone.url

        program = (
            "from ws_logging import _queued_sink\n"
            "handle = register_logger('info', outputs=[{'to': URL}])\n"
            "handle._sinks[0]._stop_timeout = 0.3\nwork('a', 10)\n"
        )
        _, err = finish(launch(tmp_path, f"URL = {url!r}\n" + program))
        assert f"10 log lines could not be written to {url}/v1/logs" in err

    def test_a_forked_child(self, collector: Collector, tmp_path: Path) -> None:
        """It has a connection of its own."""
        program = (
            f"handle = register_logger('info', outputs=[{{'to': {collector.url!r}, 'timeout': 60}}])\n"
            "work('parent', 5)\nassert handle.flush(30)\n"
            "if (child := os.fork()) == 0:\n"
            "    work('child', 5)\n    os._exit(0 if handle.flush(30) else 1)\n"
            "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\nwork('parent', 5)\n"
        )
        finish(launch(tmp_path, program))
        assert [body.split()[2] for body in collector.taken] == ["parent"] * 5 + ["child"] * 5 + [
            "parent"
        ] * 5
