"""Replies that are kept and sent again: to another request, whose id they then carry."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass

from starlette.responses import Response

from ws_web._negotiation import get_request_id

_NOT_KEPT = frozenset({b"content-length", b"set-cookie", b"x-request-id", b"x-timestamp"})
_ID = b'"request_id":"'


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A reply without the id of the request that it was made for, which stood between two parts of it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    parts: tuple[bytes, ...]

    @classmethod
    def of(cls, response: Response) -> KeptReply | None:
        """Return what is kept of a reply; None for a stream, which has no body yet."""
        body = getattr(response, "body", None)

        if not isinstance(body, bytes | memoryview):
            return None

        before, mark, after = bytes(body).rpartition(_ID + get_request_id().encode() + b'"')
        parts = (before + _ID, b'"' + after) if mark else (after,)
        headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.raw_headers
            if name not in _NOT_KEPT
        )
        return cls(response.status_code, headers, parts)

    @property
    def etag(self) -> str:
        """A weak entity tag: two replies that differ in their id only mean the same."""
        return f'W/"{hashlib.sha256(b"".join(self.parts)).hexdigest()[:32]}"'

    def response(self) -> Response:
        """Return the reply for the current request."""
        response = Response(get_request_id().encode().join(self.parts), self.status)
        kept = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        length = [pair for pair in response.raw_headers if pair[0] == b"content-length"]
        response.raw_headers = kept + length
        return response

    def dump(self) -> str:
        """Return it as JSON."""
        parts = [base64.b64encode(part).decode() for part in self.parts]
        return json.dumps([self.status, self.headers, parts], separators=(",", ":"))

    @classmethod
    def load(cls, text: str | bytes) -> KeptReply:
        """Return what `dump` wrote."""
        status, headers, parts = json.loads(text)
        return cls(status, tuple(map(tuple, headers)), tuple(map(base64.b64decode, parts)))


def digest(*parts: str) -> str:
    """Return a hash of texts in their order; the length of each keeps them apart."""
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


def as_text(value: str | bytes | None) -> str | None:
    """Return what a store has kept, whatever its driver makes of texts."""
    return value.decode() if isinstance(value, bytes) else value
