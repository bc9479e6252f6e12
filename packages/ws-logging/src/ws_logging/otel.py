"""Log records sent to a collector by OTLP, OpenTelemetry's protocol: JSON over HTTP.

What waits, what is dropped and what happens at the end of the process is as with files, see
`QueuedSink`: a collector that is away costs nothing until the queue is full. Nothing has to be
installed for it; the ids of spans are on the records as soon as the application loads OpenTelemetry.
"""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from ws_core.errors import describe
from ws_logging import _exit_hooks
from ws_logging._documents import OtlpFormatter
from ws_logging._queued_sink import QueuedSink
from ws_logging._sink_options import Overflow, check
from ws_logging.errors import LoggingConfigError

__all__ = ("OtlpSink", "check_url")

# Any below: what is checked may be of any type.

_PATH: Final = "/v1/logs"
# A record is refused for good when it is itself what the collector cannot take. Anything else, such as
# an expired token or a route that is missing, is mended without the records being any worse.
_REFUSED: Final = frozenset({400, 413, 415, 422})
_LONGEST_REPLY: Final = 64 * 1024  # bytes that are read


class OtlpSink(QueuedSink):
    """
    A queue in front of a collector; `register_logger` makes it of ``outputs=[{"to": "http://…"}]``.

    Records are sent at least once: when the reply is lost, they are sent again. Those that the
    collector rejects are counted as dropped.

    Args:
        url: Where the collector listens; ``/v1/logs`` is added when there is no path.
        formatter: Makes the lines.
        headers: Further headers of the requests, such as ``{"Authorization": "Bearer …"}``.
        timeout: Seconds that a request may take.
        max_bytes: How many bytes may wait.
        max_records: How many messages may wait.
        overflow: What to do when the queue is full, see `QueuedFileSink`.
        block_timeout: Seconds, see `QueuedFileSink`.
        stop_timeout: Seconds to empty the queue at exit.
        notice: Makes the line that reports a number of dropped messages.

    Raises:
        LoggingConfigError: An argument makes no sense. Whether the collector answers is not looked at.

    Example:
        >>> from ws_logging import register_logger
        >>> handle = register_logger("info", service="shop", outputs=[{"to": "http://127.0.0.1:4318"}])
        >>> handle.statistics().files["http://127.0.0.1:4318/v1/logs"].pending
        0
        >>> handle.close()
    """

    def __init__(
        self,
        url: str,
        formatter: OtlpFormatter,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
        max_bytes: int = 64 * 1024 * 1024,
        max_records: int = 200_000,
        overflow: Overflow = "block",
        block_timeout: float = 1.0,
        stop_timeout: float = 10.0,
        notice: Callable[[int], str] | None = None,
    ) -> None:
        parts = check_url(url, headers, timeout)
        check(
            overflow=overflow,
            max_bytes=max_bytes,
            max_records=max_records,
            block_timeout=block_timeout,
            stop_timeout=stop_timeout,
        )
        self._endpoint = _Endpoint(parts, formatter, dict(headers or {}), timeout)
        super().__init__(
            self._endpoint,
            max_bytes=max_bytes,
            max_records=max_records,
            overflow=overflow,
            block_timeout=block_timeout,
            stop_timeout=stop_timeout,
            notice=notice,
        )
        _exit_hooks.watch(self)

    @property
    def path(self) -> str:
        """The URL."""
        return self._endpoint.name


def check_url(url: Any, headers: Any, timeout: Any) -> SplitResult:
    """Return the parts of a collector's URL, or refuse it and what belongs to it."""
    parts, known = SplitResult("", "", "", "", ""), False

    try:
        parts = urlsplit(str(url))
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets of an IPv6 address, or the port
        pass

    if not known or parts.query or parts.fragment:
        # Not shown: it may hold a secret.
        raise LoggingConfigError('to: a URL such as "http://collector:4318" is expected')

    if "@" in parts.netloc:
        raise LoggingConfigError("to: credentials do not belong in a URL; give headers with an Authorization")

    if headers is not None and not (
        isinstance(headers, Mapping)
        and all(
            isinstance(part, str) and part.isascii() and part.isprintable()
            for pair in headers.items()
            for part in pair
        )
    ):
        raise LoggingConfigError("headers: a mapping of names to printable texts is expected")

    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout <= 3600:
        raise LoggingConfigError(f"timeout: seconds up to 3600 are expected, not {timeout!r}")

    return parts if parts.path not in ("", "/") else parts._replace(path=_PATH)


class _Endpoint:
    """A collector, as a destination of lines: a batch is one request."""

    def __init__(
        self, url: SplitResult, formatter: OtlpFormatter, headers: Mapping[str, str], timeout: float
    ) -> None:
        self.rotations = self.rejected = 0
        self.refused: OSError | None = None
        self.has_limits = False
        self.name = url.geturl()
        self._url = url
        self._head, self._tail = formatter.head, formatter.tail
        self._headers = {**headers, "Content-Type": "application/json", "Content-Encoding": "gzip"}
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def append(self, lines: list[bytes]) -> tuple[int, OSError | None, list[Path]]:
        """Send lines; halves of a batch that is refused are sent apart until the one at fault is alone."""
        try:
            status, reply = self._post(lines)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return 0, error if isinstance(error, OSError) else OSError(describe(error, with_type=True)), []

        if 200 <= status < 300:
            self._note_rejected(reply, len(lines))
            return len(lines), None, []

        failure = OSError(f"HTTP {status} {reply[:200].decode('utf-8', 'replace')!r}")

        if status not in _REFUSED:
            return 0, failure, []

        if len(lines) == 1:
            self.rejected += 1
            self.refused = failure
            return 1, None, []

        half = len(lines) // 2
        done, problem, _ = self.append(lines[:half])

        if problem is None:
            more, problem, _ = self.append(lines[half:])
            done += more

        return done, problem, []

    def tidy(self, rotated: list[Path]) -> None:
        """Nothing is rotated."""

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        connection, self._connection = self._connection, None

        if connection is not None:
            with suppress(OSError):
                connection.close()

    def _post(self, lines: list[bytes]) -> tuple[int, bytes]:
        # Each line is a request of its own; what is between their heads and tails makes one of all.
        start, end = len(self._head), -len(self._tail)
        body = b"".join((self._head, b",".join(line[start:end] for line in lines), self._tail))
        kept = self._connection is not None
        packed = gzip.compress(body, compresslevel=1)

        try:
            return self._exchange(packed)
        except (ConnectionError, http.client.RemoteDisconnected):
            if not kept:
                raise

            self.close()  # the collector had closed the connection meanwhile, as it may at any time
            return self._exchange(packed)

    def _exchange(self, packed: bytes) -> tuple[int, bytes]:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(self._url.hostname or "", self._url.port, timeout=self._timeout)

        self._connection.request("POST", self._url.path, packed, self._headers)
        response = self._connection.getresponse()
        reply = response.read(_LONGEST_REPLY)

        if response.read(1):  # a reply that is longer: the rest would be taken for the next one
            self.close()

        return response.status, reply

    def _note_rejected(self, reply: bytes, most: int) -> None:
        """Count the records of an accepted request that the collector has rejected."""
        try:
            partial = json.loads(reply or b"{}").get("partialSuccess") or {}
            count = int(partial.get("rejectedLogRecords") or 0)
        except (ValueError, AttributeError, TypeError):
            return  # a collector that answers with something else has taken them

        if count > 0:
            self.rejected += min(count, most)
            self.refused = OSError(f"{count} records were rejected: {str(partial.get('errorMessage'))[:200]}")
