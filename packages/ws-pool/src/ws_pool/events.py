"""Event buses on Redis: `RedisEventBus` reaches whoever listens now, `StreamEventBus` loses nothing.

Both carry events as JSON: a tag, by which listeners choose, and arguments. This module needs the
extra ``ws-pool[redis]``.
"""

from __future__ import annotations

from ws_pool._mux._bus import BusStatistics, RedisEventBus
from ws_pool._mux._delivery import ListenerStatistics

__all__ = ("BusStatistics", "ListenerStatistics", "RedisEventBus")

for _public in (BusStatistics, ListenerStatistics, RedisEventBus):
    _public.__module__ = __name__
