"""The one HTTP client: what is fetched from an issuer is bounded in time and size, and stays at one origin.

Needs the extra ``http``.
"""

import json
from asyncio import timeout
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi_guard.exceptions import ConfigurationError, GuardError, MissingExtraError

try:
    import httpx2
except ImportError:
    raise MissingExtraError("httpx2", "http") from None

DEFAULT_TIMEOUT_SECONDS = 5.0
DEFAULT_MAX_BYTES = 262_144


class FetchError(GuardError):
    """The document could not be had; the text is for the log."""


def check_url(url: str) -> str:
    """Return ``url`` if a key may be fetched from it: https, or http on this same machine.

    Raises:
        ConfigurationError: It is anything else.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        msg = f"{url!r} is not a URL"
        raise ConfigurationError(msg) from None
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
        msg = f"{url!r} is not an https URL: keys that anyone on the way could change are worth nothing"
        raise ConfigurationError(msg)
    if parts.username is not None or parts.fragment:
        msg = f"the URL at {parts.hostname} has a user or a fragment: leave these out"
        raise ConfigurationError(msg)
    return url


async def fetch_json(
    url: str,
    *,
    client: httpx2.AsyncClient | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Any:
    """Return the JSON document at ``url``.

    Redirects are not followed: what a configured URL stands for is decided by the configuration.

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
    try:
        async with timeout(timeout_seconds):
            if client is not None:
                return await _read(client, url, max_bytes)
            async with httpx2.AsyncClient(timeout=timeout_seconds) as own:
                return await _read(own, url, max_bytes)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
        msg = f"{url} could not be fetched: {type(error).__name__}"
        raise FetchError(msg) from error


async def _read(client: httpx2.AsyncClient, url: str, max_bytes: int) -> Any:
    # Uncompressed, so that the size that is counted is the size that was sent.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with client.stream("GET", url, headers=headers, follow_redirects=False) as response:
        if response.status_code != httpx2.codes.OK:
            msg = f"{url} answered {response.status_code}"
            raise FetchError(msg)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            msg = f"{url} answered compressed, unasked"
            raise FetchError(msg)
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > max_bytes:
                msg = f"{url} answered more than {max_bytes} bytes"
                raise FetchError(msg)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{url} did not answer with JSON"
        raise FetchError(msg) from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
