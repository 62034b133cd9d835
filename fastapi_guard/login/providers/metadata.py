"""The endpoints of a provider, found through its metadata (OpenID Connect Discovery 3, RFC 8414)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.issuers.discovery import discovery_url
from fastapi_guard.jwt.http import fetch
from fastapi_guard.jwt.responses import FetchError
from fastapi_guard.jwt.urls import check_url

if TYPE_CHECKING:
    import httpx2

_FRESH_SECONDS: Final = 3600
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "end_session_endpoint")


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoints:
    """The endpoints of a provider.

    Attributes:
        authorization_endpoint: Where browsers are sent to.
        token_endpoint: Where codes are exchanged.
        userinfo_endpoint: Where claims are read, if anywhere.
        end_session_endpoint: Where browsers log out (OpenID Connect RP-Initiated Logout 2), if anywhere.
        announces_issuer: Whether the answer to an authorization request has ``iss`` (RFC 9207 3).
    """

    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    announces_issuer: bool = False


class ProviderMetadata:
    """Fetches the metadata of a provider at the first sign-in, and again after an hour."""

    def __init__(
        self,
        issuer: str,
        *,
        client: "httpx2.AsyncClient | None" = None,
        private_http: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Find the endpoints of ``issuer``; nothing is fetched yet.

        Raises:
            ConfigurationError: The issuer is not an https URL.
        """
        self._issuer = issuer
        self._url = discovery_url(issuer, private_http=private_http)
        self._client = client
        self._private_http = private_http
        self._clock = clock
        self._known: tuple[float, Endpoints] | None = None

    async def endpoints(self) -> Endpoints:
        """Return the endpoints. Where the metadata cannot be read again, the last ones are still valid.

        Raises:
            FetchError: The metadata did not come, or is that of another issuer.
        """
        now = self._clock()
        known = self._known
        if known is not None and now - known[0] < _FRESH_SECONDS:
            return known[1]
        try:
            document = await fetch(self._url, client=self._client, private_http=self._private_http)
            found = self._endpoints_in(document.value)
        except FetchError:
            if known is None:
                raise
            return known[1]
        self._known = (now, found)
        return found

    def _endpoints_in(self, document: Any) -> Endpoints:
        # Code point by code point, or nothing of the document is used (OpenID Connect Discovery 4.3).
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            msg = f"the metadata at {self._url} is not that of the issuer {self._issuer!r}"
            raise FetchError(msg)
        urls = {name: self._url_in(document, name) for name in _ENDPOINTS}
        authorization, token = urls["authorization_endpoint"], urls["token_endpoint"]
        if authorization is None or token is None:
            msg = f"the metadata of {self._issuer!r} has no https authorization_endpoint and token_endpoint"
            raise FetchError(msg)
        return Endpoints(
            authorization_endpoint=authorization,
            token_endpoint=token,
            userinfo_endpoint=urls["userinfo_endpoint"],
            end_session_endpoint=urls["end_session_endpoint"],
            announces_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _url_in(self, document: dict[str, Any], name: str) -> str | None:
        try:
            return check_url(document.get(name, ""), private_http=self._private_http)
        except ConfigurationError:
            return None
