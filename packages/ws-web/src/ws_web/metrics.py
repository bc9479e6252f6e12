"""``/metrics`` in Prometheus's format, of all workers of the service together.

Needs the extra ``ws-web[metrics]``. The numbers are those that `ws_core.metrics` collects from every
library in use; each worker publishes its own once a second, and whichever is scraped returns the sums.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, Iterator

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ws_core.errors import MissingExtraError
from ws_core.metrics import Metric, Sample

try:
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
except ModuleNotFoundError as _error:
    raise MissingExtraError.for_extra("METRICS", "ws-web[metrics]") from _error

__all__ = ("add_metrics_route", "exposition", "prometheus_name")

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def prometheus_name(metric: Metric) -> str:
    """
    Return a metric's name as Prometheus has it, without the ``_total`` of counters.

    Args:
        metric: The metric.

    Example:
        >>> from ws_core.metrics import METRICS
        >>> prometheus_name(METRICS["http.server.request.duration"])
        'http_server_request_duration_seconds'
        >>> prometheus_name(METRICS["db.client.connection.count"])
        'db_client_connections'
    """
    name = metric.name

    # Prometheus keeps names that end in _count for histograms.
    if metric.kind != "histogram" and name.endswith(".count"):
        name = f"{name.removesuffix('.count')}s"

    return name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")


def exposition(samples: Iterable[Sample], accept: str = "") -> tuple[bytes, str]:
    """
    Return samples in Prometheus's format, or that of OpenMetrics.

    Args:
        samples: The numbers.
        accept: The request's ``Accept`` header, which decides about the format.

    Returns:
        The text, and its content type.

    Example:
        >>> from ws_core.metrics import sample
        >>> text, _ = exposition([sample("wintersweet.log.pending", 3)])
        >>> print(text.decode().splitlines()[-1])
        wintersweet_log_pending 3.0
    """
    encode, content_type = choose_encoder(accept)
    text: bytes = encode(_Collected(samples))
    return text, content_type


class _Collected:
    """Samples as the registry of prometheus_client that its encoders want."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        """Return one family for each metric."""
        families: dict[str, Family] = {}

        for found in self._samples:
            family = families.setdefault(found.metric.name, _family(found.metric))
            given = dict(found.attributes)
            labels = [given.get(name, "") for name in found.metric.attributes]

            if isinstance(family, HistogramMetricFamily):
                family.add_metric(labels, _buckets(found), found.value)
            else:
                family.add_metric(labels, found.value)

        yield from families.values()


def _family(metric: Metric) -> Family:
    families: dict[str, Callable[..., Family]] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    labels = [name.replace(".", "_") for name in metric.attributes]
    return families[metric.kind](prometheus_name(metric), metric.description, labels=labels)


def _buckets(found: Sample) -> list[tuple[str, float]]:
    """Return the edges with how many times are below each."""
    buckets, total = [], 0

    for edge, count in zip(found.metric.buckets, found.buckets, strict=False):
        total += count
        buckets.append((str(float(edge)), float(total)))

    return [*buckets, ("+Inf", float(found.count))]


def add_metrics_route(
    app: FastAPI, samples: Callable[[], Awaitable[Iterable[Sample]]], *, token: str = ""
) -> None:
    """
    Add ``/metrics`` to an application; it is not part of its OpenAPI, nor of its access log.

    Args:
        app: The application.
        samples: Returns, awaited, the samples of the service.
        token: If not empty, requests need ``Authorization: Bearer <token>``.
    """

    async def metrics(request: Request) -> Response:
        request.scope["ws_web.quiet"] = True
        sent = request.headers.get("authorization", "").encode()

        if token and not hmac.compare_digest(sent, f"Bearer {token}".encode()):
            return PlainTextResponse("the token is missing or wrong\n", 401, {"www-authenticate": "Bearer"})

        text, content_type = exposition(await samples(), request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type, "cache-control": "no-store"})

    app.add_route("/metrics", metrics, methods=["GET"], include_in_schema=False)
