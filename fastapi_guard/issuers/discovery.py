"""The keys of an OpenID provider, found through its discovery document."""

from collections.abc import Mapping
from typing import Any, Final, cast

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.jwt.responses import Document, FetchError
from fastapi_guard.jwt.urls import check_url

_PATH: Final = "/.well-known/openid-configuration"


class DiscoveredKeySet(RemoteKeySet):
    """The keys of a provider, found through its discovery document (OpenID Connect Discovery 4)."""

    def __init__(self, issuer: str, **options: Any) -> None:
        """Find the keys of ``issuer``; the options are those of RemoteKeySet."""
        super().__init__(discovery_url(issuer), **options)
        self._issuer = issuer
        self._jwks_uri: str | None = None
        self._located_at = float("-inf")

    async def read(self) -> Document:
        """Fetch the JWK Set, after the discovery document where that is not known, or no longer.

        Raises:
            FetchError: One of them did not come, or the document is of another issuer.
        """
        jwks_uri = await self._locate()
        try:
            return await self._fetch_document(jwks_uri)
        except FetchError:
            self._located_at = float("-inf")  # perhaps the keys have moved
            raise

    async def _locate(self) -> str:
        if self._jwks_uri is None or self._clock() - self._located_at >= self._freshness.max_ttl:
            started = self._clock()
            try:
                self._jwks_uri = self._jwks_uri_in((await self._fetch_document(self.url)).value)
                self._located_at = started
            except FetchError:
                if self._jwks_uri is None:
                    raise
        return self._jwks_uri

    def _jwks_uri_in(self, document: object) -> str:
        # Code point by code point, or nothing of the document is used (OpenID Connect Discovery 4.3).
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            msg = f"the discovery document is not that of the issuer {self._issuer}"
            raise FetchError(msg)
        jwks_uri = document.get("jwks_uri")
        try:
            check_url(cast("str", jwks_uri))
        except ConfigurationError:
            jwks_uri = None
        if not isinstance(jwks_uri, str) or (self.url.startswith("https:") and not jwks_uri.startswith("https:")):
            msg = "the jwks_uri of the discovery document is no https URL"
            raise FetchError(msg)
        return jwks_uri


def key_set(issuer: str, jwks_uri: str | None, options: Mapping[str, Any]) -> RemoteKeySet:
    """Return the keys of ``issuer``: those at ``jwks_uri``, else those that discovery finds."""
    discovery_url(issuer)
    return DiscoveredKeySet(issuer, **options) if jwks_uri is None else RemoteKeySet(jwks_uri, **options)


def discovery_url(issuer: str) -> str:
    """Return where the discovery document of ``issuer`` is.

    Raises:
        ConfigurationError: The issuer is no https URL without a query.
    """
    check_url(issuer)
    if "?" in issuer or "{" in issuer:
        msg = f"issuer {issuer!r} is no issuer: it has no query, and no place to fill in"
        raise ConfigurationError(msg)
    return issuer.rstrip("/") + _PATH
