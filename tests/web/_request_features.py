"""Features of FastAPI that concern what comes in; not a test module."""
# No `from __future__ import annotations`: FastAPI reads those of functions that stand within functions.

import datetime as dt
from typing import Annotated, Any
from uuid import UUID

from fastapi import (
    Body,
    Cookie,
    Depends,
    File,
    Form,
    Header,
    HTTPException,
    Path,
    Query,
    UploadFile,
)
from fastapi.encoders import jsonable_encoder

from tests.web._features import (
    FORM,
    Author,
    Book,
    Bytes,
    Cookies,
    Item,
    Kit,
    Login,
    Made,
    User,
    get,
    post,
)

# Any below: endpoints return what they like.


def strict_content_type(kit: Kit) -> Made:
    """JSON without its content type."""
    app = kit.app(strict_content_type=False)

    @app.post("/items/")
    async def create_item(item: Item) -> Item:
        return item

    body = '{"name": "lamp", "price": 9.5}'
    return app, [("POST", "/items/", {"content": body}), ("POST", "/items/", {"content": "{"})]


def request_files(kit: Kit) -> Made:
    """Files, one and several, with a field beside them."""
    app = kit.app()

    @app.post("/files/")
    async def create(
        small: Annotated[bytes, File()], large: list[UploadFile], note: Annotated[str, Form()] = ""
    ) -> dict[str, Any]:
        return {"small": len(small), "names": [one.filename for one in large], "note": note}

    def sent(*parts: tuple[str, str, str]) -> str:
        shown = 'content-disposition: form-data; name="{}"; filename="{}"'
        texts = [f"--x\r\n{shown.format(name, file)}\r\n\r\n{text}\r\n" for name, file, text in parts]
        return "".join(texts) + "--x--\r\n"

    large = [("large", "b.txt", "d"), ("large", "c", "e")]
    bodies = sent(("small", "a.txt", "abc"), *large), sent(*large)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    return app, [("POST", "/files/", {"content": text, "headers": headers}) for text in bodies]


def encoder(kit: Kit) -> Made:
    """`jsonable_encoder` in a handler, with times."""
    app = kit.app()
    kept: dict[str, Any] = {}

    @app.put("/items/{item_id}")
    def update(item_id: str, item: Item, at: dt.datetime) -> Any:
        kept[item_id] = jsonable_encoder({"item": item, "at": at, "set": {1}})
        return kept

    return app, [
        ("PUT", "/items/a?at=2026-01-02T03:04:05Z", {"json": {"name": "lamp", "price": 1}}),
        ("PUT", "/items/a?at=yesterday", {"json": {"name": "lamp"}}),
    ]


def body(kit: Kit) -> Made:
    """A model beside path and query."""
    app = kit.app()

    @app.put("/items/{item_id}")
    async def update(item_id: int, item: Item, q: str | None = None) -> dict[str, Any]:
        return {"item_id": item_id, **item.model_dump(), **({"q": q} if q else {})}

    bodies: list[Any] = [{"name": "lamp", "price": 1.5}, {"name": "lamp", "price": "x"}, None, [1]]
    return app, [("PUT", "/items/3?q=a", {"json": one} if one else {}) for one in bodies] + [
        ("PUT", "/items/3", {"content": "{", "headers": {"content-type": "application/json"}})
    ]


def numeric_validations(kit: Kit) -> Made:
    """Bounds of numbers in path and query."""
    app = kit.app()

    @app.get("/items/{item_id}")
    async def read(
        item_id: Annotated[int, Path(title="The ID of the item", ge=0, le=1000)],
        size: Annotated[float, Query(gt=0, lt=10.5)],
        q: Annotated[str | None, Query(alias="item-query", max_length=3, deprecated=True)] = None,
    ) -> dict[str, Any]:
        return {"item_id": item_id, "size": size, "q": q}

    return app, [
        get(f"/items/{rest}") for rest in ("1?size=1&item-query=abc", "1001?size=11&item-query=abcd", "x")
    ]


def request_form_models(kit: Kit) -> Made:
    """A form as a model."""
    app = kit.app()

    @app.post("/login/")
    async def login(data: Annotated[Login, Form()]) -> Login:
        return data

    texts = ("username=ann&password=x", "username=ann", "username=ann&password=x&more=1")
    return app, [("POST", "/login/", {"content": text, "headers": FORM}) for text in texts]


def json_base64_bytes(kit: Kit) -> Made:
    """Bytes in JSON."""
    app = kit.app()

    @app.post("/data")
    def echo(given: Bytes) -> Bytes:
        return given

    return app, [post("/data", {"data": "aGVsbG8="}), post("/data", {"data": "!"})]


def dataclasses(kit: Kit) -> Made:
    """Dataclasses, nested, as body and reply."""
    app = kit.app()

    @app.post("/books/", response_model=Book)
    async def create(book: Book) -> Any:
        return book

    @app.get("/authors/")
    def authors() -> list[Author]:
        return [Author("ann", ["a"]), Author("bob")]

    author = {"name": "ann", "items": ["a"]}
    return app, [
        post("/books/", {"title": "t", "author": author}),
        post("/books/", {"title": 1}),
        get("/authors/"),
    ]


def dependencies(kit: Kit) -> Made:
    """Dependencies that depend, are classes, and end after the reply."""
    app = kit.app()
    log: list[str] = []

    class Common:
        def __init__(self, q: str | None = None, skip: int = 0) -> None:
            self.q, self.skip = q, skip

    async def session() -> Any:
        log.append("begin")

        try:
            yield "session"
        except ValueError:
            log.append("failed")
            raise HTTPException(400, "Owner error") from None
        finally:
            log.append("end")

    def user(session: Annotated[str, Depends(session)], common: Annotated[Common, Depends()]) -> str:
        return f"{session} of {common.q}"

    @app.get("/users/")
    async def users(
        user: Annotated[str, Depends(user)],
        common: Annotated[Common, Depends(use_cache=False)],
        fails: bool = False,
    ) -> Any:
        if fails:
            raise ValueError("owner")

        return {"user": user, "skip": common.skip, "log": list(log)}

    return app, [
        get("/users/?q=ann&skip=3"),
        get("/users/?fails=true"),
        get("/users/"),
        get("/users/?skip=x"),
    ]


def request_forms(kit: Kit) -> Made:
    """Fields of a form."""
    app = kit.app()

    @app.post("/login/")
    async def login(username: Annotated[str, Form(min_length=2)], tags: Annotated[list[str], Form()]) -> Any:
        return {"username": username, "tags": tags}

    texts = ("username=ann&tags=a&tags=b", "username=a", "")
    return app, [("POST", "/login/", {"content": text, "headers": FORM}) for text in texts]


def cookie_param_models(kit: Kit) -> Made:
    """Cookies as a model, and headers as parameters."""
    app = kit.app()

    @app.get("/items/")
    async def read(
        cookies: Annotated[Cookies, Cookie()],
        user_agent: Annotated[str | None, Header()] = None,
        x_token: Annotated[list[str] | None, Header()] = None,
    ) -> Any:
        return {"cookies": cookies, "agent": user_agent, "tokens": x_token}

    return app, [
        (
            "GET",
            "/items/",
            {"headers": [("cookie", "session_id=a; tracker=b"), ("x-token", "1"), ("x-token", "2")]},
        ),
        get("/items/", user_agent="test"),
    ]


def extra_data_types(kit: Kit) -> Made:
    """UUIDs, dates and durations."""
    app = kit.app()

    @app.put("/items/{item_id}")
    async def read(
        item_id: UUID,
        begin: Annotated[dt.datetime, Body()],
        wait: Annotated[dt.timedelta, Body()],
        at: Annotated[dt.time | None, Body()] = None,
    ) -> Any:
        return {"id": item_id, "start": begin + wait, "wait": wait, "at": at}

    one = "/items/12345678-1234-5678-1234-567812345678"
    whole = {"begin": "2026-01-02T03:04:05Z", "wait": "PT90S", "at": "14:23:55.003"}
    return app, [("PUT", one, {"json": whole}), ("PUT", "/items/x", {"json": {"begin": 1, "wait": []}})]


def body_multiple_params(kit: Kit) -> Made:
    """Several models in a body, and one that is embedded."""
    app = kit.app()

    @app.put("/items/{item_id}")
    async def update(
        item_id: int, item: Item, user: User, importance: Annotated[int, Body(gt=0)], q: str | None = None
    ) -> Any:
        return {"id": item_id, "item": item, "user": user, "importance": importance, "q": q}

    @app.put("/embedded/")
    async def embedded(item: Annotated[Item, Body(embed=True)]) -> Item:
        return item

    lamp = {"name": "lamp", "price": 1}
    whole = {"item": lamp, "user": {"username": "ann"}, "importance": 5}
    return app, [
        ("PUT", "/items/1?q=a", {"json": whole}),
        ("PUT", "/items/1", {"json": {**whole, "importance": 0}}),
        ("PUT", "/embedded/", {"json": {"item": lamp}}),
        ("PUT", "/embedded/", {"json": lamp}),
    ]


REQUEST_FEATURES = (
    strict_content_type,
    request_files,
    encoder,
    body,
    numeric_validations,
    request_form_models,
    json_base64_bytes,
    dataclasses,
    dependencies,
    request_forms,
    cookie_param_models,
    extra_data_types,
    body_multiple_params,
)
