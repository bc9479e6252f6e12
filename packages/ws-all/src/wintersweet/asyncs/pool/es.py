"""Elasticsearch clients as in 1.x, over `ws_pool.es`; needs the extra ``ws-pool[es]``."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from wintersweet.asyncs.pool.base import BasePoolManager
from ws_pool.base import BasePoolManager as LibraryManager
from ws_pool.es import ElasticsearchPool as ElasticsearchPool
from ws_pool.es import ElasticsearchPoolManager as ElasticsearchPoolManager
from ws_pool.es import es_pool_manager as es_pool_manager

__all__ = (
    "ElasticsearchManager",
    "ElasticsearchPool",
    "ElasticsearchPoolManager",
    "es_manager",
    "es_pool_manager",
)


class ElasticsearchManager(BasePoolManager):
    """The Elasticsearch clients of ES_CONFIG."""

    library: ClassVar[LibraryManager[Any, Any]] = es_pool_manager

    def get_client(self, es_name: str = "default", alone: bool = False) -> Any:
        """Return elasticsearch-py's client, which all tasks share."""
        return self.get_pool(es_name).client


es_manager: Final = ElasticsearchManager()
"""The application's Elasticsearch clients."""
