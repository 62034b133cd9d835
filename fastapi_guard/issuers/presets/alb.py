"""AWS Application Load Balancer: accept the users that it logged in, by its header ``x-amzn-oidc-data``.

Its tokens are JWTs of a form of their own: base64url is padded, the header names the issuer, the client, the expiry and
the load balancer that signed, and each key is a PEM text at a URL with its ``kid``.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import AuthError, ConfigurationError, ServiceUnavailable, invalid_token, shown
from fastapi_guard.issuers.options import chosen
from fastapi_guard.issuers.presets.proxies import check_cookie
from fastapi_guard.jwt.compact import MalformedToken, decode_base64url, decode_object, split
from fastapi_guard.jwt.http import fetch_text
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.jwt.responses import Document, FetchError
from fastapi_guard.jwt.rules import ClaimRules
from fastapi_guard.jwt.urls import check_url
from fastapi_guard.jwt.verification_keys import Selection, VerificationKeys
from fastapi_guard.schemes import APIKeyScheme
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.arguments import items_of
from fastapi_guard.stores.bounds import BoundedCache, seconds_of

if TYPE_CHECKING:
    from httpx2 import AsyncClient

_HEADER: Final = "x-amzn-oidc-data"
_ARN: Final = re.compile(r"arn:(aws[a-z-]*):elasticloadbalancing:([a-z0-9-]+):[0-9]{12}:loadbalancer/app/[^/]+/[^/]+")
_KID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ALGORITHM: Final = "ES256"
_MAX_TOKEN_BYTES: Final = 16_384
_MAX_KEYS: Final = 8
_COOLDOWN_SECONDS: Final = 10.0
# What the key server answers where there is no such key.
_NO_SUCH_KEY: Final = (403, 404)


class ALBOptions(ScopesOptions, total=False):
    """The further arguments of ``aws_alb``, beside those of every ScopesAuth.

    Attributes:
        scope_validator: Decides which scopes cover which, by default the hierarchical one.
        keys_url: The URL below which the keys are, by default that of the region; for other partitions than ``aws``.
        client: The ``httpx2.AsyncClient`` that fetches the keys; it stays open. By default one of its own.
        max_ttl: The most time that a key is kept, in seconds.
        stale_for: How long an expired key is used while the key server is unreachable, in seconds.
        timeout: The time for one request, in seconds.
        leeway_seconds: The difference between clocks that is allowed for the expiry.
        clock: Seconds since the epoch.
    """

    scope_validator: ScopeValidator | None
    keys_url: str
    client: "AsyncClient | None"
    max_ttl: float
    stale_for: float
    timeout: float
    leeway_seconds: int
    clock: Callable[[], float]


def aws_alb(
    load_balancer: str | Sequence[str],
    client_id: str | Sequence[str],
    issuer: str,
    **options: Unpack[ALBOptions],
) -> ScopesAuth:
    """Accept the users that an AWS Application Load Balancer logged in; the claims are those of the userinfo endpoint.

    Source: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html

    Args:
        load_balancer: The ARN of the load balancer, or several of one region. Any other load balancer of AWS signs with
            the same keys.
        client_id: The client at the provider that the listener rule names, or several.
        issuer: The issuer that the listener rule names.
        options: See ALBOptions. ``trusted_origins`` are other origins whose pages may send requests.

    Raises:
        ConfigurationError: One is not an ARN, or an argument is empty, or ``cookie=False`` would switch off the
            same-origin rule.
        MissingExtraError: The extra ``http`` is not installed.
        TypeError: There is no such option.
    """
    unknown = sorted(options.keys() - ALBOptions.__annotations__.keys())
    if unknown:
        msg = f"aws_alb has no option {', '.join(unknown)}"
        raise TypeError(msg)
    return _ALBAuth(_texts("load_balancer", load_balancer), _texts("client_id", client_id), issuer, options)


class _KeyAtURL(RemoteKeySet):
    """The key that is at a URL as PEM; an empty set where the server answers that there is none."""

    def __init__(self, base: str, kid: str, options: Mapping[str, Any]) -> None:
        super().__init__(f"{base}/{kid}", **options)
        self._kid = kid

    async def read(self) -> Document:
        try:
            text = await fetch_text(
                self.url,
                headers={},
                client=self._client,
                timeout_seconds=self._freshness.timeout,
                max_bytes=self._max_bytes,
            )
        except FetchError as error:
            if error.status not in _NO_SUCH_KEY:
                raise
            return Document({"keys": []})
        return Document({self._kid: text})


class _KeysByName:
    """The keys of a region by their ``kid``: a few, each fetched when it is first named."""

    def __init__(self, base: str, options: Mapping[str, Any]) -> None:
        self._base = base.rstrip("/")
        self._clock: Callable[[], float] = options.get("clock", time.monotonic)
        self._options = options
        self._known: BoundedCache[str, Selection] = BoundedCache(_MAX_KEYS)
        self._looked_at = float("-inf")
        self._is_failing = False
        self._new("")  # checks the URL and the options

    async def find(self, kid: str) -> VerificationKeys:
        """Return the key, fetched if it is new: at most one new name a cooldown, whatever tokens name.

        Raises:
            Unauthorized: There is no such key.
            ServiceUnavailable: The key server is unreachable.
        """
        selection = self._known.get(kid) or self._begin(kid)
        keys = selection.peek()
        if keys is None:
            try:
                keys = await selection.load()
            except ServiceUnavailable:
                self._is_failing = True
                self._known.pop(kid)
                raise
        self._is_failing = False
        if not keys:
            self._known.pop(kid)
            raise invalid_token("unknown_key")
        return keys

    def _begin(self, kid: str) -> Selection:
        left = self._looked_at + _COOLDOWN_SECONDS - self._clock()
        if left > 0:
            if self._is_failing:
                raise ServiceUnavailable(retry_after=left, reason="keys_unreachable")
            raise invalid_token("unknown_key")
        self._looked_at = self._clock()
        selection = self._new(kid).for_algorithms([_ALGORITHM])
        self._known.put(kid, selection)
        return selection

    def _new(self, kid: str) -> _KeyAtURL:
        return _KeyAtURL(self._base, kid, self._options)


class _ALBAuth(ScopesAuth):
    """Tokens that one of some load balancers signed, for one of some clients."""

    name = "aws-alb"

    def __init__(
        self, load_balancers: frozenset[str], clients: frozenset[str], issuer: str, options: ALBOptions
    ) -> None:
        if not isinstance(issuer, str) or not issuer:
            msg = "issuer is the issuer that the listener rule names"
            raise ConfigurationError(msg)
        self._clock = options.get("clock", time.time)
        self._signers = load_balancers
        self._accepted = ClaimRules(
            issuers=frozenset({issuer}),
            audiences=clients,
            audience_claim="client",
            leeway_seconds=seconds_of("leeway_seconds", options.get("leeway_seconds", 10)),
            id_token_marks=frozenset(),
        )
        of_keys = chosen(options, ("client", "max_ttl", "stale_for", "timeout", "clock"))
        keys_url = check_url(options["keys_url"]) if options.get("keys_url") else _keys_url(load_balancers)
        self._keys = _KeysByName(keys_url, of_keys)
        check_cookie(options)
        own = chosen(options, tuple(ScopesOptions.__annotations__))
        super().__init__(APIKeyScheme(_HEADER), options.get("scope_validator"), **{**own, "cookie": True})

    def recognises(self, raw: str) -> bool:
        """Return whether it has the three parts of a signed token."""
        return raw.count(".") == 2

    async def verify(self, raw: str) -> Claims:
        """Return the claims of a token.

        Raises:
            Unauthorized: The token is invalid, or of another load balancer, client or issuer.
            ServiceUnavailable: The key server is unreachable.
        """
        try:
            return await self._verified(raw)
        except AuthError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever error the bytes cause is one refusal
            raise invalid_token(str(error) if isinstance(error, MalformedToken) else "undecodable") from None

    async def _verified(self, raw: str) -> Claims:
        if len(raw) > _MAX_TOKEN_BYTES:
            raise MalformedToken("oversized")
        signing_input, *segments = split(raw.encode("ascii"))
        header_segment, payload, signature = map(_unpadded, segments)
        header = decode_object(decode_base64url(header_segment))
        # What the header names is compared before a key is fetched for it.
        claimed = {name: header.get(name) for name in ("iss", "client", "exp")}
        self._accepted.check_times(claimed, self._clock())
        self._accepted.check(claimed)
        kid, signer = header.get("kid"), header.get("signer")
        if not isinstance(signer, str) or signer not in self._signers:
            raise invalid_token("signer")
        if not isinstance(kid, str) or not _KID.fullmatch(kid):
            raise invalid_token("unknown_key")
        keys = await self._keys.find(kid)
        keys.verify(signing_input, header_segment, decode_base64url(signature))
        return self._claims_of(decode_object(decode_base64url(payload)), claimed)

    def _claims_of(self, claims: Claims, claimed: Claims) -> Claims:
        for name in ("iss", "exp"):
            if claims.get(name, claimed[name]) != claimed[name]:
                raise invalid_token(name)
        claims |= claimed
        if "sub" not in claims:
            raise invalid_token("sub")
        self._accepted.check_times(claims, self._clock())
        self._accepted.check(claims)
        return claims


def _unpadded(segment: bytes) -> bytes:
    """Return a segment of base64url without its padding, which has to be as long as it should be."""
    stripped = segment.rstrip(b"=")
    if len(stripped) < len(segment) and (len(segment) % 4 or len(segment) - len(stripped) > 2):
        raise MalformedToken("base64url")
    return stripped


def _keys_url(load_balancers: frozenset[str]) -> str:
    found = {(parts[1], parts[2]) for parts in map(_ARN.fullmatch, load_balancers) if parts is not None}
    partition, region = next(iter(found))
    if len(found) > 1 or partition != "aws":
        msg = "the load balancers are of several regions, or of another partition than aws: pass keys_url"
        raise ConfigurationError(msg)
    return f"https://public-keys.auth.elb.{region}.amazonaws.com"


def _texts(name: str, value: str | Sequence[str]) -> frozenset[str]:
    texts = frozenset((value,) if isinstance(value, str) else items_of(name, value, "of texts"))
    is_arn = name == "load_balancer"
    if not texts or not all(isinstance(text, str) and text and (not is_arn or _ARN.fullmatch(text)) for text in texts):
        what = "the ARN of a load balancer, arn:aws:elasticloadbalancing:...:loadbalancer/app/..." if is_arn else "text"
        msg = f"{name} is {what}, or several, not {shown(value)}"
        raise ConfigurationError(msg)
    return texts
