"""Events without a listener: they wait, pending in their group, until somebody listens to their tag."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from ws_pool._events.consumer_group import ConsumerGroup
from ws_pool._events.dispatcher import Message, OrderedDispatcher
from ws_pool._events.listeners import Listener

_logger: Final = logging.getLogger("ws_pool.events")
_EVERY_TAG: Final = "*"
_AT_ONCE: Final = 100  # events that are moved to the dead letters between two log lines


class WaitingEvents:
    """Keeps a group's events for listeners that come later, or that another consumer has."""

    def __init__(
        self,
        stream: str,
        group: str,
        member: ConsumerGroup,
        listeners: Mapping[str, Sequence[Listener]],
        *,
        ignored: Collection[str],
        expire_after: float | None,
        check_every: float,
    ) -> None:
        self._stream = stream
        self._group = group
        self._member = member
        self._listeners = listeners
        self._ignored = frozenset(ignored)
        self._expire_after = expire_after
        self._check_every = check_every
        self._new_tags: set[str] = set()
        self._reported: set[str] = set()
        self.left: int = 0
        self.expired: int = 0
        self.restart()

    def restart(self) -> None:
        """Make ready for an event loop, which may be another one than before, with another clock."""
        self._new_tag = asyncio.Event()
        self._taking = asyncio.Lock()
        self._next_expiry = 0.0

    def ignores(self, tag: str) -> bool:
        """Return whether a tag's events are acknowledged where they have no listener."""
        return tag in self._ignored or _EVERY_TAG in self._ignored

    def listener_added(self, tag: str) -> None:
        """Note that a tag has its first listener: its waiting events are due."""
        self._new_tags.add(tag)
        self._new_tag.set()

    async def leave(self, messages: Sequence[Message]) -> None:
        """Leave messages of one tag, with equal attempts, for a consumer that listens to the tag."""
        tag, attempts = messages[0].tag, messages[0].attempt - 1
        await self._member.leave_waiting(tag, [message.id for message in messages], attempts)
        self.left += len(messages)

        if tag not in self._reported:
            self._reported.add(tag)
            _logger.warning(
                "stream bus %r: events %r wait for a listener in group %r: add one, or ignore the tag",
                self._stream,
                tag,
                self._group,
            )

    async def accept(self, messages: Sequence[Message], dispatcher: OrderedDispatcher) -> None:
        """Pass messages to the dispatcher, apart from those without a listener, which are left to wait."""
        without: dict[tuple[str, int], list[Message]] = {}

        for message in messages:
            if message.event is None or self._listeners.get(message.tag) or self.ignores(message.tag):
                dispatcher.accept(message)
            elif message.id not in dispatcher.in_hand:
                without.setdefault((message.tag, message.attempt), []).append(message)

        # One command for all of a tag: a backlog without a listener passes at the speed of reading.
        for group in without.values():
            await self.leave(group)

    async def take_new(self, dispatcher: OrderedDispatcher) -> None:
        """Deliver what waits for listeners that were added since the last call."""
        while self._new_tags:
            await self._take(self._new_tags.pop(), dispatcher)

    async def serve(self, dispatcher: OrderedDispatcher) -> None:
        """Deliver events whose tag has a listener by now, and give up those that have waited too long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._new_tag.wait(), self._check_every)

        self._new_tag.clear()
        tags = await self._member.waiting_tags()

        # Also tags that have had a listener here for long: another consumer, without one, left them.
        for tag in tags:
            await self._take(tag, dispatcher)

        limit, now = self._expire_after, asyncio.get_running_loop().time()

        if limit is not None and now >= self._next_expiry:
            self._next_expiry = now + limit / 10  # so that an event waits a tenth longer at most

            for tag in tags:
                await self._expire(tag, limit)

    async def _take(self, tag: str, dispatcher: OrderedDispatcher) -> None:
        """Deliver the waiting events of a tag, as long as it has a listener."""
        # The reader and the job both come here; side by side they would mix up the order of a tag.
        async with self._taking:
            while self._listeners.get(tag):
                entries = await self._member.take_waiting(tag, await dispatcher.room())

                if not entries:
                    return

                for entry_id, text, tried in entries:
                    dispatcher.accept(Message(entry_id, text, tried, owed=True))

    async def _expire(self, tag: str, limit: float) -> None:
        """Move events of a tag to the dead letters that have waited too long for a listener."""
        while entries := await self._member.take_waiting(tag, _AT_ONCE, idle=limit):
            reason = f"no listener of group {self._group!r} for {tag!r} in {limit:g} s"

            for entry_id, text, _ in entries:
                await self._member.dead_letter(entry_id, text or "", reason)

            self.expired += len(entries)
            _logger.error("stream bus %r: %d events are dead letters: %s", self._stream, len(entries), reason)
