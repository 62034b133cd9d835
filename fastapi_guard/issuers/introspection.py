"""IntrospectionAuth: verify opaque tokens at the introspection endpoint of their issuer (RFC 7662).

It needs the extra ``http``.
"""

import logging
import re
import time
from base64 import b64encode
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Any, Final, Unpack, cast
from urllib.parse import quote_plus

from fastapi.security.base import SecurityBase
from pydantic import AnyUrl, SecretStr
from starlette.requests import HTTPConnection

from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims, copied, is_present
from fastapi_guard.exceptions import ConfigurationError, ServiceUnavailable, Unauthorized, invalid_token
from fastapi_guard.issuers.options import IntrospectionOptions
from fastapi_guard.jwt.compact import MalformedToken, decode_object
from fastapi_guard.jwt.http import DEFAULT_MAX_BYTES, DEFAULT_TIMEOUT_SECONDS, Poster
from fastapi_guard.jwt.kinds import OTHER_KINDS
from fastapi_guard.jwt.protocols import ProofOfPossession, check_proof
from fastapi_guard.jwt.responses import FetchError, check_encoding, content_of, parse
from fastapi_guard.jwt.rules import ClaimRules
from fastapi_guard.schemes import SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.arguments import check_flags, clock_of, implementing
from fastapi_guard.stores.bounds import BoundedCache, seconds_of
from fastapi_guard.stores.hidden import plain, revealed

logger: logging.Logger = logging.getLogger("fastapi_guard")

_MAX_TOKEN_BYTES: Final = 16_384
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")  # RFC 6749 A.12
# Codes of a 400 that are about the token. Any other is about this API's request, and is not the client's fault.
_ABOUT_THE_TOKEN: Final = ("unsupported_token_type", "invalid_token")


class IntrospectionAuth(ScopesAuth):
    """Opaque tokens: the issuer decides whether one is active, and what it grants."""

    name = "introspection"

    def __init__(
        self,
        endpoint: str | AnyUrl,
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        client_id: str,
        client_secret: str | SecretStr,
        **options: Unpack[IntrospectionOptions],
    ) -> None:
        """Verify tokens at ``endpoint``, as the client ``client_id``.

        Args:
            endpoint: The introspection endpoint, an https URL; http on loopback.
            scheme: The source of the token, by default the Bearer header.
            scope_validator: Decides which scopes cover which, by default the hierarchical one.
            client_id: The client id of this API at the issuer.
            client_secret: The secret of that client.
            options: See IntrospectionOptions.

        Raises:
            ConfigurationError: The endpoint is not an https URL, the client id or its secret is empty, or an option has
                the wrong type or is out of its range.
            MissingExtraError: The extra ``http`` is not installed.
            TypeError: There is no such option.
        """
        unknown = sorted(options.keys() - IntrospectionOptions.__annotations__.keys())
        if unknown:
            msg = f"{type(self).__name__} has no option {', '.join(unknown)}"
            raise TypeError(msg)
        own = {name: value for name, value in options.items() if name in ScopesOptions.__annotations__}
        self.dpop: ProofOfPossession | None = options.get("dpop")
        if self.dpop is not None:
            implementing("dpop", self.dpop, ("check",), "DPoP(store, origin=...)", plain=("scheme",))
        super().__init__(
            scheme if self.dpop is None else self.dpop.scheme(scheme), scope_validator, **cast("ScopesOptions", own)
        )
        secret = revealed(client_secret)
        if not isinstance(client_id, str) or not isinstance(secret, str) or not client_id or not secret:
            msg = "client_id and client_secret are those of this API at the issuer (RFC 7662 2.1), and not empty"
            raise ConfigurationError(msg)
        self._form, self._headers = _authentication(options.get("client_authentication", "basic"), client_id, secret)
        self._accepted = _rules_of(options)
        self._pattern = _pattern_of(options.get("token_pattern"))
        self._cache_seconds = seconds_of("cache_seconds", options.get("cache_seconds", 30))
        self._inactive_seconds = seconds_of("inactive_cache_seconds", options.get("inactive_cache_seconds", 5))
        check_flags(private_http=options.get("private_http", False))
        self._clock = clock_of(options.get("clock", time.time))
        self._poster = Poster(
            endpoint,
            client=options.get("client"),
            timeout_seconds=seconds_of(
                "timeout_seconds", options.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS), positive=True
            ),
            max_bytes=options.get("max_bytes", DEFAULT_MAX_BYTES),
            private_http=options.get("private_http", False),
        )
        # By the digest of the token: until when, and the claims, or why it was refused. Two caches, so that a flood of
        # invalid tokens does not drop the answers about valid ones.
        size = options.get("cache_size", 1024)
        self._active: BoundedCache[bytes, tuple[float, Claims]] = BoundedCache(size)
        self._refused: BoundedCache[bytes, tuple[float, str]] = BoundedCache(size)

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuer whose tokens are accepted, where it is configured."""
        return tuple(self._accepted.issuers)

    def recognises(self, raw: str) -> bool:
        """Return whether a text has the form of a token of this issuer."""
        if len(raw) > _MAX_TOKEN_BYTES or not _TOKEN.fullmatch(raw):
            return False
        return self._pattern is None or self._pattern.fullmatch(raw) is not None

    async def verify(self, raw: str) -> Claims:
        """Return the issuer's answer about a token; one that is bound to a key is refused, since there is no proof.

        Raises:
            Unauthorized: It is not active, or not for this API.
            ServiceUnavailable: The issuer is unreachable.
        """
        claims = await self._claims_of(raw)
        if _is_bound(claims):
            raise invalid_token("bound_token")
        return claims

    async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
        """Return the issuer's answer about a token on ``connection``, with the proof where it is bound to a key.

        Raises:
            Unauthorized: As for ``verify``; or the proof is missing or invalid.
            ServiceUnavailable: The issuer, or the store of proofs, is unreachable.
        """
        if self.dpop is None:
            return await self.verify(raw)
        claims = await self._claims_of(raw)
        if _is_bound(claims) and "cnf" not in claims:
            raise invalid_token("confirmation")
        await check_proof(self.dpop, connection, raw, claims)
        return claims

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._poster.aclose()

    async def _claims_of(self, raw: str) -> Claims:
        if not self.recognises(raw):
            raise invalid_token("malformed")
        digest = sha256(raw.encode("ascii")).digest()
        now = self._clock()
        until, claims = self._active.get(digest) or (now, None)
        # With an upper bound: a clock that is set back must not keep an answer for longer.
        if claims is None or not now < until <= now + self._cache_seconds:
            refused_until, reason = self._refused.get(digest) or (now, "")
            if now < refused_until <= now + self._inactive_seconds:
                raise invalid_token(reason)
            try:
                claims = await self._ask(raw)
                self._accepted.check(claims)
            except Unauthorized as refusal:
                if self._inactive_seconds:
                    self._refused.put(digest, (now + self._inactive_seconds, refusal.reason))
                raise
            if self._cache_seconds:
                self._active.put(digest, (now + self._cache_seconds, claims))
        self._accepted.check_times(claims, self._clock())
        return cast("Claims", copied(claims))

    async def _ask(self, raw: str) -> Claims:
        form = {"token": raw, "token_type_hint": "access_token", **self._form}
        try:
            answer = await self._poster.post(form, self._headers)
            content = content_of(answer)
            if answer.status == 400:
                raise _refusal_of(parse(self._poster.url, content))
            members = self._members_of(content)
        except FetchError as error:
            logger.warning("a token could not be introspected: %s", error)
            raise ServiceUnavailable(reason="introspection_unreachable") from error
        if members.get("active") is not True:
            raise invalid_token("inactive")
        # Null and empty count as absent; a confirmation that is empty stays, and is refused.
        return {
            name: value
            for name, value in members.items()
            if name != "active" and (is_present(value) or (name == "cnf" and value is not None))
        }

    def _members_of(self, content: bytes) -> Claims:
        check_encoding(self._poster.url, content)
        try:
            return decode_object(content)
        except MalformedToken as error:
            if str(error) == "json":
                parse(self._poster.url, content)
            if not content.lstrip().startswith(b"{"):
                msg = "the answer is not a JSON object"
                raise FetchError(msg) from None
            # The server answered in JSON, so the fault may come from the token: a duplicate member, 900 levels.
            reason = f"introspection_{error}"
            raise invalid_token(reason) from None


def _refusal_of(body: object) -> Unauthorized | FetchError:
    code = body.get("error") if isinstance(body, dict) else None
    if code in _ABOUT_THE_TOKEN:
        return invalid_token("unsupported_token")
    return FetchError(f"the issuer answered 400 with the error {code!r:.80}")


def _is_bound(claims: Claims) -> bool:
    token_type = claims.get("token_type")
    return "cnf" in claims or (isinstance(token_type, str) and token_type.lower() == "dpop")


def _authentication(method: str, client_id: str, client_secret: str) -> tuple[dict[str, str], dict[str, str]]:
    if method == "post":
        return {"client_id": client_id, "client_secret": client_secret}, {}
    if method != "basic":
        msg = 'client_authentication is "basic" or "post"'
        raise ConfigurationError(msg)
    # Both are form-encoded first (RFC 6749 2.3.1), so that a colon in one of them separates nothing.
    basic = b64encode(f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode("ascii")).decode("ascii")
    return {}, {"Authorization": f"Basic {basic}"}


def _pattern_of(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except (re.error, TypeError):
        msg = "token_pattern is the text of a regular expression"
        raise ConfigurationError(msg) from None


def _rules_of(options: Mapping[str, Any]) -> ClaimRules:
    issuer, audience = plain(options.get("issuer")), plain(options.get("audience"))
    leeway = options.get("leeway_seconds", 10)
    if issuer is not None and (not isinstance(issuer, str) or not issuer):
        msg = "issuer is the exact text of iss, or None"
        raise ConfigurationError(msg)
    audiences = [audience] if isinstance(audience, str) else audience
    if audiences is not None and (
        not isinstance(audiences, Collection) or not audiences or not all(isinstance(e, str) and e for e in audiences)
    ):
        msg = "audience is a text, or a list of texts, none of them empty"
        raise ConfigurationError(msg)
    if type(leeway) is not int or not 0 <= leeway <= 300:
        msg = "leeway_seconds is a whole number from 0 to 300"
        raise ConfigurationError(msg)
    return ClaimRules(
        issuers=frozenset() if issuer is None else frozenset({issuer}),
        audiences=frozenset(audiences or ()),
        requires_exp=False,
        leeway_seconds=leeway,
        other_kinds=OTHER_KINDS["access"],
    )
