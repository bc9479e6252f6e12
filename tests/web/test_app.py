"""create_app: components in the lifespan, middlewares, handlers, and mistakes that stop it early."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from ws_core.errors import ConfigError, MissingExtraError, UnavailableError
from ws_web import (
    APIRouter,
    Request,
    Response,
    Settings,
    SettingsError,
    create_app,
    get_request_id,
)
from ws_web import settings as proxy
from ws_web.testing import AppClient

COMPONENT = """
    from ws_core import Health

    log = []

    class Component:
        def __init__(self, name, key, after=()):
            self.name, self.settings_key, self.after = name, key, after
            log.append(f"{name} made")

        def configure(self, section):
            if section == {"default": {"bad": True}}:
                from ws_core.errors import ConfigError
                raise ConfigError(f"{self.settings_key}: bad")
            self.section = section

        async def start(self):
            log.append(f"{self.name} started")
            error = self.section["default"].get("error")
            if error is not None:
                raise error

        async def close(self):
            log.append(f"{self.name} closed")
            error = self.section["default"].get("close_error")
            if error is not None:
                raise error

        async def health(self):
            return Health(ok=True)

        def status(self):
            return {}

    def a(): return Component("a", "A_SECTION", after=("b",))
    def b(): return Component("b", "B_SECTION")
    def c(): return Component("c", "C_SECTION", after=("a",))
"""
ENTRIES = "A_SECTION = {module}:a\nB_SECTION = {module}:b\nC_SECTION = {module}:c"


@pytest.fixture
def log(publish: Callable[[str, str], None]) -> Any:
    """Publish three components that depend on each other, and return what happens to them."""
    before = set(sys.modules)
    publish(COMPONENT, ENTRIES)

    class Log:
        def __call__(self) -> Any:
            (name,) = {name for name in set(sys.modules) - before if name.startswith("published_")}
            return sys.modules[name].log

    return Log()


def sections(**options: Any) -> Any:
    """Return settings that use the three components, with options for each."""
    return Settings(**{f"{n.upper()}_SECTION": {"default": options.get(n, {"x": 1})} for n in "abc"})


class TestComponents:
    """Started in order, closed in reverse, whatever happens between."""

    async def test_order(self, log: Callable[[], list[str]]) -> None:
        """Each starts after those it names, and closes before them."""
        app = create_app(sections())
        assert list(app.state.components) == ["B_SECTION", "A_SECTION", "C_SECTION"]
        assert [line for line in log() if "started" in line] == []

        async with AppClient(app):
            assert [line for line in log() if "started" in line] == ["b started", "a started", "c started"]

        assert log()[-3:] == ["c closed", "a closed", "b closed"]

    async def test_a_partial_start_is_rolled_back(self, log: Callable[[], list[str]]) -> None:
        """What was started is closed, the one that failed is not, and the error comes out."""
        app = create_app(sections(c={"error": UnavailableError("pool 'default' cannot reach x")}))

        with pytest.raises(UnavailableError, match="cannot reach"):
            await AppClient(app).__aenter__()

        assert log()[-3:] == ["c started", "a closed", "b closed"]

    async def test_a_failing_close_does_not_keep_the_others_open(
        self, log: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is logged, and the rest is closed."""
        options = {"b": {"close_error": UnavailableError("gone")}, "c": {"close_error": ValueError("bug")}}

        async with AppClient(create_app(sections(**options))):
            pass

        assert log()[-3:] == ["c closed", "a closed", "b closed"]
        assert "component b did not close: gone" in caplog.text
        assert "component c did not close" in caplog.text

    async def test_each_life_gets_new_components(self, log: Callable[[], list[str]]) -> None:
        """An application may be started again, as tests do."""
        app = create_app(sections())

        async with AppClient(app):
            first = app.state.components["A_SECTION"]

        async with AppClient(app):
            assert app.state.components["A_SECTION"] is not first

        assert log().count("a started") == log().count("a closed") == 2

    async def test_a_cancelled_start_is_rolled_back(self, log: Callable[[], list[str]]) -> None:
        """Cancellation is a normal event."""
        app = create_app(sections(c={"error": asyncio.CancelledError()}))

        with pytest.raises(asyncio.CancelledError):
            await AppClient(app).__aenter__()

        assert log()[-2:] == ["a closed", "b closed"]

    async def test_an_empty_section_is_not_used(self, log: Callable[[], list[str]]) -> None:
        """Nothing is loaded for it."""
        app = create_app(Settings(A_SECTION={}, B_SECTION={"default": {"x": 1}}))
        assert list(app.state.components) == ["B_SECTION"]

    def test_a_wrong_section_stops_create_app(self, log: Callable[[], list[str]]) -> None:
        """Before any server starts."""
        with pytest.raises(ConfigError, match="A_SECTION: bad"):
            create_app(sections(a={"bad": True}))

        assert not any("started" in line for line in log())

    def test_a_missing_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message says what to install."""
        monkeypatch.setattr("ws_web._components.discover", lambda _: [])

        with pytest.raises(
            MissingExtraError, match=r"MONGO_CONFIG is set, but ws-pool\[mongo\] is not installed"
        ):
            create_app(Settings(MONGO_CONFIG={"default": {"url": "mongodb://x"}}))

    def test_a_broken_library(self, publish: Callable[[str, str], None]) -> None:
        """A component that cannot be imported names the sections."""
        publish("import nosuchlib", "D_SECTION = {module}:d")

        with pytest.raises(ConfigError, match=r"D_SECTION|nosuchlib"):
            create_app(Settings(D_SECTION={"default": {}}))

    def test_a_logging_component_comes_first_and_learns_the_request_id(
        self, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every log line can carry the id, and components that close are still noted."""
        create_app(sections())  # loads the published module
        made: Any = sys.modules[next(name for name in sys.modules if name.startswith("published_"))]
        told = {}

        class Logging(made.Component):  # type: ignore[misc]  # a module that was just written
            def add_context(self, name: str, provider: Any) -> None:
                told[name] = provider

        components = [made.b(), Logging("logging", "LOGGING_CONFIG")]
        monkeypatch.setattr("ws_web._components.discover", lambda _: components)
        app = create_app(Settings(LOGGING_CONFIG={"level": "info"}, B_SECTION={"default": {"x": 1}}))
        assert list(app.state.components) == ["LOGGING_CONFIG", "B_SECTION"]
        assert told["request_id"] is get_request_id


class TestLifespan:
    """The user's lifespan and hooks are inside that of the components."""

    async def test_composition(self, log: Callable[[], list[str]]) -> None:
        """Components, then start-up functions, then the lifespan; the reverse at the end."""
        order: list[object] = []

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
            order.append(list(log()[-1:]))
            yield {"shop": "open"}
            order.append("lifespan ended")

        async def hook() -> None:
            order.append("hook")

        config = {"on_startup": [hook, lambda: order.append("plain")], "on_shutdown": (hook,)}
        app = create_app(sections().replace(APP_CONFIG=config), lifespan=lifespan)

        @app.get("/")
        async def endpoint(request: Request) -> str:
            return str(request.state.shop)

        async with AppClient(app) as client:
            assert (await client.get("/")).data() == "open"

        assert order == ["hook", "plain", ["c started"], "lifespan ended", "hook"]
        assert log()[-1] == "b closed"

    async def test_a_failing_lifespan_closes_the_components(self, log: Callable[[], list[str]]) -> None:
        """The error is the user's own."""

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[Any]:
            raise ValueError("mine")
            yield  # type: ignore[unreachable]  # makes it a generator

        with pytest.raises(ValueError, match="mine"):
            await AppClient(create_app(sections(), lifespan=lifespan)).__aenter__()

        assert log()[-1] == "b closed"

    async def test_the_server_is_told_in_one_line(self, log: Callable[[], list[str]]) -> None:
        """A WsError is its message; any other error keeps its traceback, for it is a bug."""

        async def message_of(app: Any) -> Any:
            sent = []

            async def receive() -> Any:
                return {"type": "lifespan.startup"}

            async def send(message: Any) -> None:
                sent.append(message)

            with pytest.raises(Exception):  # noqa: B017 - either of the two below
                await app({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)

            return sent[0]

        expected = UnavailableError("pool 'default' cannot reach x")
        known = await message_of(create_app(sections(a={"error": expected})))
        assert known == {"type": "lifespan.startup.failed", "message": str(expected)}
        bug = await message_of(create_app(sections(a={"error": ValueError("bug")})))
        assert bug["message"].startswith("Traceback")

    async def test_a_lifespan_in_app_config(self) -> None:
        """It is taken like an argument, which wins over it."""
        ran: list[str] = []

        def named(name: str) -> Any:
            @asynccontextmanager
            async def lifespan(_: FastAPI) -> AsyncIterator[None]:
                ran.append(name)
                yield

            return lifespan

        settings = Settings(APP_CONFIG={"lifespan": named("configured")})

        async with AppClient(create_app(settings)), AppClient(create_app(settings, lifespan=named("given"))):
            assert ran == ["configured", "given"]

    @pytest.mark.parametrize("has_lifespan", [False, True])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    async def test_on_event(self, *, has_lifespan: bool) -> None:
        """Functions of `on_event`, of the application and of its routers, run beside a lifespan too."""
        ran: list[str] = []

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            ran.append("lifespan")
            yield
            ran.append("end")

        app = create_app(lifespan=lifespan if has_lifespan else None)
        router = APIRouter()

        @app.on_event("startup")
        async def first() -> None:
            ran.append("startup")

        @router.on_event("shutdown")
        def last() -> None:
            ran.append("shutdown")

        app.include_router(router)

        async with AppClient(app):
            pass

        assert [word for word in ran if word in ("startup", "lifespan", "end")] == (
            ["startup", "lifespan", "end"] if has_lifespan else ["startup"]
        )
        assert "shutdown" in ran

    def test_hooks_must_be_a_list(self) -> None:
        """The message names the key."""
        with pytest.raises(SettingsError, match="on_startup must be a list"):
            create_app(Settings(APP_CONFIG={"on_startup": print}))


class TestConfiguration:
    """APP_CONFIG, MIDDLEWARES, EXCEPTION_HANDLERS."""

    def test_app_config_and_arguments(self) -> None:
        """Arguments win over APP_CONFIG, and that over DEBUG."""
        app = create_app(Settings(APP_CONFIG={"title": "A", "version": "2"}, DEBUG=True), title="B")
        assert (app.title, app.version, app.debug) == ("B", "2", True)
        assert isinstance(app, FastAPI)

    def test_an_unknown_argument_is_a_clear_message(self) -> None:
        """FastAPI takes anything; what it stumbles over is named."""
        with pytest.raises(SettingsError, match="APP_CONFIG does not fit FastAPI"):
            create_app(Settings(APP_CONFIG={"routes": 7}))

    def test_given_settings_become_those_of_the_process(self) -> None:
        """The proxy and the application agree."""
        given = Settings(CURRENCY="EUR")
        assert create_app(given).state.settings is given
        assert proxy.CURRENCY == "EUR"
        assert create_app().state.settings is given

    async def test_middlewares_in_the_form_of_the_original(self) -> None:
        """Objects or dotted names; the last one is the outermost."""
        order = []

        class Note:
            def __init__(self, app: Any, name: str) -> None:
                self.app, self.name = app, name

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
                order.append(self.name)
                await self.app(scope, receive, send)

        app = create_app(
            Settings(
                MIDDLEWARES=[
                    {"cls": Note, "options": {"name": "inner"}},
                    Middleware(Note, name="outer"),
                    {"cls": "starlette.middleware.gzip.GZipMiddleware"},
                    "ws_web.middlewares.RequestIDMiddleware",
                ]
            )
        )

        async with AppClient(app) as client:
            order.clear()
            reply = await client.get("/livez", headers={"accept-encoding": "gzip"})

        assert order == ["outer", "inner"]
        assert [name for name, _ in reply.headers.items()].count("x-request-id") == 1

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"options": {}}, "MIDDLEWARES: an entry is"),
            ({"cls": print, "option": {}}, "MIDDLEWARES: an entry is"),
            ("nosuch.module.Thing", "MIDDLEWARES: 'nosuch.module.Thing' cannot be imported"),
            ("json.Nothing", "MIDDLEWARES: there is no 'Nothing' in the module 'json'"),
            ("nodots", "is not a dotted name"),
            (
                {"cls": CORSMiddleware, "options": {"origins": []}},
                "CORSMiddleware does not take these options: .*origins",
            ),
            (7, "MIDDLEWARES: 7 does not take these options"),
        ],
    )
    def test_wrong_middlewares(self, entry: Any, message: Any) -> None:
        """The message says what an entry looks like."""
        with pytest.raises(SettingsError, match=message):
            create_app(Settings(MIDDLEWARES=[entry]))

    def test_cors_for_everyone_with_credentials_is_refused(self) -> None:
        """Every site could act as the users."""
        options: dict[str, Any] = {"allow_origins": ["*"], "allow_credentials": True}

        with pytest.raises(SettingsError, match="lets every site act as your users"):
            create_app(Settings(MIDDLEWARES=[{"cls": CORSMiddleware, "options": options}]))

        with pytest.raises(SettingsError, match="lets every site act as your users"):
            create_app(middleware=[Middleware(CORSMiddleware, **options)])

    @pytest.mark.parametrize(
        "pattern",
        [
            ".*",
            "https?://.*",
            r"https?://[^/]+",
            "^.+$",
            "^https://.*$",
            "null|https://a",
            r"https://\w+\.com",
        ],
    )
    def test_cors_is_checked_wherever_it_is_added(self, pattern: str) -> None:
        """By `add_middleware`, in the list itself, and for patterns that every site fits."""
        app = create_app()

        with pytest.raises(SettingsError, match="lets every site act as your users"):
            app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)

        with pytest.raises(SettingsError, match="allow_origin_regex"):
            app.add_middleware(CORSMiddleware, allow_origin_regex=pattern, allow_credentials=True)

        app.user_middleware.append(
            Middleware(CORSMiddleware, allow_origin_regex=pattern, allow_credentials=True)
        )

        with pytest.raises(SettingsError, match="allow_origin_regex"):
            app.build_middleware_stack()

    @pytest.mark.parametrize("origins", [["*"], ["null"], ["https://shop.example", "null"]])
    def test_cors_is_checked_in_every_form(self, origins: list[str]) -> None:
        """With positional arguments, for the origin of sandboxed frames, and in a mounted application."""
        app = create_app()

        with pytest.raises(SettingsError, match="lets every site act as your users"):
            app.add_middleware(CORSMiddleware, origins, allow_credentials=True)

        with pytest.raises(SettingsError, match="lets every site act as your users"):
            app.add_middleware(CORSMiddleware, origins, ("GET",), (), True)

        inner = FastAPI()
        inner.add_middleware(CORSMiddleware, allow_origins=origins, allow_credentials=True)
        app.mount("/inner", inner)

        with pytest.raises(SettingsError, match="lets every site act as your users"):
            app.build_middleware_stack()

    @pytest.mark.parametrize("pattern", [r"https://.*\.shop\.example", "https://(a|b)\\.example"])
    def test_cors_for_some_sites(self, pattern: str) -> None:
        """A pattern of your own sites is fine."""
        create_app().add_middleware(CORSMiddleware, allow_origin_regex=pattern, allow_credentials=True)

    async def test_exception_handlers(self) -> None:
        """Objects, dotted names and status codes; they replace ours."""

        async def handler(request: Any, error: Any) -> Any:
            return Response(code=9, status_code=418)

        settings = Settings(
            EXCEPTION_HANDLERS=[
                {"cls": "builtins.KeyError", "handler": handler},
                {"cls": 404, "handler": handler},
            ]
        )
        app = create_app(settings, exception_handlers={ValueError: handler})

        @app.get("/{error}")
        async def endpoint(error: str) -> int:
            raise {"key": KeyError, "value": ValueError}[error]

        async with AppClient(app) as client:
            assert (await client.get("/key")).status_code == 418
            assert (await client.get("/value")).status_code == 418
            assert (await client.get("/a/b")).status_code == 418

    @pytest.mark.parametrize(
        "entry", [{"cls": KeyError}, "x", {"cls": KeyError, "handler": print, "more": 1}]
    )
    def test_wrong_exception_handlers(self, entry: Any) -> None:
        """The message says what an entry looks like."""
        with pytest.raises(SettingsError, match="EXCEPTION_HANDLERS: an entry is"):
            create_app(Settings(EXCEPTION_HANDLERS=[entry]))

    async def test_without_health(self) -> None:
        """The probes can be left out."""
        async with AppClient(create_app(health=False)) as client:
            assert (await client.get("/livez")).status_code == 404
