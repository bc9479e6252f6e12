"""A pool over PyMongo's own async client, or over Motor."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date as Date  # noqa: N812 - the methods have a parameter of that name
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError, PyMongoError

from ws_core.component import Health
from ws_core.metrics import register
from ws_core.redaction import mask_url
from ws_pool._core.shared_client import SharedClient
from ws_pool._mongo.monitoring import CommandMonitor, MongoStatistics
from ws_pool._mongo.options import MongoOptions, mongo_options, url_options
from ws_pool._mongo.transactions import run_transaction
from ws_pool.errors import ConfigError, MissingExtraError, UnavailableError, UsageError

ResultT = TypeVar("ResultT")
Document: TypeAlias = dict[str, Any]  # documents hold anything
Client: TypeAlias = AsyncMongoClient[Document]
Collection: TypeAlias = AsyncCollection[Document]


class MongoPool(SharedClient[Client]):
    """
    A MongoDB deployment, shared by all tasks of a loop.

    Args:
        url: ``mongodb://`` or ``mongodb+srv://``, with the driver's options in its query; or leave it
            out and give ``host``, ``port``, ``user``, ``password``.
        name: The pool's name in messages and statistics.
        setting: The prefix of options' names in errors.
        **options: ``db`` (the default database, in place of the URL's), ``minsize``, ``maxsize``,
            ``timeout`` (seconds for each operation, None for no bound), ``connect_timeout`` (seconds to
            find a server), ``driver`` (``"pymongo"``, or ``"motor"`` for code that needs Motor).

    Raises:
        ConfigError: An option is wrong; nothing was started.

    Example:
        ```python no-run
        # needs a MongoDB server
        from ws_pool.mongo import MongoPool

        async with MongoPool(url="mongodb://localhost:27017/shop") as pool:
            items = pool.get_collection("shop", "items")
            await items.insert_one({"name": "lamp"})
            print(await items.count_documents({}))
        ```
    """

    _kind = "mongo"

    def __init__(
        self, url: str | None = None, *, name: str = "default", setting: str = "MongoPool", **options: object
    ) -> None:
        given = dict(options) if url is None else {"url": url, **options}
        self._settings: MongoOptions = mongo_options(given, where=setting)
        super().__init__(name, setting, mask_url(self._settings.url))
        self._driver = AsyncMongoClient if self._settings.driver == "pymongo" else _motor()
        self._listener = CommandMonitor(name, self._settings.max_size, time.monotonic)
        register(self, db_system_name="mongodb")

        try:
            # The driver checks its URL and options when a client is made; this one connects to nothing.
            # An option that it does not know or cannot read it leaves out, with a warning.
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                self._make_with(AsyncMongoClient)
        except (PyMongoError, ValueError, TypeError, UserWarning) as error:
            raise ConfigError(f"{setting}.url: {mask_url(str(error))}", setting=f"{setting}.url") from error

    def get_database(self, db: str | None = None) -> AsyncDatabase[Document]:
        """
        Return a database.

        Args:
            db: Its name; by default the one of the option ``db``, or of the URL.

        Raises:
            UsageError: Neither names one.
        """
        chosen = db or self._settings.db

        if chosen:
            return self.client[chosen]

        try:
            return self.client.get_default_database()
        except ConfigurationError as error:
            message = f"mongo pool {self._name!r} has no default database: name one here or in its URL"
            raise UsageError(message, pool=self._name) from error

    def get_collection(self, db: str | None, name: str) -> Collection:
        """
        Return a collection.

        Args:
            db: The database's name, or None for the default one.
            name: The collection's name.
        """
        return self.get_database(db)[name]

    def get_collection_by_date(self, db: str | None, name: str, date: Date | None = None) -> Collection:
        """
        Return the collection of a day: ``name_YYYYMMDD``.

        Args:
            db: The database's name, or None for the default one.
            name: What the collection's name begins with.
            date: The day, or a moment of it in the zone that is meant; today here by default.
        """
        return self.get_collection(db, f"{name}_{date or _today():%Y%m%d}")

    def get_collection_by_month(self, db: str | None, name: str, date: Date | None = None) -> Collection:
        """
        Return the collection of a month: ``name_YYYYMM``.

        Args:
            db: The database's name, or None for the default one.
            name: What the collection's name begins with.
            date: A day of the month; today here by default.
        """
        return self.get_collection(db, f"{name}_{date or _today():%Y%m}")

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[AsyncClientSession]:  # the driver's options
        """
        Run a block in a transaction: committed at its end, aborted when it raises or is cancelled.

        Pass the session to each operation: ``await items.insert_one(item, session=session)``. A block
        cannot be run again: where transactions may conflict, use `with_transaction`.

        Args:
            **options: See the driver's ``start_transaction``: read_concern, write_concern, ….

        Yields:
            The session.
        """
        # PyMongo returns a session at once and the transaction as an awaitable, Motor the other way round.
        session = await _later(self.client.start_session())

        async with session, await _later(session.start_transaction(**options)):
            yield session

    async def with_transaction(
        self, function: Callable[[AsyncClientSession], Awaitable[ResultT]], **options: Any
    ) -> ResultT:  # Any: the driver's options
        """
        Run a function in a transaction, and again when the server calls the failure a transient one.

        Two transactions that write the same document conflict, and one of them fails; so do all at a
        fail-over. The driver repeats the function, with a growing wait, for up to 120 s, or the pool's
        ``timeout``; a commit whose answer was lost is repeated alone. The function must therefore have
        no other effects than those of its session.

        Args:
            function: A coroutine function of the session; it passes the session to each operation.
            **options: See the driver's ``with_transaction``: read_concern, write_concern, ….

        Returns:
            What the function has returned in the transaction that was committed.

        Raises:
            Exception: What the function raised; nothing was written.
            PyMongoError: The transaction cannot be committed.

        Example:
            ```python no-run
            # needs a MongoDB replica set
            async def sell(session):
                await items.update_one({"_id": 7}, {"$inc": {"stock": -1}}, session=session)
                await sales.insert_one({"item": 7}, session=session)

            await pool.with_transaction(sell)
            ```
        """
        async with await _later(self.client.start_session()) as session:
            if self._settings.driver == "motor":
                return await run_transaction(session, function, options)

            result: ResultT = await session.with_transaction(function, **options)
            return result

    async def health(self) -> Health:
        """Ping a server."""
        if self._client is None:
            return Health(ok=False, detail=f"mongo pool {self._name!r} is not open")

        began = time.perf_counter()

        try:
            await self._client.admin.command("ping")
        except PyMongoError as error:
            return Health(ok=False, detail=str(error))

        return Health(ok=True, latency=time.perf_counter() - began)

    def statistics(self) -> MongoStatistics:
        """Count connections and waits."""
        return self._listener.statistics()

    def _make(self) -> Client:
        return self._make_with(self._driver)

    def _make_with(self, make: Any) -> Client:  # either driver's class
        settings = self._settings
        connect = int(settings.connect_timeout * 1000)
        options = {
            "serverSelectionTimeoutMS": connect,
            "connectTimeoutMS": connect,
            "timeoutMS": None if settings.timeout is None else int(settings.timeout * 1000),
            "minPoolSize": settings.min_size,
            "maxPoolSize": settings.max_size or None,
            "appName": "wintersweet",
        }
        # What is passed goes before the URL's: of those that it has too, the URL's count.
        chosen = url_options(settings.url)
        ours = {name: value for name, value in options.items() if name.lower() not in chosen}
        client: Client = make(settings.url, event_listeners=[self._listener], **ours)
        return client

    async def _check_server(self, client: Client) -> None:
        try:
            await client.admin.command("ping")
        except PyMongoError as error:
            message = f"mongo pool {self._name!r}: no answer from {self._shown}: {error}"
            raise UnavailableError(message, pool=self._name) from error

    async def _end(self, client: Client) -> None:
        if self._settings.driver == "motor":
            # Motor's close ends the server's sessions too, and waits for the answer in the event loop.
            close: Any = client.close  # Any: a plain function there
            await asyncio.to_thread(close)
        else:
            await client.close()


def _today() -> Date:
    return datetime.now().astimezone().date()


def _motor() -> Any:  # Motor has no types
    try:
        return importlib.import_module("motor.motor_asyncio").AsyncIOMotorClient
    except ImportError as error:
        raise MissingExtraError.for_extra('driver="motor"', "ws-pool[motor]") from error


async def _later(value: Any) -> Any:  # the driver's own objects
    """Await a result that one driver returns at once and the other as an awaitable."""
    return await value if inspect.isawaitable(value) else value
