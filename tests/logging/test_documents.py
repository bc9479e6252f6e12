"""Lines of OTLP: what OpenTelemetry's own classes read, whatever is logged."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.trace import TracerProvider

from tests.logging._collector import parse
from tests.logging._records import CIRCLE, ERRORS, TEXTS, VALUES, BrokenError, written
from ws_logging import context
from ws_logging._documents import OtlpFormatter

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def record_of(text: str) -> Any:
    """Return the only record of a line."""
    assert text.count("\n") == 1
    (resource,) = parse(text).resource_logs
    (scope,) = resource.scope_logs
    (record,) = scope.log_records
    return record


def python(value: AnyValue) -> Any:
    """Return what an AnyValue holds."""
    match value.WhichOneof("value"):
        case "array_value":
            return [python(item) for item in value.array_value.values]
        case "kvlist_value":
            return {pair.key: python(pair.value) for pair in value.kvlist_value.values}
        case None:
            return None
        case kind:
            return getattr(value, kind)


def attributes(record: Any) -> dict[str, Any]:
    """Return the attributes of a record; none may be there twice."""
    found = {pair.key: python(pair.value) for pair in record.attributes}
    assert len(found) == len(record.attributes)
    return found


class TestOtlp:
    """``json="otlp"``."""

    def test_every_part(self) -> None:
        """Time, severity, body, attributes of each type, scope, Resource, ids."""
        fields = {
            "text": "ann", "int": 7, "float": 1.5, "yes": True, "none": None, "list": [1, "a", [None]],
            "map": {"a": {"b": 2}}, "large": 2**80, "bytes": b"x", "trace_id": TRACE, "span_id": SPAN,
        }  # fmt: skip
        text = written("a\nb", fields, None, json="otlp", service={"service.name": "shop", "n": 2})
        (resource,) = parse(text).resource_logs
        record = record_of(text)
        found = attributes(record)

        assert {pair.key: python(pair.value) for pair in resource.resource.attributes} == {
            "service.name": "shop", "n": 2,
        }  # fmt: skip
        assert resource.scope_logs[0].scope.name == "tests.logging._records"
        assert record.time_unix_nano == record.observed_time_unix_nano > 1.7e18
        assert (record.severity_number, record.severity_text) == (9, "INFO")
        assert record.body.string_value == "a\nb"
        del fields["trace_id"], fields["span_id"]
        assert {name: found[name] for name in fields} == {**fields, "large": str(2**80), "bytes": "x"}
        assert found["process.pid"] == os.getpid()
        assert found["code.function.name"] == "written"
        raw = json.loads(text)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
        assert (raw["traceId"], raw["spanId"]) == (TRACE, SPAN)

    def test_exceptions(self) -> None:
        """They are attributes, by OpenTelemetry's names."""
        text = written("m", {}, KeyError("password=hunter2"), json="otlp")
        found = attributes(record_of(text))
        assert found["exception.type"] == "KeyError"
        assert found["exception.stacktrace"].startswith("KeyError")
        assert "hunter2" not in text

    @given(message=TEXTS, fields=st.dictionaries(TEXTS, VALUES, max_size=4), error=st.none() | ERRORS)
    def test_every_record(self, message: str, fields: dict[str, Any], error: Exception | None) -> None:
        """Any message, fields and exception become one record that can be read."""
        for redact in ((), None):
            attributes(record_of(written(message, fields, error, json="otlp", redact=redact)))

    def test_repairs_are_marked(self) -> None:
        """What was not rendered as it is says so."""
        found = attributes(
            record_of(written("m", {"x": float("nan")}, BrokenError(), json="otlp", redact=None))
        )
        assert "not rendered as it is" in found["log.repaired"]
        assert "circular" in str(attributes(record_of(written("m", {"x": CIRCLE}, None, json="otlp"))))

    def test_a_formatter_that_fails_altogether(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even then there is a record, with the message and the reason."""
        for method in ("_render", "_repaired"):
            monkeypatch.setattr(OtlpFormatter, method, lambda *_: 1 / 0)

        record = record_of(written("m", {}, None, json="otlp"))
        assert record.body.string_value == "m"
        assert "ZeroDivisionError" in attributes(record)["log.repaired"]

    @pytest.mark.parametrize("letter", ["a ", "\x00", "\u6c49"])
    def test_length(self, letter: str) -> None:
        """A record is never longer in bytes than `max_line`, and says that it was cut."""
        text = letter * 20_000
        line = written(text, {"x": text, "y": [text]}, ValueError(text), json="otlp", max_line=10_000)

        assert len(line.encode()) <= 10_000
        assert "log.cut" in attributes(record_of(line))

    def test_a_field_does_not_replace_what_is_the_records_own(self) -> None:
        """Nor does it stand beside it."""
        found = attributes(
            record_of(written("m", {"process.pid": 1, "code.stacktrace": "x"}, None, json="otlp"))
        )
        assert found["process.pid"] == os.getpid()
        assert "code.stacktrace" not in found

    def test_many_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is kept of names and threads is bounded."""
        monkeypatch.setattr("ws_logging._documents._MOST_NAMES", 3)

        for number in range(10):
            text = written("m", {f"{number}-{n}": n for n in range(10)}, None, json="otlp")
            assert attributes(record_of(text))[f"{number}-9"] == 9


class TestIds:
    """Ids of traces and spans."""

    @pytest.fixture(autouse=True)
    def _no_providers(self) -> Iterator[None]:
        yield
        context.withdraw("trace_id")

    @pytest.fixture
    def tracer(self) -> Any:
        """Return a tracer."""
        return TracerProvider().get_tracer("test")

    @pytest.mark.parametrize(
        ("trace_id", "span_id"),
        [("t", "s"), ("0" * 32, "0" * 16), (TRACE.upper(), SPAN[:-1]), (TRACE + "\n", 5), (None, [SPAN])],
    )
    def test_what_is_no_id(self, trace_id: Any, span_id: Any) -> None:
        """It stays a field: a collector refuses a whole request for an id that is not one."""
        text = written("m", {"trace_id": trace_id, "span_id": span_id}, None, json=True)
        line = json.loads(text)

        assert not {"TraceId", "SpanId"} & set(line)
        assert line["Attributes"]["trace_id"] == trace_id
        assert line["Attributes"]["span_id"] == span_id
        record_of(written("m", {"trace_id": trace_id, "span_id": span_id}, None, json="otlp"))

    def test_of_the_current_span(self, tracer: Any) -> None:
        """They are on each record inside it, and on none outside."""
        with tracer.start_as_current_span("x") as span:
            inside = json.loads(written("m", {}, None, json=True))

        ids = span.get_span_context()
        assert inside["TraceId"] == trace.format_trace_id(ids.trace_id)
        assert inside["SpanId"] == trace.format_span_id(ids.span_id)
        assert "TraceId" not in json.loads(written("m", {}, None, json=True))
        assert f"trace_id={TRACE}" in written("m", {"trace_id": TRACE}, None)

    def test_of_the_request(self, tracer: Any) -> None:
        """A trace that came with a request is on the lines without OpenTelemetry; a span goes before it."""
        context.provide("trace_id", lambda: TRACE)
        assert json.loads(written("m", {}, None, json=True))["TraceId"] == TRACE

        with tracer.start_as_current_span("x") as span:
            own = trace.format_trace_id(span.get_span_context().trace_id)
            assert json.loads(written("m", {}, None, json=True))["TraceId"] == own
            assert json.loads(written("m", {"trace_id": TRACE}, None, json=True))["TraceId"] == TRACE

    def test_while_opentelemetry_is_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module that is half there costs nothing; neither does a provider that raises."""
        monkeypatch.setitem(sys.modules, "opentelemetry.trace", object())
        assert json.loads(written("m", {}, None, json=True))["Body"] == "m"

        def fail() -> object:
            raise RuntimeError("broken")

        context.provide("trace_id", fail)
        line = json.loads(written("m", {"x": 1}, None, json=True))
        assert (line["Body"], line["Attributes"]["x"]) == ("m", 1)
        assert "RuntimeError: broken" in line["Attributes"]["log.repaired"]
