"""WebSocket conversations: `ws_web.ws`, with the arguments of 1.x."""

from __future__ import annotations

from typing import Any

from starlette.websockets import WebSocket

from ws_web import ws as library
from ws_web.ws import MessageHandler as MessageHandler

__all__ = (
    "MessageHandler",
    "WsChatConnectionManager",
)


class WsChatConnectionManager(library.WsChatConnectionManager):
    """The sockets of a conversation by key."""

    async def append(  # type: ignore[override]  # a parameter had another name
        self,
        key: Any,
        ws: WebSocket,
        message_handle_class: Any,
        **options: Any,  # Any: as in the library
    ) -> None:
        """Take a socket into the conversation; the handler is a class or an object, see `MessageHandler`."""
        await super().append(key, ws, message_handle_class, **options)
