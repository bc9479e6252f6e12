"""MongoDB pools over PyMongo's own async client.

The driver pools connections, finds the primary and retries by itself. `MongoPool` adds names,
checked options, a start that says why the server cannot be reached, dated collections, a
transaction in one block, and numbers about the connections. This module needs the extra
``ws-pool[mongo]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date as Date  # noqa: N812 - the methods have a parameter of that name
from typing import Any, ClassVar, Literal, overload

from ws_pool._core.extras import missing

try:
    from bson import ObjectId
    from bson.errors import InvalidId

    from ws_pool._mongo.monitoring import MongoStatistics
    from ws_pool._mongo.pool import Client, Collection, MongoPool
except ModuleNotFoundError as _error:
    raise missing(__name__, _error, "mongo") from _error

from ws_pool.base import BasePoolManager

__all__ = ("MongoPool", "MongoPoolManager", "MongoStatistics", "convert_mongo_id", "mongo_pool_manager")


class MongoPoolManager(BasePoolManager[MongoPool, Client]):
    """
    A named set of MongoDB pools, for the settings section MONGO_CONFIG.

    Example:
        ```python no-run
        # needs a MongoDB server
        from ws_pool.mongo import MongoPoolManager

        manager = MongoPoolManager()
        manager.register({"default": {"url": "mongodb://localhost:27017/shop"}})
        await manager
        items = manager.get_collection("shop", "items")
        await manager.close()
        ```
    """

    settings_key: ClassVar[str] = "MONGO_CONFIG"

    # Any: what a section holds is checked by the pool.
    def _build(self, name: str, section: Mapping[str, Any], where: str) -> MongoPool:
        return MongoPool(name=name, setting=where, **section)

    def get_collection(self, db: str | None, name: str, pool: str = "default") -> Collection:
        """Return a collection of a pool; see `MongoPool.get_collection`."""
        return self.get_pool(pool).get_collection(db, name)

    def get_collection_by_date(
        self, db: str | None, name: str, date: Date | None = None, pool: str = "default"
    ) -> Collection:
        """Return the collection of a day; see `MongoPool.get_collection_by_date`."""
        return self.get_pool(pool).get_collection_by_date(db, name, date)

    def get_collection_by_month(
        self, db: str | None, name: str, date: Date | None = None, pool: str = "default"
    ) -> Collection:
        """Return the collection of a month; see `MongoPool.get_collection_by_month`."""
        return self.get_pool(pool).get_collection_by_month(db, name, date)


mongo_pool_manager: MongoPoolManager = MongoPoolManager()
"""The ready-made manager of MONGO_CONFIG."""


@overload
def convert_mongo_id(text: str | ObjectId, *, strict: Literal[True] = True) -> ObjectId: ...


@overload
def convert_mongo_id(text: object, *, strict: bool) -> ObjectId | None: ...


def convert_mongo_id(text: object, *, strict: bool = True) -> ObjectId | None:
    """
    Read the text of a document's id.

    Args:
        text: 24 hexadecimal digits, or an id already.
        strict: Whether anything else is an error.

    Returns:
        The id; None for anything else without ``strict``.

    Raises:
        ValueError: It is not an id.

    Example:
        >>> convert_mongo_id("65a000000000000000000001")
        ObjectId('65a000000000000000000001')
        >>> convert_mongo_id("lamp", strict=False) is None
        True
    """
    if isinstance(text, ObjectId):
        return text

    if isinstance(text, str) and len(text) == 24:
        try:
            return ObjectId(text)
        except InvalidId:
            pass

    if strict:
        raise ValueError(f"{text!r} is not the id of a document: it must have 24 hexadecimal digits")

    return None


for _public in (MongoPool, MongoStatistics):
    _public.__module__ = __name__
