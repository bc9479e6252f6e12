"""Which methods of the buses publish events and call listeners, for `ws_pool._core.tracing`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ws_pool._core import tracing
from ws_pool._core.operation import Operation
from ws_pool._events.consumer_group import ConsumerGroup
from ws_pool._events.dispatcher import OrderedDispatcher
from ws_pool._events.listeners import Event, Listener, ListenerTask
from ws_pool._events.pubsub_bus import RedisEventBus


def trace_events() -> None:
    """Declare the methods; called once, when the buses are imported."""
    tracing.point(RedisEventBus, "_send", lambda bus, event: _sending(bus.channel, event), carry=_with_trace)
    tracing.point(
        ConsumerGroup, "publish", lambda group, event: _sending(group.stream, event), carry=_with_trace
    )
    tracing.point(ListenerTask, "call", lambda task, event: _processing(task.channel, event))
    tracing.point(OrderedDispatcher, "call", _dispatching)


def _dispatching(dispatcher: OrderedDispatcher, _: Listener, event: Event) -> Operation:
    return _processing(dispatcher.stream, event)


def _with_trace(args: tuple[Any, ...], headers: Mapping[str, str]) -> tuple[Any, ...]:
    event: Event = args[0]
    return (replace(event, trace=headers), *args[1:])


def _sending(channel: str, event: Event) -> Operation:
    return Operation(f"send {channel}", _attributes(channel, event, "send"), duration="", kind="producer")


def _processing(channel: str, event: Event) -> Operation:
    return Operation(
        f"process {channel}",
        _attributes(channel, event, "process"),
        duration="",
        kind="consumer",
        parent=event.trace or {},
    )


def _attributes(channel: str, event: Event, operation: str) -> dict[str, str | int]:
    return {
        "messaging.system": "redis",
        "messaging.destination.name": channel,
        "messaging.operation.type": operation,
        "wintersweet.event.tag": event.tag,
    }
