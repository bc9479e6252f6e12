"""What the features of FastAPI in `test_fastapi_features` have in common: parts, models, requests."""
# No `from __future__ import annotations`: FastAPI reads those of functions that stand within functions.

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import fastapi
from fastapi import (
    FastAPI,
)
from pydantic import BaseModel

import ws_web
from ws_web import Settings, create_app

# Any below: requests' options and JSON.

Ask = tuple[str, str, dict[str, Any]]
Made = tuple[FastAPI, list[Ask]]  # an application, and what to ask of it
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Kit:
    """What an application is made of: FastAPI's parts or ours."""

    app: Callable[..., FastAPI]
    router: Callable[..., fastapi.APIRouter]
    route: Any
    sockets: list[str] = field(default_factory=list)


def plain() -> Kit:
    """Return FastAPI's own parts."""
    return Kit(FastAPI, fastapi.APIRouter, fastapi.routing.APIRoute)


def ours() -> Kit:
    """Return our parts, with inputs in errors, as FastAPI has them."""
    return Kit(
        lambda **options: create_app(Settings(DEBUG=True), health=False, **options),
        ws_web.APIRouter,
        ws_web.APIRoute,
    )


class Item(BaseModel):
    """An item of a shop."""

    name: str
    description: str | None = None
    price: float
    tax: float | None = None


class User(BaseModel):
    """A user, with a password that must not be sent."""

    username: str
    password: str = "secret"


class PublicUser(BaseModel):
    """What of a user is sent."""

    username: str


class WholeUser(PublicUser):
    """A subclass that has more than is sent."""

    password: str


class Bytes(BaseModel):
    """Bytes that are base64 in JSON."""

    data: bytes
    model_config = {"val_json_bytes": "base64", "ser_json_bytes": "base64"}


class Login(BaseModel):
    """A form as a model."""

    username: str
    password: str
    model_config = {"extra": "forbid"}


class Cookies(BaseModel):
    """Cookies as a model."""

    session_id: str
    tracker: str | None = None


@dataclass
class Author:
    """A dataclass within a dataclass."""

    name: str
    items: list[str] = field(default_factory=list)


@dataclass
class Book:
    """A dataclass as body and reply."""

    title: str
    author: Author
    pages: int | None = None


def post(path: str, data: object, **headers: str) -> Ask:
    """Return a request with JSON."""
    return "POST", path, {"json": data, "headers": headers}


def get(path: str, **headers: str) -> Ask:
    """Return a GET request."""
    return "GET", path, {"headers": {name.replace("_", "-"): value for name, value in headers.items()}}
