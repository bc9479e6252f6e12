"""A pool over Elasticsearch's official async client."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, cast
from urllib.parse import urlsplit

from elastic_transport import AiohttpHttpNode, HttpHeaders
from elastic_transport.client_utils import DEFAULT
from elasticsearch import ApiError, AsyncElasticsearch, TransportError, UnsupportedProductError
from elasticsearch import __version__ as _version

from ws_core.component import Health
from ws_core.redaction import mask_url
from ws_pool._core.config import config_error, parse
from ws_pool._core.shared_client import SharedClient
from ws_pool._elasticsearch.options import EsOptions, check_together
from ws_pool.errors import UnavailableError

_CLIENT_MAJOR: Final = _version[0]


@dataclass(frozen=True, slots=True)
class ElasticsearchStatistics:
    """
    The state of an Elasticsearch pool at one moment.

    Args:
        name: The pool's name.
        nodes: Nodes that the client knows.
        alive: Nodes among them that answered last.
        connections: Most connections at once to each node.
        version: The cluster's version; empty before the start.
    """

    name: str
    nodes: int
    alive: int
    connections: int
    version: str

    def status(self) -> Mapping[str, object]:
        """Return plain numbers and strings, for logs, status pages and `pool_status`."""
        return asdict(self)


class ElasticsearchPool(SharedClient[AsyncElasticsearch]):
    """
    An Elasticsearch cluster, shared by all tasks of a loop.

    Args:
        url: ``https://[user:password@]host:9200``, or a list of nodes.
        name: The pool's name in messages and statistics.
        setting: The prefix of options' names in errors.
        **options: ``user`` and ``password``, ``api_key``, ``connections`` (to each node, 10),
            ``timeout`` (seconds for each request, 10), ``retries`` (on other nodes, 3), ``verify``
            (whether certificates are checked), ``ca_certs`` (a file).

    Raises:
        ConfigError: An option is wrong; nothing was started.

    Example:
        ```python no-run
        # needs an Elasticsearch cluster
        from ws_pool.es import ElasticsearchPool

        async with ElasticsearchPool(url="http://localhost:9200") as pool, pool.get_client() as es:
            await es.index(index="items", document={"name": "lamp"})
            print(await es.search(index="items", query={"match": {"name": "lamp"}}))
        ```
    """

    _kind = "es"

    def __init__(
        self,
        url: str | list[str] | None = None,
        *,
        name: str = "default",
        setting: str = "ElasticsearchPool",
        **options: object,
    ) -> None:
        given = dict(options) if url is None else {"url": url, **options}
        checked = self._options = parse(EsOptions, given, setting)

        check_together(checked, setting)

        try:
            self._headers = _authorization(checked.user, checked.password)
        except UnicodeEncodeError as error:
            message = f"and {setting}.password must be valid text: {error.reason}"
            raise config_error(f"{setting}.user", message) from None

        super().__init__(name, setting, ", ".join(mask_url(host) for host in checked.url))
        self._version = ""

    async def health(self) -> Health:
        """Request the cluster's health: red, or no answer, is not ok."""
        if self._client is None:
            return Health(ok=False, detail=f"es pool {self._name!r} is not open")

        began = time.perf_counter()

        try:
            answer = await self._client.cluster.health()
        except (ApiError, TransportError, UnsupportedProductError) as error:
            return Health(ok=False, detail=_reason(error))

        status = str(answer.get("status", "unknown"))
        latency = time.perf_counter() - began
        return Health(ok=status in {"green", "yellow"}, detail=f"the cluster is {status}", latency=latency)

    def statistics(self) -> ElasticsearchStatistics:
        """Count nodes."""
        pool = None if self._client is None else self._client.transport.node_pool
        return ElasticsearchStatistics(
            name=self._name,
            nodes=len(self._options.url) if pool is None else len(pool),
            # The client has no public name for the nodes that it takes for alive.
            alive=len(getattr(pool, "_alive_nodes", ())),
            connections=self._options.connections,
            version=self._version,
        )

    def _make(self) -> AsyncElasticsearch:
        options = self._options
        tls: dict[str, Any] = {}  # as the client's own signature has it

        if any(urlsplit(host).scheme == "https" for host in options.url):
            tls = {"verify_certs": options.verify, "ssl_show_warn": False}

            if options.ca_certs is not None:
                tls["ca_certs"] = options.ca_certs

        return AsyncElasticsearch(
            list(options.url),
            node_class=_node_class(),
            headers=self._headers,
            api_key=options.api_key,
            connections_per_node=options.connections,
            request_timeout=options.timeout,
            max_retries=options.retries,
            **tls,
        )

    async def _check_server(self, client: AsyncElasticsearch) -> None:
        try:
            info = await self._info(client)
        except (ApiError, TransportError, UnsupportedProductError) as error:
            message = f"es pool {self._name!r}: {self._shown} cannot be used: {_reason(error)}"
            raise UnavailableError(message, pool=self._name) from error

        self._version = str(info.get("version", {}).get("number", ""))

    async def _info(self, client: AsyncElasticsearch) -> Mapping[str, Any]:
        """Query the server's version, in the media type of its own major version if need be."""
        try:
            return cast("Mapping[str, Any]", (await client.info()).body)
        except ApiError as error:
            # A server refuses the types of a client of the next major version. It knows its own, and so
            # will its successor, when the cluster is upgraded under a running pool.
            if error.error != "media_type_header_exception":
                raise

        for node in client.transport.node_pool.all():
            type(node).compatible_with = _CLIENT_MAJOR - 1  # type: ignore[attr-defined]  # made by _make

        return cast("Mapping[str, Any]", (await client.info()).body)

    async def _end(self, client: AsyncElasticsearch) -> None:
        await client.close()


def _authorization(user: str | None, password: str | None) -> dict[str, str]:
    """Return the headers with credentials, in UTF-8: the client's own way takes ASCII only."""
    if user is None:
        return {}

    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _node_class() -> type[AiohttpHttpNode]:
    """Make the class of a pool's nodes, whose requests may be in the media types of an older server."""

    class Node(AiohttpHttpNode):
        compatible_with: ClassVar[int] = _CLIENT_MAJOR

        async def perform_request(  # type: ignore[override]  # what it returns has no public name
            self,
            method: str,
            target: str,
            body: bytes | None = None,
            headers: HttpHeaders | None = None,
            request_timeout: Any = DEFAULT,  # Any: as the base has it
        ) -> Any:  # a type without a public name
            if headers is not None and self.compatible_with != _CLIENT_MAJOR:
                headers = headers.copy()

                for name in ("accept", "content-type"):
                    if name in headers:
                        old, new = (f"compatible-with={n}" for n in (_CLIENT_MAJOR, self.compatible_with))
                        headers[name] = headers[name].replace(old, new)

            return await super().perform_request(method, target, body, headers, request_timeout)

    return Node


def _reason(error: Exception) -> str:
    """Return why a request failed, in the server's words if there are some."""
    if isinstance(error, ApiError):
        details = error.body.get("error") if isinstance(error.body, Mapping) else None
        reason = details.get("reason") if isinstance(details, Mapping) else None
        more = f": {reason}" if isinstance(reason, str) else ""
        return f"it answered with {error.meta.status}: {error.message}{more}"

    if isinstance(error, TransportError):
        return f"no answer: {mask_url(error.message)}"

    return str(error)
