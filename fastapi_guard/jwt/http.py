"""The one HTTP client: what is asked of an issuer is bounded in time and size, and stays at one origin.

Needs the extra ``http``.
"""

import json
import re
import ssl
from asyncio import AbstractEventLoop, get_running_loop, timeout, to_thread
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit

from fastapi_guard.exceptions import ConfigurationError, GuardError, MissingExtraError
from fastapi_guard.jwt.urls import check_url

try:
    import httpx2
except ImportError:
    raise MissingExtraError("httpx2", "http") from None

Client = httpx2.AsyncClient
Transport = httpx2.AsyncBaseTransport

DEFAULT_TIMEOUT_SECONDS: Final = 5.0
DEFAULT_MAX_BYTES: Final = 262_144
_MAX_REDIRECTS: Final = 3
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_MAX_AGE: Final = re.compile(r'(?:^|,)\s*max-age\s*=\s*"?([0-9]{1,10})"?\s*(?:,|$)', re.IGNORECASE)
_UNCACHED: Final = re.compile(r"(?:^|,)\s*no-(?:store|cache)\s*(?:,|=|$)", re.IGNORECASE)


class FetchError(GuardError):
    """The document could not be had; the text is for the log."""


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document, and how long it may be kept.

    Attributes:
        value: What the JSON says.
        max_age_seconds: What Cache-Control leaves of its freshness (RFC 9111 4.2), ``None`` where it says nothing.
    """

    value: Any
    max_age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What an ``in_process`` transport is answered.

    Attributes:
        status: The status code.
        headers: The header fields.
        body: The body, whole or in pieces.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""


def check_client(client: Client | None) -> Client | None:
    """Return ``client`` if it can be waited for.

    Raises:
        ConfigurationError: It is a client for threads, or none at all.
    """
    if client is not None and not callable(getattr(client, "aclose", None)):
        msg = f"client is an httpx2.AsyncClient, not {type(client).__name__}"
        raise ConfigurationError(msg)
    return client


async def fetch_json(
    url: str,
    *,
    client: Client | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Any:
    """Return the JSON at ``url``; see ``fetch``."""
    return (await fetch(url, client=client, timeout_seconds=timeout_seconds, max_bytes=max_bytes)).value


async def fetch(
    url: str,
    *,
    client: Client | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Document:
    """Return the JSON document at ``url``, and how long it may be kept.

    A redirect is followed within the origin of ``url`` alone: whom a configured URL stands for is decided by the
    configuration.

    Args:
        url: An https URL; http on loopback.
        client: The client to use; it stays open.
        timeout_seconds: The time for all of it, however slowly the bytes come.
        max_bytes: The size at which reading stops.

    Raises:
        ConfigurationError: The URL is not one to fetch keys from.
        FetchError: No such document came.
    """
    check_url(url)
    if client is not None:
        return await _ask(client, "GET", url, timeout_seconds, max_bytes)
    # A client of its own holds no connection beyond this fetch, so none is left to an event loop that has ended.
    async with await _new_client() as own:
        return await _ask(own, "GET", url, timeout_seconds, max_bytes)


class Poster:
    """Posts forms to one endpoint, over connections that stay open: one client for each event loop."""

    def __init__(self, url: str, *, client: Client | None, timeout_seconds: float, max_bytes: int) -> None:
        """Post to ``url``; the arguments are those of ``fetch``.

        Raises:
            ConfigurationError: The URL is not https, or the client cannot be waited for.
        """
        self.url: str = check_url(url)
        self._client = check_client(client)
        self._own: dict[AbstractEventLoop, Client] = {}
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes

    async def post(self, form: Mapping[str, str], headers: Mapping[str, str]) -> Any:
        """Return the JSON that the endpoint answers to ``form``. A redirect is an error: the form may hold secrets.

        Raises:
            FetchError: No JSON came.
        """
        client = self._client or await self._of_loop()
        document = await _ask(client, "POST", self.url, self._timeout_seconds, self._max_bytes, form, headers)
        return document.value

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a client that was passed in stays open."""
        own = self._own.pop(get_running_loop(), None)
        if own is not None:
            await own.aclose()

    async def _of_loop(self) -> Client:
        loop = get_running_loop()
        if loop not in self._own:
            for dead in [each for each in self._own if each.is_closed()]:
                del self._own[dead]
            client = await _new_client()
            # Somebody else may have been as quick; a client that nobody has used holds nothing.
            self._own.setdefault(loop, client)
        return self._own[loop]


def in_process(answer: Callable[[str, str, Mapping[str, str], bytes], Awaitable[Answer]]) -> Transport:
    """Return a transport that asks ``answer(method, url, headers, body)`` instead of the network."""

    async def handle(request: httpx2.Request) -> httpx2.Response:
        answered = await answer(request.method, str(request.url), request.headers, await request.aread())
        return httpx2.Response(answered.status, headers=dict(answered.headers), content=answered.body)

    return httpx2.MockTransport(handle)


async def _new_client() -> Client:
    # To read the certificates of all authorities takes a tenth of a second: once, and not in the event loop.
    return Client(verify=await to_thread(_authorities))


@cache
def _authorities() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


async def _ask(
    client: Client,
    method: str,
    url: str,
    timeout_seconds: float,
    max_bytes: int,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Document:
    try:
        async with timeout(timeout_seconds):
            for _ in range(_MAX_REDIRECTS + 1):
                # Uncompressed, so that the size that is counted is the size that was sent.
                sent = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
                async with client.stream(method, url, headers=sent, data=form, follow_redirects=False) as response:
                    if not response.has_redirect_location or method != "GET":
                        return await _read(response, url, max_bytes)
                    url = _same_origin(url, response.headers["Location"])
    except FetchError:
        raise
    except Exception as error:  # a client that was passed in may raise anything
        msg = f"{url} could not be fetched: {type(error).__name__}"
        raise FetchError(msg) from error
    msg = f"{url} answered with one redirect after another"
    raise FetchError(msg)


async def _read(response: httpx2.Response, url: str, max_bytes: int) -> Document:
    if response.status_code != httpx2.codes.OK:
        msg = f"{url} answered {response.status_code}"
        raise FetchError(msg)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        msg = f"{url} answered compressed, unasked"
        raise FetchError(msg)
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > max_bytes:
            msg = f"{url} answered more than {max_bytes} bytes"
            raise FetchError(msg)
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{url} did not answer with JSON"
        raise FetchError(msg) from error
    return Document(value, _freshness(response.headers))


def _freshness(headers: Mapping[str, str]) -> float | None:
    control = headers.get("Cache-Control", "")
    if _UNCACHED.search(control):
        return 0.0
    found = _MAX_AGE.search(control)
    if found is None:
        return None
    age = headers.get("Age", "0")
    spent = int(age) if age.isascii() and age.isdigit() and len(age) <= 10 else 0
    return float(max(0, int(found[1]) - spent))


def _same_origin(url: str, location: str) -> str:
    target = urljoin(url, location)
    if _origin(urlsplit(target)) != _origin(urlsplit(url)):
        msg = f"{url} redirected to another origin"
        raise FetchError(msg)
    return target


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
