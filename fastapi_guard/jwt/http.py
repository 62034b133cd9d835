"""The one HTTP client: requests to an issuer are bounded in time and size, and stay at one origin.

Requests need the extra ``http``; importing this module does not.
"""

import ssl
from asyncio import AbstractEventLoop, get_running_loop, timeout, to_thread
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit

from pydantic import AnyUrl

from fastapi_guard.exceptions import ConfigurationError, MissingExtraError
from fastapi_guard.jwt.responses import (
    Answer,
    Document,
    FetchError,
    content_of,
    freshness,
    parse,
    read,
)
from fastapi_guard.jwt.urls import check_url, warn_about_http, without_query
from fastapi_guard.stores.arguments import implementing

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DEFAULT_TIMEOUT_SECONDS",
    "FetchError",
    "Poster",
    "check_client",
    "check_max_bytes",
    "client_on",
    "fetch",
    "fetch_json",
    "fetch_text",
    "in_process",
]

DEFAULT_TIMEOUT_SECONDS: Final = 5.0
DEFAULT_MAX_BYTES: Final = 262_144
_MAX_REDIRECTS: Final = 3
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# A 400 to a form may be about the token in it (RFC 7662 2.3).
_USABLE: Final = {"GET": (200,), "POST": (200, 400)}
# Some servers answer 406 unless the type that they send is named (RFC 7517 8.5.1).
_ACCEPT: Final = "application/json, application/jwk-set+json, */*;q=0.1"


def check_client(client: "httpx2.AsyncClient | None") -> "httpx2.AsyncClient | None":
    """Return ``client`` if it is asynchronous. Call this when an object that will send requests is constructed.

    Raises:
        ConfigurationError: It is a synchronous client, no client, or the class of one.
        MissingExtraError: The extra ``http`` is not installed.
    """
    try:
        import_module("httpx2")
    except ImportError:
        raise MissingExtraError("httpx2", "http") from None
    if client is not None:
        # The method stream is one of HTTP clients alone.
        implementing("client", client, ("aclose",), "an httpx2.AsyncClient", plain=("stream",))
    return client


def check_max_bytes(max_bytes: int) -> int:
    """Return ``max_bytes`` if it is a size.

    Raises:
        ConfigurationError: It is not a whole number from 1.
    """
    if type(max_bytes) is not int or max_bytes < 1:
        msg = "max_bytes is a whole number from 1"
        raise ConfigurationError(msg)
    return max_bytes


async def fetch_json(
    url: str,
    *,
    client: "httpx2.AsyncClient | None" = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Any:
    """Return the JSON at ``url``; see ``fetch``."""
    return (await fetch(url, client=client, timeout_seconds=timeout_seconds, max_bytes=max_bytes)).value


async def fetch(
    url: str,
    *,
    client: "httpx2.AsyncClient | None" = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    max_bytes: int = DEFAULT_MAX_BYTES,
    private_http: bool = False,
) -> Document:
    """Return the JSON document at ``url``, and how long it may be kept.

    A redirect is followed within the origin of ``url`` only: the configuration decides whose keys these are.

    Args:
        url: An https URL; http on loopback.
        client: The client to use; it stays open.
        timeout_seconds: The time for the whole answer, however slowly its bytes come.
        max_bytes: The size at which reading stops.
        private_http: See ``check_url``.

    Raises:
        ConfigurationError: The URL is not safe to fetch keys from.
        FetchError: No such document came.
        MissingExtraError: The extra ``http`` is not installed.
    """
    check_url(url, private_http=private_http)
    answer = await _get(url, client, timeout_seconds, max_bytes)
    return Document(parse(url, content_of(answer)), freshness(answer.headers))


async def fetch_text(
    url: str,
    *,
    headers: Mapping[str, str],
    client: "httpx2.AsyncClient | None" = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    max_bytes: int = DEFAULT_MAX_BYTES,
    private_http: bool = False,
) -> str:
    """Return the text at ``url``, requested with ``headers``; see ``fetch``.

    Raises:
        ConfigurationError: The URL is not https.
        FetchError: No text in UTF-8 came.
        MissingExtraError: The extra ``http`` is not installed.
    """
    check_url(url, private_http=private_http)
    answer = await _get(url, client, timeout_seconds, max_bytes, headers)
    try:
        return content_of(answer).decode("utf-8")
    except UnicodeDecodeError:
        msg = f"{without_query(url)} did not answer with text"
        raise FetchError(msg) from None


class Poster:
    """Posts forms to one endpoint, over connections that stay open: one client for each event loop."""

    def __init__(
        self,
        url: str | AnyUrl,
        *,
        client: "httpx2.AsyncClient | None",
        timeout_seconds: float,
        max_bytes: int,
        private_http: bool = False,
    ) -> None:
        """Post to ``url``; the arguments are those of ``fetch``.

        Raises:
            ConfigurationError: The URL is not https, or the client is not asynchronous.
            MissingExtraError: The extra ``http`` is not installed.
        """
        self.url: str = check_url(url, private_http=private_http)
        self._max_bytes = check_max_bytes(max_bytes)
        warn_about_http(self.url)
        self._client = check_client(client)
        self._own: dict[AbstractEventLoop, httpx2.AsyncClient] = {}
        self._timeout_seconds = timeout_seconds

    async def post(self, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """Return the answer to ``form``, of status 200 or 400. A redirect is an error: the form may hold secrets.

        Raises:
            FetchError: Another answer came, or none.
        """
        client = self._client or await self._of_loop()
        return await _send(client, "POST", self.url, self._timeout_seconds, self._max_bytes, form, headers)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a client that was passed in stays open."""
        own = self._own.pop(get_running_loop(), None)
        if own is not None:
            await own.aclose()

    async def _of_loop(self) -> "httpx2.AsyncClient":
        loop = get_running_loop()
        if loop not in self._own:
            for closed in [known for known in self._own if known.is_closed()]:
                del self._own[closed]
            client = await _new_client()
            # Another request may have been as quick; a client that was never used has no connection to close.
            self._own.setdefault(loop, client)
        return self._own[loop]


def in_process(
    answer: Callable[[str, str, Mapping[str, str], bytes], Awaitable[Answer]],
) -> "httpx2.AsyncBaseTransport":
    """Return a transport that calls ``answer(method, url, headers, body)`` instead of the network.

    Raises:
        MissingExtraError: The extra ``http`` is not installed.
    """
    check_client(None)
    import httpx2  # noqa: PLC0415 - see the docstring of the module

    async def handle(request: httpx2.Request) -> httpx2.Response:
        answered = await answer(request.method, str(request.url), request.headers, await request.aread())
        body = _in_one_piece(answered.body) if isinstance(answered.body, bytes) else answered.body
        return httpx2.Response(answered.status, headers=dict(answered.headers), content=body)

    return httpx2.MockTransport(handle)


def client_on(transport: "httpx2.AsyncBaseTransport") -> "httpx2.AsyncClient":
    """Return a client on ``transport``."""
    import httpx2  # noqa: PLC0415 - see the docstring of the module

    return httpx2.AsyncClient(transport=transport)


async def _get(
    url: str,
    client: "httpx2.AsyncClient | None",
    timeout_seconds: float,
    max_bytes: int,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    check_client(client)
    if client is not None:
        return await _send(client, "GET", url, timeout_seconds, max_bytes, headers=headers)
    # A client for this fetch alone keeps no connection, so none is left to an event loop that has ended.
    async with await _new_client() as own:
        return await _send(own, "GET", url, timeout_seconds, max_bytes, headers=headers)


async def _in_one_piece(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _new_client() -> "httpx2.AsyncClient":
    import httpx2  # noqa: PLC0415 - see the docstring of the module

    # To read the certificates of all authorities takes a tenth of a second: once, and not in the event loop.
    return httpx2.AsyncClient(verify=await to_thread(_authorities))


@cache
def _authorities() -> ssl.SSLContext:
    import httpx2  # noqa: PLC0415 - see the docstring of the module

    return httpx2.create_ssl_context()


async def _send(
    client: "httpx2.AsyncClient",
    method: str,
    url: str,
    timeout_seconds: float,
    max_bytes: int,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    try:
        async with timeout(timeout_seconds):
            for _ in range(_MAX_REDIRECTS + 1):
                sent = {"Accept": _ACCEPT, "Accept-Encoding": "identity", **(headers or {})}
                async with client.stream(method, url, headers=sent, data=form, follow_redirects=False) as response:
                    if not response.has_redirect_location or method != "GET":
                        return await read(response, url, max_bytes, _USABLE[method])
                    url = _same_origin(url, response.headers["Location"])
    except FetchError:
        raise
    except Exception as error:  # noqa: BLE001 - a client that was passed in may raise anything, with any text
        msg = f"{without_query(url)} could not be fetched: {type(error).__name__}"
        raise FetchError(msg) from None
    msg = f"{without_query(url)} answered with one redirect after another"
    raise FetchError(msg)


def _same_origin(url: str, location: str) -> str:
    target = urljoin(url, location)
    parts = urlsplit(target)
    if _origin(parts) != _origin(urlsplit(url)) or parts.username is not None:
        msg = f"{without_query(url)} redirected to another origin"
        raise FetchError(msg)
    return target


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
