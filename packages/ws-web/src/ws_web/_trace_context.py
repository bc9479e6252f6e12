"""The trace that a request belongs to: in its log lines, its jobs, and the requests that are made for it.

The header ``traceparent`` of W3C Trace Context is read where it is needed, and passed on as it came while
nobody records spans. With OpenTelemetry, the present span is what counts.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from ws_core.context import carry
from ws_web._negotiation import current_scope, with_scope

_KEYS: Final = {"traceparent": "ws_web.traceparent", "tracestate": "ws_web.tracestate"}  # of a restored scope
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")


def get_traceparent() -> str:
    """Return the header as the client of the present request sent it, or ``""`` for none or a wrong one."""
    sent = _sent("traceparent")
    found = _TRACEPARENT.fullmatch(sent[0]) if len(sent) == 1 else None

    # A version that is not known yet may have more parts; the first one has not.
    return "" if found is None or (found["more"] and sent[0].startswith("00")) else sent[0]


def get_tracestate() -> str:
    """Return what vendors have added to the trace of the present request, or ``""``."""
    state = ",".join(_sent("tracestate"))
    return state if get_traceparent() and _TRACESTATE.fullmatch(state) else ""


def get_trace_id() -> str:
    """Return the id of the present trace: 32 hexadecimal digits, or ``""``."""
    span = _span()
    return f"{span.trace_id:032x}" if span is not None else get_traceparent()[3:35]


def get_span_id() -> str:
    """Return the id of OpenTelemetry's present span: 16 hexadecimal digits, or ``""``."""
    span = _span()
    return f"{span.span_id:016x}" if span is not None else ""


def _span() -> Any:  # Any: OpenTelemetry is optional
    """Return the context of OpenTelemetry's present span, if there is one."""
    trace = sys.modules.get("opentelemetry.trace")
    span = None if trace is None else trace.get_current_span().get_span_context()
    return span if span is not None and span.is_valid else None


def _sent(name: str) -> list[str]:
    """Return the values of a header of the present request, or of that which started the present job."""
    scope = current_scope.get()

    if (known := scope.get(_KEYS[name])) is not None:
        return [known]

    raw = name.encode()
    return [value.decode("latin-1") for key, value in scope.get("headers", ()) if key == raw]


carry("traceparent", get_traceparent, with_scope(_KEYS["traceparent"]))
carry("tracestate", get_tracestate, with_scope(_KEYS["tracestate"]))
