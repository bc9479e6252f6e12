"""Codes of an application's errors: unique, in the client's language, and as RFC 9457 describes them."""

from __future__ import annotations

import traceback
from enum import EnumType
from typing import Any

import pytest

from ws_core.errors import UsageError
from ws_web import ErrorCode, ErrResponse, HTTPExceptionResponse, Response, create_app
from ws_web._negotiation import preferred_language
from ws_web.testing import AppClient


class ShopError(ErrorCode):
    """Errors of a shop."""

    SOLD_OUT = 4001, "Sold out", 409, {"de": "Ausverkauft", "zh-TW": "售罄", "zh": "已售完"}
    CLOSED = "closed", "The shop is closed", 503
    OLD = 4002, "Old"


class TestRegistry:
    """A code means one error."""

    def test_a_member_has_what_was_declared(self) -> None:
        """Code, text, and status, which is 400 by default."""
        assert (ShopError.SOLD_OUT.value, ShopError.SOLD_OUT.text) == (4001, "Sold out")
        assert (ShopError.CLOSED.status_code, ShopError.OLD.status_code) == (503, 400)
        assert ShopError(4002) is ShopError.OLD

    def test_a_code_twice_in_a_class(self) -> None:
        """An enumeration would make the second an alias of the first."""
        with pytest.raises(UsageError, match=r"code 4101 is taken by .*Twice"):

            class Twice(ErrorCode):
                FIRST = 4101, "first"
                SECOND = 4101, "second"

    def test_a_code_of_another_class(self) -> None:
        """The error names where it is declared."""
        with pytest.raises(UsageError, match=r"Other: code 4001 is taken by .*test_errors\.ShopError"):

            class Other(ErrorCode):
                MINE = 4001, "mine"

    def test_a_module_that_is_loaded_anew(self) -> None:
        """The same class may be made again."""

        def load() -> type[ErrorCode]:
            class Again(ErrorCode):
                ONE = 4102, "one"

            return Again

        assert load() is not load()

    @pytest.mark.parametrize(
        ("declared", "message"),
        [
            ((0, "x"), "other than 0, not 0"),
            ((True, "x"), "not True"),
            (("", "x"), "not ''"),
            ((1.5, "x"), "not 1.5"),
            ((4105, ""), "code 4105 has no text for people"),
            ((404, "x"), "code 404 is an HTTP status"),
            ((4103, "x", 200), "the status of code 4103 must be from 400 to 599, not 200"),
        ],
    )
    def test_what_cannot_be_a_code(self, declared: Any, message: str) -> None:
        """Success, other types, and the codes of HTTP."""
        with pytest.raises(UsageError, match=message):
            EnumType.__call__(ErrorCode, "Wrong", {"MEMBER": declared})


class TestLanguages:
    """The text is in the language that the client prefers."""

    @pytest.mark.parametrize(
        ("accepted", "text"),
        [
            (None, "Sold out"),
            ("de", "Ausverkauft"),
            ("DE-at, en;q=0.5", "Ausverkauft"),
            ("en;q=0.2, de;q=0.7", "Ausverkauft"),
            ("en, de", "Sold out"),
            ("en-GB, de;q=0.9", "Sold out"),
            ("fr, de;q=0.1", "Ausverkauft"),
            ("fr", "Sold out"),
            ("*", "Sold out"),
            ("de;q=0", "Sold out"),
            ("de;q=x", "Sold out"),
            ("zh-Hant-TW, zh;q=0.1", "已售完"),
            ("zh-tw", "售罄"),
            (";;,,-;q=,é", "Sold out"),
            ("x," * 5000 + "de", "Sold out"),
        ],
    )
    async def test_accept_language(self, accepted: str | None, text: str) -> None:
        """Quality first, then the longest tag that fits (RFC 4647, lookup)."""
        app = create_app()

        @app.get("/")
        async def endpoint() -> None:
            raise ErrResponse(code=ShopError.SOLD_OUT)

        headers = {} if accepted is None else {"accept-language": accepted}

        async with AppClient(app) as client:
            reply = await client.get("/", headers=headers)

        assert (reply.status_code, reply.error()["code"], reply.error()["msg"]) == (409, 4001, text)
        assert reply.headers["vary"] == "Accept, Accept-Language"

    async def test_the_language_of_the_texts_themselves(self) -> None:
        """A client that prefers it gets the text, not a translation."""

        class Laden(ErrorCode, language="de"):
            ZU = 4104, "Geschlossen", 503, {"en": "Closed"}

        app = create_app()

        @app.get("/")
        async def endpoint() -> Response:
            return Response(code=Laden.ZU)

        async with AppClient(app) as client:
            texts = [
                (await client.get("/", headers={"accept-language": accepted})).error()["msg"]
                for accepted in ("de, en;q=0.9", "en, de;q=0.9")
            ]

        assert texts == ["Geschlossen", "Closed"]

    def test_outside_of_a_request(self) -> None:
        """The texts themselves are used."""
        assert ShopError.SOLD_OUT.msg == "Sold out"
        assert preferred_language({}, "en") is None


class TestConstants:
    """An error that is made once and raised often."""

    async def test_it_carries_the_id_of_each_request(self) -> None:
        """And the language of each client."""
        constant = ErrResponse(["data"], ShopError.SOLD_OUT, extra={"n": 1}, headers={"x-own": "1"})
        app = create_app()

        @app.get("/")
        async def endpoint() -> None:
            raise constant

        async with AppClient(app) as client:
            for name, language, text in (("r-1", "de", "Ausverkauft"), ("r-2", "en", "Sold out")):
                reply = await client.get("/", headers={"x-request-id": name, "accept-language": language})
                assert reply.error() == {
                    "code": 4001,
                    "data": ["data"],
                    "msg": text,
                    "request_id": name,
                    "extra": {"n": 1},
                }
                assert reply.headers["x-own"] == "1"
                assert reply.headers["content-length"] == str(len(reply.content))

    async def test_it_keeps_no_frames(self) -> None:
        """The frames of each request would be added to its traceback."""
        constant = ErrResponse(code=4001)
        app = create_app()

        @app.get("/")
        async def endpoint() -> None:
            try:
                dict[str, int]()["inner"]
            except KeyError as error:
                raise constant from error

        async with AppClient(app) as client:
            for _ in range(20):
                await client.get("/")

        assert len(traceback.extract_tb(constant.__traceback__)) < 20
        assert constant.__cause__ is constant.__context__ is None


class TestProblems:
    """RFC 9457, for clients that prefer it."""

    @pytest.fixture
    def app(self) -> Any:
        """An application with several errors."""
        app = create_app()

        @app.get("/sold")
        async def sold(n: int = 0) -> None:
            raise ErrResponse({"left": 0}, ShopError.SOLD_OUT, extra={"again": "tomorrow"})

        @app.get("/boom")
        async def boom() -> None:
            raise ValueError("inside")

        @app.get("/ok")
        async def ok() -> Response:
            return Response(1)

        @app.get("/soft")
        async def soft() -> Response:
            return Response(code=5001)

        return app

    @pytest.mark.parametrize(
        ("accepted", "is_problem"),
        [
            ("application/problem+json", True),
            ("application/json, application/problem+json", True),
            ("application/json;q=0.5, application/Problem+JSON;q=0.5, */*;q=0.1", True),
            ("application/json, application/problem+json;q=0.9", False),
            ("application/problem+json;q=0", False),
            ("application/json", False),
            ("*/*", False),
        ],
    )
    async def test_accept(self, app: Any, accepted: str, is_problem: bool) -> None:
        """The form is chosen by quality; who does not name it gets the envelope."""
        async with AppClient(app) as client:
            reply = await client.get("/sold", headers={"accept": accepted})

        kind = "application/problem+json" if is_problem else "application/json"
        assert reply.headers["content-type"] == kind
        assert "Accept" in reply.headers["vary"]

    async def test_its_members(self, app: Any) -> None:
        """Those of the RFC, and what else the envelope has."""
        headers = {"accept": "application/problem+json", "x-request-id": "r-1"}

        async with AppClient(app) as client:
            sold = await client.get("/sold", headers=headers)
            missing = await client.get("/none", headers=headers)
            invalid = await client.get("/sold?n=x", headers=headers)
            boom = await client.get("/boom", headers=headers)

        assert sold.json() == {
            "type": "about:blank",
            "title": "Conflict",
            "status": 409,
            "detail": "Sold out",
            "instance": "/sold",
            "code": 4001,
            "request_id": "r-1",
            "data": {"left": 0},
            "extra": {"again": "tomorrow"},
        }
        assert missing.json() == {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "instance": "/none",
            "code": 404,
            "request_id": "r-1",
        }
        assert (invalid.json()["status"], invalid.json()["data"][0]["loc"]) == (422, ["query", "n"])
        assert (boom.status_code, boom.headers["content-type"]) == (500, "application/problem+json")
        assert "inside" not in boom.text

    async def test_what_is_not_a_problem(self, app: Any) -> None:
        """A success, and an error whose status says success."""
        async with AppClient(app) as client:
            for path in ("/ok", "/soft"):
                reply = await client.get(path, headers={"accept": "application/problem+json"})
                assert reply.headers["content-type"] == "application/json"


class TestBuildMsg:
    """The way of the first version."""

    def test_a_table_that_does_not_know_the_code(self) -> None:
        """`self._code` is the code, and a missing text is not a failure."""

        class Own(Response):
            def build_msg(self) -> str:
                return {7: "seven"}[self._code]  # type: ignore[index]  # a code may be a text

        assert Own(code=7).msg == "seven"
        assert Own(code=8).msg == "Unknown Error"

    def test_a_status_without_a_phrase(self) -> None:
        """Any number is a status."""
        assert HTTPExceptionResponse(499, "Client Closed Request").msg == "Client Closed Request"
