"""Settings: every wrong one is an error that names it, before anything starts; secrets are never shown."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ws_core.component import Component, discover
from ws_pool import (
    MysqlPool,
    MysqlPoolManager,
    SqlitePool,
    SqlitePoolManager,
    SqlPoolManager,
    _components,
    mysql_pool_manager,
)
from ws_pool import sql_pool_manager as the_manager
from ws_pool._core.config import choice, integer, number, parse, text, text_or_callable
from ws_pool._sql.mysql.options import MysqlOptions
from ws_pool.base import BasePoolManager
from ws_pool.errors import (
    CommitUnknown,
    ConfigError,
    IntegrityViolation,
    MissingExtraError,
    NotReadyError,
    QueryError,
    UnavailableError,
    UsageError,
)

GOOD = {"host": "db", "user": "me", "password": "hunter2", "db": "shop"}


def register(**section: Any) -> None:
    """Register a pool without starting it."""
    SqlPoolManager().register({"default": section})


class TestWrong:
    """Wrong options, and their errors."""

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            (
                {**GOOD, "maxzise": 3},
                r"DATABASES\.default\.maxzise is not a known option: did you mean 'maxsize'\?",
            ),
            ({**GOOD, "qwertz": 3}, r"DATABASES\.default\.qwertz is not a known option: known are"),
            (
                {**GOOD, "port": 70000},
                r"DATABASES\.default\.port must be a whole number from 1 to 65535, not 70000",
            ),
            ({**GOOD, "port": "abc"}, r"DATABASES\.default\.port must be a whole number"),
            ({**GOOD, "port": True}, r"DATABASES\.default\.port must be a whole number"),
            (
                {**GOOD, "minsize": 5, "maxsize": 2},
                r"DATABASES\.default\.minsize is 5, above DATABASES\.default\.maxsize",
            ),
            (
                {**GOOD, "maxsize": 0},
                r"DATABASES\.default\.maxsize must be a whole number of at least 1, not 0",
            ),
            ({**GOOD, "maxsize": 2, "max_size": 3}, r"DATABASES\.default\.max_size says the same"),
            ({**GOOD, "echo": "perhaps"}, r"DATABASES\.default\.echo must be true or false, not 'perhaps'"),
            (
                {**GOOD, "password": 5},
                r"DATABASES\.default\.password must be a string or a callable.*of type int",
            ),
            (
                {**GOOD, "acquire_timeout": "nan"},
                r"DATABASES\.default\.acquire_timeout must be a number of at least 0",
            ),
            ({**GOOD, "reset": "maybe"}, r"DATABASES\.default\.reset must be one of 'auto', 'always'"),
            (
                {**GOOD, "driver": "mysqlclient"},
                r"DATABASES\.default\.driver must be one of 'aiomysql', 'asyncmy'",
            ),
            ({**GOOD, "ssl": 5}, r"DATABASES\.default\.ssl must be true, an ssl\.SSLContext"),
            (
                {**GOOD, "ssl": {"ca": "/nowhere"}},
                r"DATABASES\.default\.ssl: the certificates cannot be loaded",
            ),
            ({**GOOD, "ssl": {"sni": "x"}}, r"DATABASES\.default\.ssl\.sni is not a known option"),
            ({**GOOD, "replicas": "x"}, r"DATABASES\.default\.replicas must be a list"),
            ({**GOOD, "replicas": [5]}, r"DATABASES\.default\.replicas\[0\] must be a URL or a mapping"),
            ({**GOOD, "replicas": [{"hots": "x"}]}, r"DATABASES\.default\.replicas\[0\]\.hots .*'host'"),
            ({"url": "localhost/shop"}, r"or sqlite://, not 'localhost/shop'"),
            ({"url": "me:hunter2@db/shop"}, r"or sqlite://, not '"),
            ({"url": "sqlite:shop.db"}, r"or sqlite://, not 'sqlite:shop\.db'"),
            ({"url": "oracle://x"}, r"DATABASES\.default\.url must begin with mysql://"),
            (
                {"url": "mysql://me:hunter2@db:99999/x"},
                r"DATABASES\.default\.url: the port in 'mysql://me:\*\*\*@db",
            ),
            ({"url": "mysql://db/x?charzet=utf8"}, r"DATABASES\.default\.url\.charzet .*'charset'"),
            ({"url": "sqlite://host/x"}, r"DATABASES\.default\.url must be sqlite:///path"),
            ({"path": "x.db", "jurnal_mode": "WAL"}, r"DATABASES\.default\.jurnal_mode .*'journal_mode'"),
        ],
    )
    def test_the_message_names_the_setting_and_hides_secrets(self, section: dict[str, Any], message: str):
        """A wrong option is named with its section; the password is nowhere."""
        with pytest.raises(ConfigError, match=message) as caught:
            register(**section)

        assert "hunter2" not in str(caught.value) + repr(caught.value.context)

    def test_the_shape_of_the_configuration_is_checked(self):
        """Sections must be mappings or URLs, names must be names."""
        manager = SqlPoolManager()

        wrong: Any

        for wrong in (5, [], {"default": 5}, {5: {}}, {"": {}}):
            with pytest.raises(ConfigError, match="DATABASES"):
                manager.register(wrong)

        with pytest.raises(ConfigError, match="x must be a mapping"):
            parse(MysqlOptions, 5, "x")  # type: ignore[arg-type]

        for check, value in (
            (text, 5),
            (text_or_callable, 5),
            (choice("a"), "b"),
            (number(1, 2), 3),
            (integer(), "x"),
        ):
            with pytest.raises(ConfigError, match="here must be"):
                check(value, "here")

    def test_a_pool_made_by_hand_says_its_class(self):
        """Without settings the option is named after the pool's class."""
        with pytest.raises(ConfigError, match=r"MysqlPool\.maxsize must be"):
            MysqlPool("mysql://db/x", maxsize="many")

        with pytest.raises(ConfigError, match=r"SqlitePool\.busy_timeout must be"):
            SqlitePool(path="x.db", busy_timeout=-1)


class TestRight:
    """Options that are accepted."""

    def test_the_originals_keys_and_strings_of_the_environment_are_understood(self):
        """All keys of the first version, and numbers and switches as strings."""
        pool = MysqlPool(
            host="db", user="me", password="x", db="shop", port="3307", charset="utf8mb4", autocommit="true",
            minsize="1", maxsize="5", pool_recycle=-1, echo="no", cursorclass="DictCursor",
        )  # fmt: skip
        assert str(pool._server) == "mysql://me@db:3307/shop"
        assert pool.row_type is dict
        assert pool.statistics().max_size == 5
        assert pool._pool._maintainer._options.max_lifetime is None
        assert not pool._context.watched

    def test_a_url_may_be_overridden_and_extended(self):
        """Keys beside the URL win; the URL's query has options too; %-escapes are read."""
        pool = MysqlPool("mysql+asyncmy://me:p%40ss@db/shop?charset=latin1&maxsize=3", db="other", ssl=True)
        assert (pool._server.driver, pool._server.charset, pool._server.db) == ("asyncmy", "latin1", "other")
        assert pool._server.password == "p@ss"
        assert isinstance(pool._server.ssl, ssl.SSLContext)
        assert "p@ss" not in repr(pool._server)
        assert MysqlPool("mysql://db/x", ssl=ssl.create_default_context())._server.ssl is not None
        assert MysqlPool("mysql://db/x", ssl=False)._server.ssl is None
        lax = MysqlPool("mysql://db/x", ssl={"verify": False})._server.ssl
        assert lax is not None
        assert lax.verify_mode is ssl.CERT_NONE
        assert str(MysqlPool(unix_socket="/run/db.sock", user="me")._server) == "mysql://me@/run/db.sock/"
        assert MysqlPool("mysql://db/x", cursorclass="Cursor").row_type is None
        assert MysqlPool("mysql://db/x", cursorclass=type("SSDictCursor", (), {})).row_type is dict

    def test_replicas_are_like_their_primary(self):
        """A replica given by host takes user, password and the rest from the primary."""
        pool = MysqlPool(
            host="db", user="me", password="x", replicas=[{"host": "copy"}, "mysql://other@copy2/y"]
        )
        assert [str(replica.connector) for replica in pool._replicas] == [
            "mysql://me@copy:3306/",
            "mysql://other@copy2:3306/y",
        ]


class TestManager:
    """A named set of pools."""

    def test_the_managers_are_one(self):
        """The original's name is the same object, and the classes are one."""
        assert mysql_pool_manager is the_manager
        assert MysqlPoolManager is SqlPoolManager is SqlitePoolManager

    async def test_unknown_and_unready_pools_are_errors(self):
        """A name that does not exist lists those that do; a manager that is not started says so."""
        manager = SqlPoolManager()

        with pytest.raises(UsageError, match="has no pools"):
            await manager

        manager.register({"default": "sqlite:///:memory:", "second": "sqlite:///:memory:"})
        assert manager.names == ("default", "second")
        assert str(manager) == repr(manager) == "<SqlPoolManager not started: default, second>"

        with pytest.raises(NotReadyError, match="not started"):
            manager.get_pool()

        assert not (await manager.health()).ok

        async with manager:
            assert manager.ready
            assert manager is await manager
            assert "second: min_size=1" in str(manager)
            assert manager.pool_status("second")["size"] == 1

            with pytest.raises(
                UsageError, match=r"no pool 'secnd' \(registered: 'default', 'second'\); did you mean"
            ):
                manager.get_client("secnd")

            with pytest.raises(UsageError, match="close it before"):
                manager.register({})

            health = await manager.health()
            assert health.ok
            assert set(health.parts) == {"default", "second"}

        await manager.close()

    async def test_a_failed_start_closes_what_was_started(self, tmp_path: Path):
        """When one pool cannot start the others are closed again, and a second try is possible."""
        manager = SqlPoolManager()
        bad = tmp_path / "dir" / "x.db"
        manager.register({"good": "sqlite:///:memory:", "bad": f"sqlite:///{bad}"})

        with pytest.raises(Exception, match="unable to open"):
            await manager.initialize()

        assert not manager.ready
        bad.parent.mkdir()
        await manager
        await manager.close()

    def test_without_pools(self):
        """Where nothing is registered, the error says what to do."""
        with pytest.raises(UsageError, match="DATABASES has no pools, so none is named 'default': set it"):
            SqlPoolManager().get_pool()

    def test_the_base_builds_nothing_by_itself(self):
        """A manager without a kind of pools cannot be made."""
        with pytest.raises(TypeError, match="abstract"):
            BasePoolManager()  # type: ignore[abstract] # that is what is tested


class TestComponents:
    """The components of the application layer."""

    async def test_the_sql_component_configures_starts_and_closes(self, tmp_path: Path):
        """It wraps the ready-made manager, found through its entry point."""
        (component,) = [found for found in discover(["DATABASES"]) if found.settings_key == "DATABASES"]
        assert isinstance(component, Component)
        assert "DATABASES" in repr(component)
        await component.close()

        with pytest.raises(NotReadyError, match="not configured"):
            component.status()

        with pytest.raises(ConfigError, match="DATABASES must map"):
            component.configure([])

        component.configure({"default": f"sqlite:///{tmp_path / 'c.db'}"})
        assert component.status() == {}
        await component.start()
        assert (await component.health()).ok
        assert component.status()["default"]["size"] == 1  # type: ignore[index]
        await component.close()
        the_manager._config = {}

    async def test_one_application_at_a_time(self, tmp_path: Path):
        """A second one is refused while the first runs: it would answer from the pools of the first."""
        first, second = _components.sql(), _components.sql()
        urls = [f"sqlite:///{tmp_path / name}" for name in ("first.db", "second.db")]
        first.configure({"default": urls[0]})
        second.configure({"default": urls[1]})  # an application that is made, and not started
        await first.start()

        try:
            row = (await the_manager.select("PRAGMA database_list"))[0]
            assert row.file.endswith("first.db")

            with pytest.raises(UsageError, match="pools of another application are running in this process"):
                await second.start()

            await second.close()  # as a lifespan whose start has failed
            assert (await first.health()).ok
        finally:
            await first.close()

        await second.start()

        try:
            row = (await the_manager.select("PRAGMA database_list"))[0]
            assert row.file.endswith("second.db")
        finally:
            await second.close()

        # A manager that its user has started is taken over when it has the same pools.
        await the_manager.initialize()

        with pytest.raises(UsageError, match="pools of another application"):
            await first.start()

        await second.start()
        await second.close()
        assert not the_manager.ready
        the_manager._config = {}

    async def test_a_start_that_fails_can_be_repeated(self, tmp_path: Path):
        """The failed application does not count as running."""
        component = _components.sql()
        component.configure({"default": f"sqlite:///{tmp_path / 'none' / 'x.db'}"})

        for _ in range(2):
            with pytest.raises(UnavailableError):
                await component.start()

        await component.close()
        the_manager._config = {}

    @pytest.mark.parametrize(
        ("section", "extra"),
        [
            ({"a": "sqlite:///x"}, "ws-pool[sqlite]"),
            ({"a": {"url": "mysql+asyncmy://x"}}, "ws-pool[asyncmy]"),
            ({"a": {"url": "postgresql://x"}}, "ws-pool[postgres]"),
            ({"a": "postgresql+psycopg://x"}, "ws-pool[psycopg]"),
            ({"a": {"host": "x"}}, "ws-pool[mysql]"),
        ],
    )
    def test_a_missing_driver_says_what_to_install(
        self, section: dict[str, Any], extra: str, monkeypatch: pytest.MonkeyPatch
    ):
        """The error names the setting and pip's command for the driver that the URL needs."""
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

        with pytest.raises(MissingExtraError, match=r"pip install"):
            register(**({"url": section["a"]} if isinstance(section["a"], str) else section["a"]))

        assert _components._sql_extra(section) == extra

        component = _components.sql()
        component._target = "ws_pool._no_such_module:manager"

        with pytest.raises(MissingExtraError, match=r"DATABASES is set, but ws-pool\["):
            component.configure(section)

    def test_every_section_has_its_component(self):
        """Each factory returns a new component for its section."""
        made = [
            _components.sql(),
            _components.redis(),
            _components.mongo(),
            _components.http(),
            _components.es(),
        ]
        keys = ["DATABASES", "REDIS_CONFIG", "MONGO_CONFIG", "HTTP_CONFIG", "ES_CONFIG"]
        assert [component.settings_key for component in made] == keys


class TestImport:
    """What an import costs."""

    def test_importing_the_package_loads_no_driver(self):
        """`import ws_pool` loads neither a driver nor SQLAlchemy; a name loads its own module only."""
        code = (
            "import sys, ws_pool; ws_pool.Pool; dir(ws_pool)\n"
            "drivers = {'sqlalchemy', 'aiomysql', 'asyncmy', 'asyncpg', 'psycopg', 'aiosqlite'}\n"
            "drivers |= {'redis', 'aiohttp', 'pymongo'}\n"
            "assert not drivers & set(sys.modules)\n"
            "ws_pool.SqlitePool; assert 'aiosqlite' not in sys.modules and 'sqlalchemy' in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_every_public_name_exists(self):
        """All names of `__all__` can be imported, and nothing else pretends to exist."""
        import ws_pool

        for name in ws_pool.__all__:
            assert getattr(ws_pool, name) is not None
            assert name in dir(ws_pool)

        with pytest.raises(AttributeError, match="no attribute 'nope'"):
            _ = ws_pool.nope


def test_errors_carry_the_servers_number():
    """Errno is the server's number, or 0."""
    assert IntegrityViolation("x", errno=1062).errno == 1062
    assert QueryError("x").errno == 0
    assert QueryError("x", errno="?").errno == 0
    assert issubclass(CommitUnknown, ConnectionError)
