"""The configurations on the page about shipping logs are loaded by the parsers that they are for."""

from __future__ import annotations

import configparser
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ws_logging import logger, register_logger

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/logging-shipping.md"


def block(title: str) -> str:
    """Return a block of the page by its title."""
    found = re.search(
        rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None, title
    return found[1]


@pytest.fixture(scope="module")
def line() -> Any:
    """Return a line of JSON with all that it may have."""
    stream = io.StringIO()
    handle = register_logger("info", stream, json=True, service="shop")
    logger.bind(trace_id="1" * 32, span_id="1" * 16).info("m")
    handle.close()
    return json.loads(stream.getvalue())


def test_the_collector() -> None:
    """Each part of a pipeline is defined, and each that is defined is used."""
    loaded = yaml.safe_load(block("otel-collector.yaml"))
    pipelines = loaded["service"]["pipelines"].values()

    for kind in ("receivers", "processors", "exporters"):
        assert {name for one in pipelines for name in one[kind]} == set(loaded[kind])


def test_filebeat_and_its_pipeline(line: Any) -> None:
    """The pipeline names fields that lines have, in the place to which Filebeat parses them."""
    (source,) = yaml.safe_load(block("filebeat.yml"))["filebeat.inputs"]
    (parser,) = source["parsers"]
    target = parser["ndjson"]["target"]
    pipeline = json.loads(block("PUT _ingest/pipeline/ws-logging"))
    named = set(re.findall(rf"{target}\.(\w+(?:\.Name)?)", json.dumps(pipeline)))

    for name in named:
        inner = line
        for part in name.split("."):
            inner = inner[part]

    assert named >= {"Timestamp", "Body", "SeverityText", "TraceId", "SpanId", "Attributes"}


def test_the_unit(tmp_path: Path) -> None:
    """Systemd has nothing to say against the unit, where it is installed."""
    text = block("shop.service")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    assert float(parser["Service"]["TimeoutStopSec"]) > 10

    if (program := shutil.which("systemd-analyze")) is not None:
        (tmp_path / "shop.service").write_text(text)
        words = [program, "verify", "--man=no", str(tmp_path / "shop.service")]
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
        assert "shop.service" not in done.stderr


def test_logrotate(tmp_path: Path) -> None:
    """Logrotate reads it, and would rotate the file."""
    program = shutil.which("logrotate") or "/usr/sbin/logrotate"

    if not Path(program).exists():
        pytest.skip("logrotate is not installed")

    log, configuration = tmp_path / "app.log", tmp_path / "shop"
    log.write_text("line\n")
    tmp_path.chmod(0o755)
    text = block("/etc/logrotate.d/shop").replace("/var/log/shop/app.log", str(log))
    configuration.write_text(text)
    words = [program, "--force", "--state", str(tmp_path / "state"), str(configuration)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "app.log.1").read_text() == "line\n"
