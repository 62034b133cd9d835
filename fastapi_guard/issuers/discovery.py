"""The keys of an issuer, found through its metadata (OpenID Connect Discovery 4, RFC 8414)."""

from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit, urlunsplit

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.jwt.responses import Document, FetchError
from fastapi_guard.jwt.urls import check_url

_OPENID: Final = "/.well-known/openid-configuration"
_OAUTH: Final = "/.well-known/oauth-authorization-server"
_TOO_MANY_REQUESTS: Final = 429


class DiscoveredKeySet(RemoteKeySet):
    """The keys of an issuer, found through its metadata document."""

    def __init__(self, issuer: str, **options: Any) -> None:
        """Find the keys of ``issuer``; the options are those of RemoteKeySet."""
        super().__init__(discovery_url(issuer, private_http=options.get("private_http", False)), **options)
        self._issuer = issuer
        self._metadata_urls = metadata_urls(issuer)
        self._jwks_uri: str | None = None
        self._located_at = float("-inf")

    async def read(self) -> Document:
        """Fetch the JWK Set, after the metadata where its URL is not known, or no longer.

        Raises:
            FetchError: One of them did not come, or the metadata is that of another issuer.
        """
        jwks_uri = await self._locate()
        try:
            return await self._fetch_document(jwks_uri)
        except FetchError:
            self._located_at = float("-inf")  # the keys may have moved
            raise

    async def _locate(self) -> str:
        if self._jwks_uri is None or self._clock() - self._located_at >= self._freshness.max_ttl:
            started = self._clock()
            try:
                self._jwks_uri = self._jwks_uri_in(await self._metadata())
                self._located_at = started
            except FetchError:
                if self._jwks_uri is None:
                    raise
        return self._jwks_uri

    async def _metadata(self) -> object:
        for url in self._metadata_urls[:-1]:
            try:
                return await self._metadata_at(url)
            except FetchError as error:
                if not _is_missing(error):
                    raise
        return await self._metadata_at(self._metadata_urls[-1])

    async def _metadata_at(self, url: str) -> object:
        document = (await self._fetch_document(url)).value
        # The place that has the document is the first to look at from now on.
        self._metadata_urls = (url, *(other for other in self._metadata_urls if other != url))
        return document

    def _jwks_uri_in(self, document: object) -> str:
        found = document.get("issuer") if isinstance(document, dict) else None
        # Code point by code point, or nothing of the document is used (OpenID Connect Discovery 4.3, RFC 8414 3.3).
        if not isinstance(document, dict) or found != self._issuer:
            msg = f"the metadata at {self._metadata_urls[0]} has the issuer {found!r:.200}, not {self._issuer!r}"
            raise FetchError(msg)
        jwks_uri = document.get("jwks_uri")
        try:
            check_url(cast("str", jwks_uri), private_http=self._private_http)
        except ConfigurationError:
            jwks_uri = None
        if not isinstance(jwks_uri, str) or (self.url.startswith("https:") and not jwks_uri.startswith("https:")):
            msg = f"the jwks_uri of the issuer {self._issuer!r} is not an https URL"
            raise FetchError(msg)
        return jwks_uri


def key_set(issuer: str, jwks_uri: str | None, options: Mapping[str, Any]) -> RemoteKeySet:
    """Return the keys of ``issuer``: those at ``jwks_uri``, else those that discovery finds.

    Raises:
        ConfigurationError: There is no ``jwks_uri``, and ``issuer`` is not an https URL.
    """
    if jwks_uri is not None:
        return RemoteKeySet(jwks_uri, **options)
    return DiscoveredKeySet(issuer, **options)


def discovery_url(issuer: str, *, private_http: bool = False) -> str:
    """Return the URL of the discovery document of ``issuer`` (OpenID Connect Discovery 4.1).

    Raises:
        ConfigurationError: The issuer is not an https URL without a query, or is that of the document itself.
    """
    check_url(issuer, private_http=private_http)
    if "?" in issuer or "{" in issuer:
        msg = "issuer has a query, or a placeholder in braces: pass the exact issuer, or jwks_uri as well"
        raise ConfigurationError(msg)
    if "/.well-known/" in issuer:
        msg = "issuer is not the URL of its discovery document: pass what stands before /.well-known/, as in iss"
        raise ConfigurationError(msg)
    return issuer.rstrip("/") + _OPENID


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Return the URLs at which ``issuer`` may publish its metadata, in the order in which they are tried.

    OpenID Connect appends a path to the issuer; RFC 8414 3.1 inserts it between the host and the path of the issuer,
    with either name (RFC 8414 5).
    """
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    inserted = [urlunsplit((parts.scheme, parts.netloc, name + path, "", "")) for name in (_OAUTH, _OPENID)]
    return tuple(dict.fromkeys((issuer.rstrip("/") + _OPENID, *inserted)))


def _is_missing(error: FetchError) -> bool:
    # An answer came, and it is not the document: a 4xx, or a page of an application that answers 200 to every path.
    status = error.status
    return status is not None and (status == 200 or (400 <= status < 500 and status != _TOO_MANY_REQUESTS))
