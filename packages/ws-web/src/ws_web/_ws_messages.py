"""Messages of a WebSocket: what comes in is checked, what goes out is written once for all its receivers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from traceback import walk_tb
from typing import Any

from starlette import status
from starlette.types import Message
from starlette.websockets import WebSocket

from ws_web import _json

# Any below: messages are text, bytes or JSON.

RECEIVE_FUNCTIONS = ("receive_text", "receive_bytes", "receive_json")


class BadMessage(Exception):
    """A message that a conversation does not take: the close code, and what is wrong."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(code, what)
        self.code = code
        self.what = what


_WRONG_FRAME = BadMessage(status.WS_1003_UNSUPPORTED_DATA, "another kind of frame than expected")
_NO_JSON = BadMessage(status.WS_1007_INVALID_FRAME_PAYLOAD_DATA, "no JSON, where JSON was expected")
_RECEIVING = {getattr(WebSocket, name).__code__ for name in RECEIVE_FUNCTIONS}


def read(message: Message, receive_func: str, most_bytes: int | None) -> Any:
    """Return the text, bytes or JSON of an ASGI message."""
    payload = message.get("bytes" if receive_func == "receive_bytes" else "text")

    if payload is None:
        raise BadMessage(*_WRONG_FRAME.args)

    if most_bytes is not None and _is_longer(payload, most_bytes):
        raise BadMessage(status.WS_1009_MESSAGE_TOO_BIG, f"a message of more than {most_bytes} bytes")

    if receive_func != "receive_json":
        return payload

    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        raise BadMessage(*_NO_JSON.args) from None


def bad_message(error: BaseException) -> BadMessage | None:
    """Return what a peer has sent wrong when that made one of Starlette's receiving methods fail."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]

    if not isinstance(error, KeyError | ValueError | RecursionError):
        return None

    codes = {frame.f_code for frame, _ in walk_tb(error.__traceback__)}

    if codes.isdisjoint(_RECEIVING):
        return None

    return _WRONG_FRAME if isinstance(error, KeyError) else _NO_JSON


def _is_longer(payload: str | bytes, most_bytes: int) -> bool:
    if len(payload) > most_bytes:
        return True

    # A character of a text is 1 to 4 bytes.
    return isinstance(payload, str) and len(payload) * 4 > most_bytes and len(payload.encode()) > most_bytes


class Meter:
    """How many messages a peer may send: a token bucket for the messages of one second, at least 1."""

    __slots__ = ("_at", "_clock", "_left", "_rate")

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._left = max(1.0, rate)
        self._at = clock()

    def count(self) -> None:
        """Take one message into account, or refuse it."""
        now = self._clock()
        self._left = min(max(1.0, self._rate), self._left + (now - self._at) * self._rate)
        self._at = now

        if self._left < 1:
            raise BadMessage(status.WS_1008_POLICY_VIOLATION, f"more than {self._rate:g} messages a second")

        self._left -= 1


def encode(message: object) -> Mapping[str, Any]:
    """Return the ASGI event that sends a message."""
    if isinstance(message, str):
        return {"type": "websocket.send", "text": escape(message)}

    if isinstance(message, bytes | bytearray | memoryview):
        return {"type": "websocket.send", "bytes": bytes(message)}

    return {"type": "websocket.send", "text": _json.encode(message).decode()}


def escape(text: str) -> str:
    r"""
    Return a text that can be sent: halves of surrogate pairs, which a peer can send in JSON, as escapes.

    Example:
        >>> escape('{"name": "\ud83d"}')
        '{"name": "\\ud83d"}'
    """
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def pack(event: Mapping[str, Any]) -> dict[str, str]:
    """Make an event fit for JSON."""
    if "bytes" in event:
        return {"base64": base64.b64encode(event["bytes"]).decode("ascii")}

    return {"text": event["text"]}


def unpack(packed: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the event that was packed."""
    return encode(base64.b64decode(packed["base64"]) if "base64" in packed else packed["text"])
