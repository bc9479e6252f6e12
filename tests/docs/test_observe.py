"""The page about observing a service: its configurations are loaded by the programs that they are for."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tools.servers import _binaries
from ws_core.metrics import METRICS
from ws_web.metrics import prometheus_name

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "how-to" / "observe.md").read_text()
DASHBOARD = json.loads((DOCS / "observe-grafana.json").read_text())


def block(title: str) -> str:
    """Return a block of the page by its title."""
    found = re.search(rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def promtool(*arguments: str | Path) -> str:
    """Run Prometheus's checker, which must find nothing wrong."""
    done = subprocess.run([_binaries.promtool(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def series() -> set[str]:
    """Return the names of all series that ``/metrics`` can have."""
    found = set()

    for metric in METRICS.values():
        name = prometheus_name(metric)
        ends = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
        found |= {name + end for end in ends[metric.kind]}

    return found


def unknown(expression: str) -> set[str]:
    """Return the series in an expression that do not exist."""
    return (
        set(re.findall(r"\b(?:db|http|messaging|wintersweet)_\w+(?=[{\[)\s]|$)", expression))
        - series()
        - labels()
    )


def labels() -> set[str]:
    """Return the names of all labels."""
    return {name.replace(".", "_") for metric in METRICS.values() for name in metric.attributes}


def test_prometheus(tmp_path: Path) -> None:
    """The configuration and the rules are accepted by promtool; each series in a rule exists."""
    for name in ("prometheus.yml", "wintersweet-rules.yml"):
        (tmp_path / name).write_text(block(name))

    assert "SUCCESS: 4 rules found" in promtool("check", "config", tmp_path / "prometheus.yml")
    (group,) = yaml.safe_load(block("wintersweet-rules.yml"))["groups"]
    assert [unknown(rule["expr"]) for rule in group["rules"]] == [set()] * 4


def test_grafana(tmp_path: Path) -> None:
    """Each expression of the dashboard is accepted by promtool, and its series and labels exist."""
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"panel:{n}", "expr": text.replace("$__rate_interval", "5m").replace("$job", "shop")}
        for n, text in enumerate(expressions)
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")
    assert [unknown(text) for text in expressions] == [set()] * len(expressions)
    legends = {name for panel in DASHBOARD["panels"] for t in panel["targets"] for name in legend(t)}
    assert legends <= labels()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def legend(target: dict[str, Any]) -> list[str]:
    """Return the labels in the legend of a target."""
    return re.findall(r"{{(\w+)}}", target["legendFormat"])


def test_a_missing_series_is_found() -> None:
    """The test above can fail."""
    assert unknown('rate(http_server_requests_total{http_route="/"}[5m])') == {"http_server_requests_total"}


def test_collector() -> None:
    """Every part that a pipeline of the collector names is configured."""
    found = yaml.safe_load(block("collector.yaml"))

    for pipeline in found["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(found[kind])


def test_table() -> None:
    """The page lists every metric as the table of the code has it."""
    rows = re.findall(r"^\| `([\w.]+)` \| (\w+) \| `([^`]+)` \| (.*?) ?\|$", PAGE, re.MULTILINE)
    assert rows == [
        (name, metric.kind, metric.unit, ", ".join(f"`{one}`" for one in metric.attributes))
        for name, metric in METRICS.items()
    ]
