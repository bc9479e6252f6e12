"""Elasticsearch pools: `ws_pool.es`; needs the extra ``ws-pool[es]``."""

from ws_pool.es import ElasticsearchPool as ElasticsearchPool
from ws_pool.es import ElasticsearchPoolManager as ElasticsearchManager
from ws_pool.es import ElasticsearchPoolManager as ElasticsearchPoolManager
from ws_pool.es import es_manager as es_manager
from ws_pool.es import es_pool_manager as es_pool_manager

__all__ = (
    "ElasticsearchManager",
    "ElasticsearchPool",
    "ElasticsearchPoolManager",
    "es_manager",
    "es_pool_manager",
)
