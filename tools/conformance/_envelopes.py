"""What the plugins know about the envelope."""

from __future__ import annotations

from pydantic_core import from_json

__all__ = ("FIELDS", "refused_with")

FIELDS = {"code", "data", "msg", "request_id", "extra"}
_PHRASES = {"Forbidden", "Not Found", "Invalid Arguments"}


def refused_with(body: bytes) -> dict[str, object] | None:
    """Return the message with which FastAPI would have closed a handshake that ours answers."""
    try:
        error = from_json(body)
    except ValueError:
        return None

    extra = error.get("extra") if isinstance(error, dict) else None

    if not isinstance(extra, dict) or "close_code" not in extra:
        return None

    # Without a reason of its own a refusal says the phrase of its status.
    reason = "" if error["msg"] in _PHRASES else error["msg"]
    return {"type": "websocket.close", "code": extra["close_code"], "reason": reason}
