"""How many WebSockets there may be: at all, of one address, of one user, in one room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from starlette.websockets import WebSocket

from ws_web.errors import SocketLimitError
from ws_web.request import client_ip_of

# Any below: keys and users are the application's.

Place = tuple[str | None, Any]
"""Address and user of a socket."""


class Places:
    """The places of a manager, and who has them."""

    def __init__(
        self, total: int | None, per_ip: int | None, per_user: int | None, per_room: int | None
    ) -> None:
        self._total = total
        self._per_ip = per_ip
        self._per_user = per_user
        self._per_room = per_room
        self._taken: Counter[tuple[str, Any]] = Counter()
        self.refused = 0

    def take(self, key: Any, ws: WebSocket, user: Any, replaced: Place | None) -> Place:
        """Take a place, or refuse the socket; one that it replaces makes room."""
        place: Place = (client_ip_of(ws) if self._per_ip is not None else None, user)
        limits = {
            ("places", ""): self._total,
            ("address", place[0]): self._per_ip,
            ("user", user): self._per_user,
        }
        own = set() if replaced is None else set(_names(replaced))

        for name, limit in limits.items():
            if limit is not None and self._taken[name] - (name in own) >= limit:
                kind, value = name
                what = "places" if kind == "places" else f"places of {kind} {value!r}"
                self.refused += 1
                raise SocketLimitError(
                    f"WebSocket {key!r} is refused: all {limit} {what} are taken", key=key, limit=limit
                )

        self._taken.update(_names(place))
        return place

    def leave(self, place: Place) -> None:
        """Release a place."""
        for name in _names(place):
            self._taken[name] -= 1

            if not self._taken[name]:
                del self._taken[name]

    def check_room(self, key: Any, room: str, members: Collection[object], connection: object) -> None:
        """Refuse a socket that would be one too many in a room."""
        limit = self._per_room

        if limit is not None and connection not in members and len(members) >= limit:
            self.refused += 1
            raise SocketLimitError(
                f"WebSocket {key!r} cannot join room {room!r}: all {limit} places are taken",
                key=key,
                limit=limit,
            )


def _names(place: Place) -> tuple[tuple[str, Any], ...]:
    return ("places", ""), ("address", place[0]), ("user", place[1])
