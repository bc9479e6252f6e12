"""What a WebSocket manager needs of the application: a handler, and a bus between processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.websockets import WebSocket


class EventBus(Protocol):
    """What broadcast across processes needs; ws-pool's event buses fit."""

    def add_listener(self, tag: str, listener: Callable[..., Awaitable[None]], /) -> object:
        """Call the listener for each message of the tag; may return an awaitable."""
        ...

    def remove_listener(self, tag: str, listener: Callable[..., Awaitable[None]], /) -> object:
        """Stop calling the listener; may return an awaitable."""
        ...

    def publish(self, tag: str, /, *args: Any, **kwargs: Any) -> Awaitable[object]:  # Any: JSON values
        """Send a message to the listeners of the tag in every process, this one included."""
        ...


class MessageHandler:
    """
    What happens in a conversation. Subclass it; static methods do as well as methods.

    A raising handler ends its own conversation with close code 1011.
    """

    async def hello(self, key: Any, ws: WebSocket, count: int) -> None:  # Any: the key is the application's
        """
        Greet, or ask whether the peer is still there.

        Args:
            key: The name under which the socket was appended.
            ws: The socket.
            count: 0 after the connection was made; otherwise how many heartbeats in a row passed
                in silence.
        """

    async def on_message(self, key: Any, ws: WebSocket, message: Any) -> None:  # Any: text, bytes or JSON
        """
        Take a message of the peer.

        Args:
            key: The name under which the socket was appended.
            ws: The socket.
            message: What the receive function of `WsChatConnectionManager.handle_message` returned.
        """
