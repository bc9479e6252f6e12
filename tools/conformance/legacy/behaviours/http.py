"""Requests and their responses."""

import os
import tempfile

from ._setup import HOST, behaviour


def url(path):
    """Return a URL of the server that answers what it was asked."""
    return "http://%s:%s%s" % (HOST, os.environ["LEGACY_HTTP_PORT"], path)


@behaviour
async def http_verbs():
    """Each verb sends its method."""
    from wintersweet.asyncs import http

    found = []
    for verb in (http.get, http.post, http.put, http.patch, http.delete, http.options):
        found.append((await verb(url("/echo"))).json()["method"])
    found.append((await http.head(url("/echo"))).status_code)
    return found


@behaviour
async def http_get_parameters():
    """`get(url, params)` by position and keyword, with headers."""
    from wintersweet.asyncs.http import get

    first = (await get(url("/echo"), {"a": "1"})).json()["query"]
    second = (await get(url("/echo"), params={"b": "2"}, headers={"x-mine": "yes"})).json()
    return [first, second["query"], second["headers"]["x-mine"]]


@behaviour
async def http_post_bodies():
    """`post` of form data and of JSON."""
    from wintersweet.asyncs.http import post

    form = (await post(url("/echo"), data={"a": "1"})).json()
    sent = (await post(url("/echo"), json={"b": [2]})).json()
    raw = (await post(url("/echo"), b"bytes")).json()
    return [form["body"], form["headers"]["content-type"], sent["body"], raw["body"]]


@behaviour
async def http_post_files():
    """`files=[(name, (filename, file))]` makes a multipart form, beside fields."""
    from wintersweet.asyncs.http import post

    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        file.seek(0)
        reply = await post(url("/form"), {"a": 1}, [("doc", ("doc.txt", file))])
    return reply.json()


@behaviour
async def http_response_properties():
    """What a response has."""
    from wintersweet.asyncs.http import get

    reply = await get(url("/echo"))
    return [
        reply.status_code,
        reply.success,
        reply.parsed,
        reply.headers["Content-Type"],
        reply.content == reply.text.encode(),
        reply.get_text("utf-8") == reply.text,
        reply.json(encoding="utf-8")["method"],
        reply.json(loads=len) == len(reply.text),
        str(reply),
        str(reply.request.url) == url("/echo"),
        reply.request.method,
        reply.response.status,
        bool(reply.raw_headers),
    ]


@behaviour
async def http_error_status():
    """A reply of 404 is a response without success."""
    from wintersweet.asyncs.http import get

    reply = await get(url("/missing"))
    return [reply.status_code, reply.success]


@behaviour
async def http_no_server():
    """A request that fails is logged, and None."""
    from wintersweet.asyncs.http import get

    return await get("http://127.0.0.1:9/none")


@behaviour
async def http_head_follows_nothing():
    """`head` does not follow redirections."""
    from wintersweet.asyncs.http import get, head

    return [(await head(url("/moved"))).status_code, (await get(url("/moved"))).status_code]


@behaviour
async def http_download():
    """`download(url, file_path)` writes the file, and its response has a status."""
    from wintersweet.asyncs.http import download

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        reply = await download(url("/file"), path)
        with open(path, "rb") as file:
            size = len(file.read())
        return [reply.status_code, reply.success, reply.parsed, size]


@behaviour
async def http_request_stream():
    """`request_stream(url, file_path, method=)` sends a file."""
    from wintersweet.asyncs.http.api import request_stream

    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x" * 200000)
        file.flush()
        first = await request_stream(url("/count"), file.name)
        second = await request_stream(url("/count"), file_path=file.name, method="PUT")
    return [first.json(), second.json()]


@behaviour
async def http_request_by_method():
    """`request(method, url)`."""
    from wintersweet.asyncs.http import api

    reply = await api.request("DELETE", url("/echo"))
    return [reply.json()["method"], (await api.request(method="PATCH", url=url("/echo"))).json()["method"]]


@behaviour
async def http_own_response_class():
    """`handle_response_class=` takes a class of the user's, awaited with aiohttp's response."""
    from wintersweet.asyncs.http.api import request
    from wintersweet.asyncs.http.response import HTTPResponse

    class Mine(HTTPResponse):
        @property
        def shout(self):
            return self.json()["method"].lower()

    reply = await request("GET", url("/echo"), handle_response_class=Mine)
    return [type(reply).__name__, reply.shout]
