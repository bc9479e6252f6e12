"""WebSocket conversations: `ws_web.ws`."""

from ws_web.ws import MessageHandler as MessageHandler
from ws_web.ws import WsChatConnectionManager as WsChatConnectionManager

__all__ = (
    "MessageHandler",
    "WsChatConnectionManager",
)
