"""Elasticsearch pools over the official async client.

The client pools connections, balances nodes and retries by itself. `ElasticsearchPool` adds names,
checked options and a start that says why the cluster cannot be used. This module needs the extra
``ws-pool[es]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ws_pool._core.extras import missing

try:
    from elasticsearch import AsyncElasticsearch

    from ws_pool._elasticsearch.pool import ElasticsearchPool, ElasticsearchStatistics
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "es") from _error

from ws_pool.base import BasePoolManager

__all__ = (
    "ElasticsearchPool",
    "ElasticsearchPoolManager",
    "ElasticsearchStatistics",
    "es_manager",
    "es_pool_manager",
)


class ElasticsearchPoolManager(BasePoolManager[ElasticsearchPool, AsyncElasticsearch]):
    """
    A named set of Elasticsearch pools, for the settings section ES_CONFIG.

    Example:
        ```python no-run
        # needs an Elasticsearch cluster
        from ws_pool.es import ElasticsearchPoolManager

        manager = ElasticsearchPoolManager()
        manager.register({"default": {"url": "http://localhost:9200"}})
        await manager

        async with manager.get_client("default") as es:
            print(await es.info())

        await manager.close()
        ```
    """

    settings_key: ClassVar[str] = "ES_CONFIG"

    # Any: what a section holds is checked by the pool.
    def _build(self, name: str, section: Mapping[str, Any], where: str) -> ElasticsearchPool:
        return ElasticsearchPool(name=name, setting=where, **section)


es_pool_manager: ElasticsearchPoolManager = ElasticsearchPoolManager()
"""The ready-made manager of ES_CONFIG."""

es_manager = es_pool_manager
"""The same object under the original's name."""


for _public in (ElasticsearchPool, ElasticsearchStatistics):
    _public.__module__ = __name__
