"""The authorization and token endpoints of a FakeIssuer: an application tests its sign-in without a network."""

import secrets
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from fastapi_guard.claims import Claims


@dataclass(frozen=True, slots=True)
class _Issued:
    """A code that waits to be exchanged."""

    client_id: str
    redirect_uri: str
    challenge: str
    claims: Claims
    scope: str


class Codes:
    """Authorization codes, each exchanged once, with PKCE S256 (RFC 6749 4.1, RFC 7636)."""

    def __init__(self, id_token: Callable[[Claims], str], access_token: Callable[[Claims], str]) -> None:
        """Make the tokens of a response with ``id_token`` and ``access_token``."""
        self._id_token = id_token
        self._access_token = access_token
        self._issued: dict[str, _Issued] = {}

    def authorize(self, url: str, issuer: str, claims: Mapping[str, Any]) -> str:
        """Return the URL to which the browser of a user who agreed is sent back.

        Raises:
            ValueError: The URL is not an authorization request with PKCE.
        """
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        wanted = {"response_type": "code", "code_challenge_method": "S256"}
        needed = ("client_id", "redirect_uri", "state", "code_challenge")
        if any(query.get(name) != value for name, value in wanted.items()) or not all(map(query.get, needed)):
            msg = f"this is not an authorization request with PKCE S256, a state and a redirect_uri: {sorted(query)}"
            raise ValueError(msg)
        code = secrets.token_urlsafe(24)
        own = {"aud": query["client_id"], **({"nonce": query["nonce"]} if "nonce" in query else {})}
        self._issued[code] = _Issued(
            client_id=query["client_id"],
            redirect_uri=query["redirect_uri"],
            challenge=query["code_challenge"],
            claims={**own, **claims},
            scope=query.get("scope", ""),
        )
        answer = urlencode({"state": query["state"], "code": code, "iss": issuer})
        return f"{query['redirect_uri']}{'&' if '?' in query['redirect_uri'] else '?'}{answer}"

    def exchange(self, headers: Mapping[str, str], form: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the token response for a form, ``None`` where the code is not valid."""
        issued = self._issued.pop(form.get("code", ""), None)
        if issued is None or form.get("grant_type") != "authorization_code":
            return None
        digest = sha256(form.get("code_verifier", "").encode()).digest()
        challenge = urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
        presented = (_client_in(headers) or form.get("client_id"), form.get("redirect_uri"), challenge)
        if presented != (issued.client_id, issued.redirect_uri, issued.challenge):
            return None
        granted = {"sub": issued.claims["sub"], "client_id": issued.client_id, "scope": issued.scope or None}
        return {
            "access_token": self._access_token(granted),
            "token_type": "Bearer",
            "expires_in": 3600,
            "id_token": self._id_token(issued.claims),
        }


def _client_in(headers: Mapping[str, str]) -> str | None:
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return None
    return unquote_plus(b64decode(credentials).decode("ascii").partition(":")[0])
