"""Event buses on Redis: `RedisEventBus` reaches all that listen now, `StreamEventBus` delivers at least once.

Both carry events as JSON: a tag, by which listeners choose, and arguments. This module needs the
extra ``ws-pool[redis]``.
"""

from __future__ import annotations

from ws_pool._core.extras import missing

try:
    from ws_pool._events.listeners import ListenerStatistics
    from ws_pool._events.pubsub_bus import BusStatistics, RedisEventBus
    from ws_pool._events.stream_bus import StreamBusStatistics, StreamEventBus
    from ws_pool._events.tracing import trace_events
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "redis") from _error

__all__ = ("BusStatistics", "ListenerStatistics", "RedisEventBus", "StreamBusStatistics", "StreamEventBus")

for _public in (BusStatistics, ListenerStatistics, RedisEventBus, StreamBusStatistics, StreamEventBus):
    _public.__module__ = __name__

trace_events()
