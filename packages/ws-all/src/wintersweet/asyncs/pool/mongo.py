"""MongoDB clients and collections as in 1.x, over `ws_pool.mongo`."""

from __future__ import annotations

from datetime import date as Date  # noqa: N812 - the parameter has the name of the class
from typing import Any, ClassVar, Final

from wintersweet.asyncs.pool.base import BasePoolManager
from ws_pool.base import BasePoolManager as LibraryManager
from ws_pool.mongo import MongoPool as MongoPool
from ws_pool.mongo import convert_mongo_id as convert_mongo_id
from ws_pool.mongo import mongo_pool_manager as library_manager

__all__ = ("MongoPool", "MongoPoolManager", "convert_mongo_id", "mongo_pool_manager")

# Any below: PyMongo's clients and collections.


class MongoPoolManager(BasePoolManager):
    """The MongoDB clients of MONGO_CONFIG, with shortcuts to collections."""

    library: ClassVar[LibraryManager[Any, Any]] = library_manager

    @staticmethod
    def convert_mongo_id(mongo_id: Any) -> Any:
        """Turn the text of an id into an ObjectId; see `ws_pool.mongo.convert_mongo_id`."""
        return convert_mongo_id(mongo_id)

    def get_client(self, pool_name: str = "default", alone: bool = False) -> Any:
        """Return PyMongo's client, which all tasks share."""
        return self.get_pool(pool_name).client

    def get_collection(self, db_name: str | None, collection_name: str, pool_name: str = "default") -> Any:
        """Return a collection; MongoDB makes it when something is written."""
        return self.get_pool(pool_name).get_collection(db_name, collection_name)

    def get_collection_by_date(
        self,
        db_name: str | None,
        collection_name: str,
        date: Date | None = None,
        pool_name: str = "default",
    ) -> Any:
        """Return the collection of a day, ``name_YYYYMMDD``; today's without a date."""
        return self.get_pool(pool_name).get_collection_by_date(db_name, collection_name, date)

    def get_collection_by_month(
        self,
        db_name: str | None,
        collection_name: str,
        date: Date | None = None,
        pool_name: str = "default",
    ) -> Any:
        """Return the collection of a month, ``name_YYYYMM``; this month's without a date."""
        return self.get_pool(pool_name).get_collection_by_month(db_name, collection_name, date)


mongo_pool_manager: Final = MongoPoolManager()
"""The application's MongoDB clients."""
