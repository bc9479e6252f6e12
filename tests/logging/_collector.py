"""A collector that takes OTLP by HTTP, and misbehaves as a test wants it."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

# Takes the bodies of a request's records; returns the status, or None to close without an answer.
Answer = Callable[[list[str]], int | tuple[int, dict[str, Any]] | None]


def parse(document: str | bytes) -> ExportLogsServiceRequest:
    """Return a request as OpenTelemetry's own classes read it; unknown fields and wrong types raise."""
    known = json.loads(document)

    # OTLP writes ids in hexadecimal digits, where protobuf's own JSON has base64.
    for resource in known["resourceLogs"]:
        for scope in resource["scopeLogs"]:
            for record in scope["logRecords"]:
                for name, size in (("traceId", 16), ("spanId", 8)):
                    assert len(bytes.fromhex(record.pop(name, "00" * size))) == size

    return Parse(json.dumps(known), ExportLogsServiceRequest())


class Collector:
    """What has arrived, in order."""

    def __init__(self, port: int = 0) -> None:
        self.taken: list[str] = []
        self.requests = 0
        self.connections: list[socket.socket] = []
        self.headers: dict[str, str] = {}
        self.answer: Answer = lambda _: 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                collector.connections.append(self.connection)

            def do_POST(self) -> None:
                collector.handle(self)

            def log_message(self, *_: object) -> None:
                """Print no log line."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = False
        self.server.block_on_close = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = gzip.decompress(request.rfile.read(int(request.headers["Content-Length"])))
        parsed = parse(body)
        bodies = [
            record.body.string_value
            for resource in parsed.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
        self.requests += 1
        self.headers = dict(request.headers)
        answer = self.answer(bodies)

        if answer is None:
            request.close_connection = True
            return

        status, reply = answer if isinstance(answer, tuple) else (answer, {})

        if status == 200:
            self.taken += bodies

        text = json.dumps(reply).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def disconnect(self) -> None:
        """Close all connections, as a collector may at any time."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def serving(self) -> Iterator[Collector]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()

        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.disconnect()
            self.server.server_close()
