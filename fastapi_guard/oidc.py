"""OIDCAuth and MultiOIDCAuth: tokens of OpenID providers, whose keys are found by discovery.

Needs the extra ``http``.
"""

import re
from asyncio import gather
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, Self, cast

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from typing_extensions import Unpack

from fastapi_guard.auth import ScopesAuth, ScopesOptions
from fastapi_guard.claims import Claims, Grants
from fastapi_guard.exceptions import INVALID_TOKEN, ConfigurationError, Unauthorized
from fastapi_guard.fetch import Client, Document, FetchError, check_url, fetch
from fastapi_guard.jwt.auth import JWTAuth, ProofOfPossession, RevocationCheck
from fastapi_guard.jwt.compact import MalformedToken, decode_base64url, decode_object, split
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.schemes import BearerScheme, SchemeCallable
from fastapi_guard.scopes import ScopeValidator

_DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
_KEY_SET_OPTIONS: Final = ("client", "min_ttl", "max_ttl", "cooldown", "stale_for", "timeout", "max_bytes", "clock")
_CONFIG_OPTIONS: Final = ("leeway_seconds", "cache_size", "max_token_bytes", "profile")
_AUTH_OPTIONS: Final = ("revocations", "dpop", "clock", *ScopesOptions.__annotations__)

# What only an ID token has (OpenID Connect Core 2), and what names a token's kind at Cognito and Keycloak.
_ID_MARKS: Final = ("nonce", "at_hash", "c_hash")
_FOREIGN_KINDS: Final = {
    "access": {"token_use": {"id", "refresh"}, "typ": {"ID", "Refresh", "Offline", "Logout"}},
    "id": {"token_use": {"access", "refresh"}, "typ": {"Bearer", "Refresh", "Offline", "Logout"}},
}
_PLAIN_ISSUER: Final = re.compile(rb'"iss" ?: ?"([^"\\]*)"')
_GUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HOST: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")


class OIDCOptions(ScopesOptions, total=False):
    """The further arguments of an OIDCAuth.

    Attributes:
        jwks_uri: Where the keys are, for a provider without discovery.
        algorithms: The closed list of accepted algorithms, by default all asymmetric ones.
        accept: ``access`` for access tokens; ``id`` for ID tokens, where those are all that an API can verify.
        require: Claims that a token must have, each with the value or the values that are accepted.
        profile: ``rfc9068`` accepts JWT access tokens of RFC 9068 alone.
        leeway_seconds: See JWTConfig.
        cache_size: See JWTConfig.
        max_token_bytes: See JWTConfig.
        revocations: See JWTAuth.
        dpop: See JWTAuth.
        clock: Seconds since the epoch.
        client: See RemoteKeySet, as of what follows.
        min_ttl: The least time that keys are kept.
        max_ttl: The most.
        cooldown: The time between two fetches for the sake of an unknown ``kid``.
        stale_for: How much longer keys serve while the provider is away.
        timeout: The time for discovery and keys together.
        max_bytes: The size of a document at which reading stops.
    """

    jwks_uri: str | None
    algorithms: Sequence[str] | None
    accept: Literal["access", "id"]
    require: Mapping[str, Any]
    profile: Literal["rfc9068"] | None
    leeway_seconds: int
    cache_size: int
    max_token_bytes: int
    revocations: RevocationCheck | None
    dpop: ProofOfPossession | None
    clock: Callable[[], float]
    client: Client | None
    min_ttl: float | timedelta
    max_ttl: float | timedelta
    cooldown: float | timedelta
    stale_for: float | timedelta
    timeout: float | timedelta
    max_bytes: int


class DiscoveredKeySet(RemoteKeySet):
    """The keys of a provider, found through its discovery document (OpenID Connect Discovery 4)."""

    def __init__(self, issuer: str, **options: Any) -> None:
        """Find the keys of ``issuer``; the options are those of RemoteKeySet."""
        super().__init__(_discovery_url(issuer), **options)
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
            return await self._fetch_from(jwks_uri)
        except FetchError:
            self._located_at = float("-inf")  # perhaps the keys have moved
            raise

    async def _locate(self) -> str:
        if self._jwks_uri is None or self._clock() - self._located_at >= self._max_ttl:
            started = self._clock()
            try:
                self._jwks_uri = self._jwks_uri_in((await self._fetch_from(self.url)).value)
                self._located_at = started
            except FetchError:
                if self._jwks_uri is None:
                    raise
        return self._jwks_uri

    async def _fetch_from(self, url: str) -> Document:
        return await fetch(url, client=self._client, timeout_seconds=self._timeout, max_bytes=self._max_bytes)

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


class OIDCAuth(JWTAuth):
    """Tokens of one OpenID provider.

    The class methods are for providers that need something said about them; each names the page it was written from.

    Attributes:
        key_set: The keys of the provider.
    """

    name = "oidc"

    def __init__(
        self,
        issuer: str,
        audience: str | Sequence[str],
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        **options: Unpack[OIDCOptions],
    ) -> None:
        """Accept the tokens of ``issuer`` for ``audience``; nothing is fetched before the first request.

        Args:
            issuer: The ``iss`` of its tokens, exactly as they have it; its discovery document is below.
            audience: The ``aud`` of tokens for this API: its identifier, or the client's for ID tokens.
            scheme: Where the token comes from, by default the Bearer header.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            options: See OIDCOptions.

        Raises:
            ConfigurationError: The message says the remedy.
            TypeError: There is no such option.
        """
        _check_names(options)
        accept = options.get("accept", "access")
        if accept not in _FOREIGN_KINDS:
            msg = f'accept is "access" or "id", not {accept!r}'
            raise ConfigurationError(msg)
        if accept == "id" and options.get("profile") is not None:
            msg = 'a profile is one of access tokens: leave it out, or accept="access"'
            raise ConfigurationError(msg)
        if not audience:
            msg = (
                "audience is the identifier of this API, or of the client for ID tokens: a token for anybody is refused"
            )
            raise ConfigurationError(msg)
        self.key_set: RemoteKeySet = _key_set(issuer, options.get("jwks_uri"), _chosen(options, _KEY_SET_OPTIONS))
        config = JWTConfig(
            key=self.key_set,
            algorithms=options.get("algorithms"),
            issuer_url=issuer,
            audience=audience,
            token_types=("JWT",) if accept == "id" else ("JWT", "at+jwt"),
            **_chosen(options, _CONFIG_OPTIONS),
        )
        scheme = BearerScheme.openid_connect(_discovery_url(issuer)) if scheme is None else scheme
        super().__init__(config, scheme, scope_validator, **_chosen(options, _AUTH_OPTIONS))
        self._accept = accept
        self._required = {name: _accepted(name, value) for name, value in options.get("require", {}).items()}

    async def __aenter__(self) -> Self:
        """Fetch the keys, see ``start``."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End what is in flight."""
        await self.aclose()

    async def start(self) -> None:
        """Fetch the keys now, so that no request waits for them; a provider that is away does not raise here."""
        await self.key_set.start()

    async def aclose(self) -> None:
        """End the fetch that is in flight."""
        await self.key_set.aclose()

    def check_claims(self, claims: Claims) -> None:
        """Refuse what a JWTAuth refuses, tokens of another kind, and tokens without what is required.

        Raises:
            Unauthorized: One of the claims is not as it must be.
        """
        self.config.check_claims(claims, bound=self.dpop is not None, id_token=self._accept == "id")
        if "events" in claims:  # a logout token, or another security event (RFC 8417 2.2)
            raise _refused("event_token")
        for name, kinds in _FOREIGN_KINDS[self._accept].items():
            if isinstance(value := claims.get(name), str) and value in kinds:
                raise _refused("token_kind")
        if self._accept == "id":
            self._check_id_token(claims)
        elif any(name in claims for name in _ID_MARKS):
            raise _refused("id_token")
        for name, accepted in self._required.items():
            value = claims.get(name)
            if not any(type(each) is type(value) and each == value for each in accepted):
                raise _refused("required_claim")

    def _check_id_token(self, claims: Claims) -> None:
        # OpenID Connect Core 2: both are there. 3.1.3.7: of several audiences, one was it issued to.
        if "sub" not in claims or "iat" not in claims:
            raise _refused("id_token_claims")
        audience = claims["aud"]
        if isinstance(audience, list) and len(audience) > 1:
            authorized = claims.get("azp")
            configured = self.config.audience
            if authorized not in ([configured] if isinstance(configured, str) else list(configured or ())):
                raise _refused("authorized_party")

    @classmethod
    def google(
        cls, client_id: str | Sequence[str], *, hosted_domain: str | None = None, **options: Unpack[OIDCOptions]
    ) -> Self:
        """Accept ID tokens of Google, whose access tokens are opaque.

        Source: https://developers.google.com/identity/openid-connect/openid-connect#validatinganidtoken

        Args:
            client_id: The OAuth client, or several, that the users sign in to.
            hosted_domain: Accept members of this Google Workspace domain alone, by the claim ``hd``.
            options: See OIDCOptions.
        """
        require: dict[str, Any] = {} if hosted_domain is None else {"hd": hosted_domain}
        own: OIDCOptions = {"accept": "id", "algorithms": ["RS256"]}
        return cls("https://accounts.google.com", client_id, **_with_required(own, options, require))

    @classmethod
    def entra(cls, tenant_id: str, audience: str | Sequence[str], **options: Unpack[OIDCOptions]) -> Self:
        """Accept v2.0 access tokens of Microsoft Entra ID, of one tenant.

        Sources: https://learn.microsoft.com/entra/identity-platform/access-tokens and
        https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference

        Args:
            tenant_id: The directory's id, a GUID. For several tenants: MultiOIDCAuth with one of these for each.
            audience: The client id of the API's app registration.
            options: See OIDCOptions.

        Raises:
            ConfigurationError: The tenant is no GUID: "common" and "organizations" would let in everybody's.
        """
        if not _GUID.fullmatch(tenant_id):
            msg = (
                f"tenant_id {tenant_id!r} is no GUID in lower case: name the directory; for several, pass one"
                " OIDCAuth.entra(...) each to MultiOIDCAuth"
            )
            raise ConfigurationError(msg)
        own: OIDCOptions = {"algorithms": ["RS256"]}
        issuer = f"https://login.microsoftonline.com/{tenant_id}/v2.0"
        return cls(issuer, audience, **_with_required(own, options, {"tid": tenant_id, "ver": "2.0"}))

    @classmethod
    def auth0(cls, domain: str, audience: str | Sequence[str], **options: Unpack[OIDCOptions]) -> Self:
        """Accept access tokens of an Auth0 tenant; ``permissions`` (RBAC) count as scopes.

        Sources: https://auth0.com/docs/secure/tokens/access-tokens/validate-access-tokens and
        https://auth0.com/docs/get-started/apis/enable-role-based-access-control-for-apis

        Args:
            domain: The tenant's or the custom domain, such as ``tenant.eu.auth0.com``.
            audience: The identifier of the API.
            options: See OIDCOptions.

        Raises:
            ConfigurationError: The domain is none.
        """
        if not _HOST.fullmatch(domain):
            msg = f"domain {domain!r} is no host name in lower case, such as tenant.eu.auth0.com"
            raise ConfigurationError(msg)
        own: OIDCOptions = {"algorithms": ["RS256"], "scope_claims": ("scope", "permissions")}
        return cls(f"https://{domain}/", audience, **_with_required(own, options, {}))

    @classmethod
    def keycloak(
        cls,
        url: str,
        realm: str,
        audience: str | Sequence[str],
        *,
        client_id: str | None = None,
        **options: Unpack[OIDCOptions],
    ) -> Self:
        """Accept access tokens of a Keycloak realm; realm roles, and those of ``client_id``, count as roles.

        Sources: https://www.keycloak.org/securing-apps/oidc-layers and
        https://www.keycloak.org/docs/latest/server_admin/#audience-support

        Args:
            url: The server, with its relative path where it has one: ``https://sso.example`` or ``.../auth``.
            realm: The name of the realm.
            audience: What an audience mapper puts into the tokens for this API.
            client_id: The client whose roles count too.
            options: See OIDCOptions.

        Raises:
            ConfigurationError: The realm or the client cannot be part of a URL or a path of claims.
        """
        if not realm or "/" in realm or (client_id is not None and (not client_id or "." in client_id)):
            msg = "realm is a name without a slash, client_id one without a dot (name role_claims yourself then)"
            raise ConfigurationError(msg)
        roles = (
            ["realm_access.roles"]
            if client_id is None
            else ["realm_access.roles", f"resource_access.{client_id}.roles"]
        )
        own: OIDCOptions = {"role_claims": roles}
        return cls(f"{url.rstrip('/')}/realms/{realm}", audience, **_with_required(own, options, {}))

    @classmethod
    def github_actions(cls, audience: str | Sequence[str], **options: Unpack[OIDCOptions]) -> Self:
        """Accept tokens of GitHub Actions workflows.

        Source: https://docs.github.com/en/actions/reference/security/oidc

        Args:
            audience: What the workflow asks its token for.
            options: See OIDCOptions. ``require`` says whose workflows, such as ``{"repository_id": "12345"}``: every
                repository of GitHub has the same issuer. Nobody can take an id over, unlike a name that was given up.

        Raises:
            ConfigurationError: ``require`` names no repository, owner or enterprise, and no subject.
        """
        whose = {"repository", "repository_id", "repository_owner", "repository_owner_id", "enterprise_id", "sub"}
        if whose.isdisjoint(options.get("require", {})):
            msg = f"any workflow on GitHub can have a token: require one of {', '.join(sorted(whose))}"
            raise ConfigurationError(msg)
        own: OIDCOptions = {"accept": "id", "algorithms": ["RS256"]}
        issuer = "https://token.actions.githubusercontent.com"
        return cls(issuer, audience, **_with_required(own, options, {}))


class MultiOIDCAuth(ScopesAuth):
    """Tokens of several OpenID providers; ``request.state.auth_provider`` says whose it was.

    Attributes:
        providers: The Auth of each provider, by its name.
    """

    name = "multi-oidc"

    def __init__(
        self,
        providers: Mapping[str, OIDCAuth | Mapping[str, Any]],
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        **options: Unpack[OIDCOptions],
    ) -> None:
        """Accept the tokens of ``providers``: each an OIDCAuth, or the arguments of one.

        Args:
            providers: By a name of your own, such as ``{"google": {"issuer": ..., "audience": ...}}``.
            scheme: Where the token comes from, by default the Bearer header.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            options: For every provider that does not say otherwise; see OIDCOptions.

        Raises:
            ConfigurationError: There is no provider, a mistake in one, or two have the same issuer.
            TypeError: There is no such option.
        """
        _check_names(options)
        dpop = options.get("dpop")
        scheme = BearerScheme() if scheme is None else scheme
        own = _chosen(options, tuple(ScopesOptions.__annotations__))
        super().__init__(scheme if dpop is None else dpop.scheme(scheme), scope_validator, **own)
        self.dpop: ProofOfPossession | None = dpop
        self._max_token_bytes = options.get("max_token_bytes", 16_384)
        shared = {name: value for name, value in options.items() if name not in ("name", "on_event")}
        self.providers: dict[str, OIDCAuth] = {name: _provider(name, each, shared) for name, each in providers.items()}
        self._by_issuer = {auth.issuers[0]: (name, auth) for name, auth in self.providers.items()}
        if not self.providers or len(self._by_issuer) < len(self.providers):
            msg = "name at least one provider, and each issuer once; one provider takes several audiences as a list"
            raise ConfigurationError(msg)

    @property
    def issuers(self) -> tuple[str, ...]:
        """The issuers whose tokens are accepted."""
        return tuple(self._by_issuer)

    async def __aenter__(self) -> Self:
        """Fetch the keys, see ``start``."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End what is in flight."""
        await self.aclose()

    async def start(self) -> None:
        """Fetch the keys of all providers now; those that are away do not keep the others waiting at a request."""
        await gather(*(auth.start() for auth in self.providers.values()))

    async def aclose(self) -> None:
        """End the fetches that are in flight."""
        for auth in self.providers.values():
            await auth.aclose()

    async def verify(self, raw: str) -> Claims:
        """Return the claims of a token, verified by the provider that its ``iss`` names.

        Raises:
            Unauthorized: It does not hold, or is of nobody's: then nothing is fetched.
            ServiceUnavailable: The keys of its provider are not there.
        """
        return await self.find(raw)[1].verify(raw)

    async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
        """Return the claims of a token that came on ``connection``, and say there whose it was."""
        name, auth = self.find(raw)
        claims = await auth.verify_request(connection, raw)
        connection.scope.setdefault("state", {})["auth_provider"] = name
        return claims

    def find(self, raw: str) -> tuple[str, OIDCAuth]:
        """Return the provider whose issuer a token names, and its name; the token is not verified here.

        Raises:
            Unauthorized: There is none.
        """
        try:
            if len(raw) > self._max_token_bytes:
                raise MalformedToken("oversized")
            issuer = _issuer_in(decode_base64url(split(raw.encode("ascii"))[2]))
        except ValueError:
            raise _refused("malformed") from None
        found = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        if found is None:
            raise _refused("issuer")
        return found

    def grants_of(self, principal: Claims) -> Grants:
        """Return what the claims grant, by the rules of their provider."""
        issuer = principal.get("iss") if isinstance(principal, dict) else None
        found = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        return super().grants_of(principal) if found is None else found[1].grants_of(principal)


def _issuer_in(payload: bytes) -> object:
    # Parsing it all takes longer than the rest. Where the name stands there once, with a plain value, that is the
    # issuer, or the provider's own Auth refuses the token; anything else is parsed.
    plain = _PLAIN_ISSUER.search(payload)
    if plain is not None and payload.count(b'"iss"') == 1:
        return plain[1].decode("utf-8")
    return decode_object(payload).get("iss")


def _check_names(options: Mapping[str, Any]) -> None:
    unknown = sorted(options.keys() - OIDCOptions.__annotations__.keys())
    if unknown:
        msg = f"there is no option {', '.join(unknown)}; the options are {', '.join(OIDCOptions.__annotations__)}"
        raise TypeError(msg)


def _key_set(issuer: str, jwks_uri: str | None, options: Mapping[str, Any]) -> RemoteKeySet:
    _discovery_url(issuer)
    return DiscoveredKeySet(issuer, **options) if jwks_uri is None else RemoteKeySet(jwks_uri, **options)


def _discovery_url(issuer: str) -> str:
    check_url(issuer)
    if "?" in issuer or "{" in issuer:
        msg = f"issuer {issuer!r} is no issuer: it has no query, and no place to fill in"
        raise ConfigurationError(msg)
    return issuer.rstrip("/") + _DISCOVERY_PATH


def _provider(name: str, provider: OIDCAuth | Mapping[str, Any], shared: Mapping[str, Any]) -> OIDCAuth:
    if isinstance(provider, OIDCAuth):
        return provider
    try:
        return OIDCAuth(**{**shared, **provider})
    except (TypeError, ConfigurationError) as error:
        msg = f"provider {name!r}: {error}"
        raise ConfigurationError(msg) from error


def _accepted(name: str, value: object) -> tuple[object, ...]:
    accepted = tuple(value) if isinstance(value, Collection) and not isinstance(value, str) else (value,)
    if not accepted or None in accepted or "" in accepted:
        msg = f"require[{name!r}] is the value, or the values, that are accepted, not {value!r}"
        raise ConfigurationError(msg)
    return accepted


def _with_required(own: OIDCOptions, options: OIDCOptions, require: Mapping[str, Any]) -> OIDCOptions:
    required = {**options.get("require", {}), **require}
    return cast("OIDCOptions", {**own, **options, "require": required})


def _chosen(options: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in names}


def _refused(reason: str) -> Unauthorized:
    return Unauthorized(INVALID_TOKEN, error="invalid_token", reason=reason)
