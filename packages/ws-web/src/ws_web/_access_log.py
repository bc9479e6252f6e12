"""The access log: one line for each request and WebSocket, in the place of ``uvicorn.access``.

Lines go to the logger ``ws_web.access`` of standard logging, at INFO, with the fields of OpenTelemetry's
conventions as ``extra``. While nobody has configured logging, they are written to stderr.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.types import Scope

from ws_web._observation import Exchange
from ws_web._trace_context import get_trace_id
from ws_web.request import client_ip_of

_LONGEST: Final = 200  # characters of a path that fits no route
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")

logger: Final = logging.getLogger("ws_web.access")


class AccessLog:
    """Write a line when an exchange ends."""

    def __init__(self, form: Literal["text", "json"], *, behind_proxies: bool = False) -> None:
        self._as_json = form == "json"
        self._client = _proxied if behind_proxies else _connected
        self._stderr = _StderrHandler()
        self._own: list[logging.Handler] = [self._stderr]
        self._blank: dict[str, Any] = {}  # Any: a record's fields
        self._made_in = (0, 0)

    @contextmanager
    def running(self, is_logged_here: Callable[[], bool]) -> Iterator[None]:
        """Make lines visible for the length of a lifespan, and those of uvicorn for logged requests not."""
        uvicorn = logging.getLogger("uvicorn.access")
        level = logger.level

        def is_news(_: logging.LogRecord) -> bool:
            return not is_logged_here()

        if level == logging.NOTSET:
            logger.setLevel(logging.INFO)

        if not logger.hasHandlers():
            logger.addHandler(self._stderr)

        uvicorn.addFilter(is_news)

        try:
            yield
        finally:
            uvicorn.removeFilter(is_news)
            logger.removeHandler(self._stderr)
            logger.setLevel(level)

    def __call__(self, exchange: Exchange) -> None:
        """Write the line of an exchange."""
        scope = exchange.scope

        if exchange.is_quiet or not logger.isEnabledFor(logging.INFO):
            return

        # A template was written by the developer, and an id was checked: everything else comes from outside.
        route = exchange.route
        target = route or quote(scope["path"][:_LONGEST], safe="/:@", errors="replace")
        method = _shown(exchange.method)
        client = _shown(self._client(exchange.scope))
        request_id = scope.get("ws_web.request_id", "")

        if self._as_json:
            fields = _fields(exchange, method, route, target, client)
            trace = {"trace_id": trace_id} if (trace_id := get_trace_id()) else {}
            text = json.dumps({**fields, "request_id": request_id, **trace})
        else:
            taken = f"{(exchange.ended - exchange.began) * 1000:.1f}ms"
            text = f"{method} {target} {exchange.status} {taken} {exchange.size}B {client} {request_id}"

        if self._is_alone():
            self._stderr.write(text, time.time())
            return

        if logging.root.handlers:  # somebody has configured logging meanwhile: one line is enough
            logger.removeHandler(self._stderr)

        record = self._record(text)
        record.__dict__.update(_fields(exchange, method, route, target, client))
        logger.handle(record)

    def _record(self, text: str) -> logging.LogRecord:
        """Return a record; the logger itself would walk the stack for a place that is always this one."""
        factory = logging.getLogRecordFactory()

        if factory is not logging.LogRecord:
            return factory(logger.name, logging.INFO, __file__, 0, text, None, None, "access")

        here = os.getpid(), threading.get_ident()

        # Names of module, thread and process are found once: that is most of what a record costs.
        if self._made_in != here:
            blank = logging.LogRecord(logger.name, logging.INFO, __file__, 0, "", None, None, "access")
            self._blank = dict(vars(blank))
            self._made_in = here

        record = logging.LogRecord.__new__(logging.LogRecord)
        fields = record.__dict__
        fields.update(self._blank)
        fields["msg"] = text
        fields["created"] = now = time.time()
        fields["msecs"] = now % 1 * 1000 // 1
        fields["relativeCreated"] += (now - self._blank["created"]) * 1000

        if "taskName" in fields:  # of Python 3.12 and newer
            task = asyncio.current_task()
            fields["taskName"] = task.get_name() if task is not None else None

        return record

    def _is_alone(self) -> bool:
        """Return whether our own handler is the only one, so that no record is needed."""
        return logger.handlers == self._own and not (
            logger.filters or logger.disabled or logging.root.handlers
        )


def _fields(
    exchange: Exchange, method: str, route: str | None, target: str, client: str
) -> dict[str, object]:
    """Return what a line says under the names of OpenTelemetry's conventions."""
    return {
        "http.request.method": method,
        "http.route" if route else "url.path": target,
        "http.response.status_code": exchange.status,
        "duration": round(exchange.ended - exchange.began, 6),
        "http.response.body.size": exchange.size,
        "client.address": client,
    }


def _connected(scope: Scope) -> str:
    """Return the address of the other end of the connection."""
    client = scope.get("client")
    return client[0] if client else "-"


def _proxied(scope: Scope) -> str:
    """Return the client's address, which a trusted proxy may have reported."""
    return client_ip_of(HTTPConnection({**scope, "app": scope["ws_web.app"]})) or "-"


@functools.lru_cache(maxsize=4096)
def _shown(text: str) -> str:
    """Return a short word that cannot be taken for two, or for the end of the line."""
    return text if _PLAIN.fullmatch(text) else quote(text[:64], safe="", errors="replace") or "-"


class _StderrHandler(logging.Handler):
    """Writes lines to the present ``sys.stderr``, with the time before them."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._second = 0
        self._stamp = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, which somebody has sent to the logger."""
        self.write(record.getMessage(), record.created)

    def write(self, text: str, at: float) -> None:
        """Write a line."""
        second = int(at)

        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))

        line = (
            f'{{"time": "{self._stamp}", {text[1:]}\n' if text.startswith("{") else f"{self._stamp} {text}\n"
        )

        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads it any more: the request must not fail
            pass
