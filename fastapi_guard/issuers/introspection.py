"""IntrospectionAuth: opaque tokens, about which their issuer is asked (RFC 7662).

Needs the extra ``http``.
"""

import logging
import re
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from hashlib import sha256
from math import isfinite
from typing import Any, Final, Literal, NamedTuple, Unpack, cast
from urllib.parse import quote_plus

from fastapi.security.base import SecurityBase

from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import EXPIRED_TOKEN, ConfigurationError, ServiceUnavailable, Unauthorized, invalid_token
from fastapi_guard.jwt.http import DEFAULT_MAX_BYTES, DEFAULT_TIMEOUT_SECONDS, Client, FetchError, Poster
from fastapi_guard.schemes import SchemeCallable
from fastapi_guard.scopes import ScopeValidator

logger: logging.Logger = logging.getLogger("fastapi_guard")

_MAX_TOKEN_BYTES: Final = 16_384
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_MISSING: Final = object()
# How servers say that an active token is no access token: Keycloak in typ, Ory Hydra in token_use.
_OTHER_KINDS: Final = {
    "typ": {"id", "refresh", "offline", "logout"},
    "token_use": {"id", "id_token", "refresh", "refresh_token"},
    "token_type": {"id_token", "refresh_token", "n_a"},
}


class IntrospectionOptions(ScopesOptions, total=False):
    """The further arguments of an IntrospectionAuth, beside those of every ScopesAuth.

    Attributes:
        client_authentication: ``basic`` in the Authorization field, or ``post`` in the form (RFC 6749 2.3.1).
        issuer: The ``iss`` that an answer has to have.
        audience: The ``aud`` of which an answer has to have one. Without it, an answer that names one is refused.
        cache_seconds: How long an active answer is kept, and so how long a revoked token may live on; 0 for not at all.
        cache_size: How many of them are kept.
        leeway_seconds: The difference of clocks that ``exp``, ``nbf`` and ``iat`` are forgiven.
        client: The httpx2 client to use; it stays open.
        timeout_seconds: The time for one question.
        max_bytes: The size of an answer at which reading stops.
        clock: Seconds since the epoch.
    """

    client_authentication: Literal["basic", "post"]
    issuer: str | None
    audience: str | Sequence[str] | None
    cache_seconds: float
    cache_size: int
    leeway_seconds: int
    client: Client | None
    timeout_seconds: float
    max_bytes: int
    clock: Callable[[], float]


class _Rules(NamedTuple):
    """What an active answer is held to."""

    issuer: str | None
    audiences: frozenset[str]
    leeway: int

    def check(self, claims: Claims) -> None:
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise invalid_token("issuer")
        self._check_audience(claims)
        if "sub" in claims and (not isinstance(claims["sub"], str) or not claims["sub"]):
            raise invalid_token("sub")
        for name, kinds in _OTHER_KINDS.items():
            if isinstance(value := claims.get(name), str) and value.lower() in kinds:
                raise invalid_token("token_kind")
        if "cnf" in claims:  # its binding is not checked here (RFC 9449 7.2)
            raise invalid_token("bound_token")

    def check_times(self, claims: Claims, now: float) -> None:
        if (exp := claims.get("exp", _MISSING)) is not _MISSING and _number("exp", exp) + self.leeway <= now:
            raise Unauthorized(EXPIRED_TOKEN, error="invalid_token", reason="expired")
        for name in ("nbf", "iat"):
            if (value := claims.get(name, _MISSING)) is not _MISSING and _number(name, value) - self.leeway > now:
                raise invalid_token(name + "_in_the_future")

    def _check_audience(self, claims: Claims) -> None:
        audience = claims.get("aud", _MISSING)
        if audience is _MISSING:
            if self.audiences:
                raise invalid_token("audience_missing")
            return
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
            raise invalid_token("audience_type")
        if self.audiences.isdisjoint(named):
            raise invalid_token("audience")


class IntrospectionAuth(ScopesAuth):
    """Opaque tokens: whether one is active, and what it grants, is asked of its issuer."""

    name = "introspection"

    def __init__(
        self,
        endpoint: str,
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        client_id: str,
        client_secret: str,
        **options: Unpack[IntrospectionOptions],
    ) -> None:
        """Ask at ``endpoint``, as the client ``client_id``.

        Args:
            endpoint: The introspection endpoint, an https URL; http on loopback.
            scheme: Where the token comes from, by default the Bearer header.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            client_id: This API, as the issuer knows it.
            client_secret: The secret of that client.
            options: See IntrospectionOptions.

        Raises:
            ConfigurationError: The message says the remedy.
            TypeError: There is no such option.
        """
        unknown = sorted(options.keys() - IntrospectionOptions.__annotations__.keys())
        if unknown:
            msg = f"{type(self).__name__} has no option {', '.join(unknown)}"
            raise TypeError(msg)
        own = {name: value for name, value in options.items() if name in ScopesOptions.__annotations__}
        super().__init__(scheme, scope_validator, **cast("ScopesOptions", own))
        if not isinstance(client_id, str) or not isinstance(client_secret, str) or not client_id or not client_secret:
            msg = "client_id and client_secret are those of this API at the issuer (RFC 7662 2.1), and not empty"
            raise ConfigurationError(msg)
        authentication = options.get("client_authentication", "basic")
        if authentication not in ("basic", "post"):
            msg = f'client_authentication is "basic" or "post", not {authentication!r}'
            raise ConfigurationError(msg)
        self._form, self._headers = _authentication(authentication, client_id, client_secret)
        self._accepted = _rules_of(options)
        self._cache_seconds = _not_negative("cache_seconds", options.get("cache_seconds", 30))
        self._cache_size = int(_not_negative("cache_size", options.get("cache_size", 1024)))
        self._clock = options.get("clock", time.time)
        self._poster = Poster(
            endpoint,
            client=options.get("client"),
            timeout_seconds=_positive("timeout_seconds", options.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS)),
            max_bytes=int(_positive("max_bytes", options.get("max_bytes", DEFAULT_MAX_BYTES))),
        )
        # Active answers: digest of the token -> until when, and what it said.
        self._cached: OrderedDict[bytes, tuple[float, Claims]] = OrderedDict()

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuer whose tokens are accepted, where it is named."""
        return () if self._accepted.issuer is None else (self._accepted.issuer,)

    async def verify(self, raw: str) -> Claims:
        """Return what the issuer says about a token.

        Raises:
            Unauthorized: It is not active, or not for this API.
            ServiceUnavailable: The issuer cannot be asked.
        """
        if len(raw) > _MAX_TOKEN_BYTES or not _TOKEN.fullmatch(raw):
            raise invalid_token("malformed")
        digest = sha256(raw.encode("ascii")).digest()
        until, claims = self._cached.get(digest, (0.0, None))
        now = self._clock()
        if claims is None or until <= now:
            claims = await self._ask(raw)
            self._accepted.check(claims)
            self._remember(digest, now + self._cache_seconds, claims)
        self._accepted.check_times(claims, self._clock())
        return deepcopy(claims)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._poster.aclose()

    async def _ask(self, raw: str) -> Claims:
        form = {"token": raw, "token_type_hint": "access_token", **self._form}
        try:
            answer = await self._poster.post(form, self._headers)
        except FetchError as error:
            logger.warning("a token could not be introspected: %s", error)
            raise ServiceUnavailable(reason="introspection_unreachable") from error
        if not isinstance(answer, dict):
            raise ServiceUnavailable(reason="introspection_garbled")
        if answer.get("active") is not True:
            raise invalid_token("inactive")
        return {name: value for name, value in answer.items() if name != "active"}

    def _remember(self, digest: bytes, until: float, claims: Claims) -> None:
        self._cached.pop(digest, None)
        if self._cache_seconds and self._cache_size:
            self._cached[digest] = (until, claims)
            if len(self._cached) > self._cache_size:
                self._cached.popitem(last=False)


def _authentication(method: str, client_id: str, client_secret: str) -> tuple[dict[str, str], dict[str, str]]:
    if method == "post":
        return {"client_id": client_id, "client_secret": client_secret}, {}
    # Both are form-encoded first (RFC 6749 2.3.1), so that a colon in one of them separates nothing.
    basic = b64encode(f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode("ascii")).decode("ascii")
    return {}, {"Authorization": f"Basic {basic}"}


def _rules_of(options: Mapping[str, Any]) -> _Rules:
    issuer, audience, leeway = options.get("issuer"), options.get("audience"), options.get("leeway_seconds", 10)
    if issuer is not None and (not isinstance(issuer, str) or not issuer):
        msg = "issuer is the exact text of iss, or None"
        raise ConfigurationError(msg)
    audiences = [audience] if isinstance(audience, str) else audience
    if audiences is not None and (
        not isinstance(audiences, Collection) or not audiences or not all(isinstance(e, str) and e for e in audiences)
    ):
        msg = f"audience is text or a list of texts, not {audience!r}"
        raise ConfigurationError(msg)
    if type(leeway) is not int or not 0 <= leeway <= 300:
        msg = f"leeway_seconds is a whole number from 0 to 300, not {leeway!r}"
        raise ConfigurationError(msg)
    return _Rules(issuer, frozenset(audiences or ()), leeway)


def _not_negative(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        msg = f"{name} is a number from 0, not {value!r}"
        raise ConfigurationError(msg)
    return value


def _positive(name: str, value: object) -> float:
    number = _not_negative(name, value)
    if not number:
        msg = f"{name} is more than 0"
        raise ConfigurationError(msg)
    return number


def _number(name: str, value: object) -> float:
    if type(value) is int or (type(value) is float and isfinite(value)):
        return cast("float", value)
    raise invalid_token(name + "_type")
