"""MultiOIDCAuth: verify tokens of several OpenID providers; the ``iss`` of a token names its provider."""

import re
from asyncio import gather
from collections.abc import Collection, Mapping
from typing import Any, Final, Self, Unpack

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_guard.auth import AuthOptions, ScopesAuth, ScopesOptions
from fastapi_guard.auth.scopes import ScopesDecision
from fastapi_guard.claims import Claims, Grants
from fastapi_guard.exceptions import ConfigurationError, invalid_token, shown
from fastapi_guard.issuers.oidc import OIDCAuth
from fastapi_guard.issuers.options import OIDCOptions, check_names, chosen
from fastapi_guard.jwt.compact import MalformedToken, decode_base64url, decode_object, split
from fastapi_guard.jwt.protocols import ProofOfPossession
from fastapi_guard.schemes import BearerScheme, SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.arguments import implementing, items_of

# What counts for the MultiOIDCAuth alone: it is the one that a guard calls.
_OF_THE_WHOLE: Final = frozenset({"scheme", "scope_validator", *AuthOptions.__annotations__})
_PLAIN_ISSUER: Final = re.compile(rb'"iss" ?: ?"([^"\\]*)"')


class _MultiDecision(ScopesDecision):
    """How a MultiOIDCAuth decides: by the tenant claims of the provider of a token."""

    auth: "MultiOIDCAuth"

    def tenants(self, claims: Claims) -> frozenset[str]:
        """Return the tenants that claims name, by the rules of their provider."""
        provider = self.auth.provider_of(claims)
        return super().tenants(claims) if provider is None else provider[1].dependency.decision.tenants(claims)


class MultiOIDCAuth(ScopesAuth):
    """Tokens of several OpenID providers; ``request.state.auth_provider`` is the name of the provider.

    Attributes:
        providers: The Auth of each provider, by its name.
    """

    name = "multi-oidc"
    _decision_class = _MultiDecision

    def __init__(
        self,
        providers: Mapping[str, OIDCAuth | Mapping[str, Any]],
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        *,
        admin_providers: Collection[str] = (),
        **options: Unpack[OIDCOptions],
    ) -> None:
        """Accept the tokens of ``providers``: each an OIDCAuth, or the arguments of one.

        Args:
            providers: By a name of your own, such as ``{"google": {"issuer": ..., "audience": ...}}``.
            scheme: Where the token comes from, by default the Bearer header.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            admin_providers: The names of the providers whose claim ``is_admin`` counts for ``requires_admin``.
            options: Defaults for the providers that are mappings; see OIDCOptions. They are rejected if a provider is
                an OIDCAuth, which has its own. A provider cannot have a scheme or another option that is for all.

        Raises:
            ConfigurationError: There is no provider, a mistake in one, two have the same issuer, or an option would not
                apply to one of them.
            TypeError: There is no such option.
        """
        check_names(options)
        if not isinstance(providers, Mapping):
            msg = f'providers maps names of your own to providers: {{"google": {{...}}}}, not {shown(providers)}'
            raise ConfigurationError(msg)
        if options.get("dpop") is not None:
            implementing("dpop", options["dpop"], ("check",), "DPoP(store, origin=...)", plain=("scheme",))
        dpop = _shared_dpop(providers, options)
        scheme = BearerScheme() if scheme is None else scheme
        own = chosen(options, tuple(ScopesOptions.__annotations__))
        super().__init__(scheme if dpop is None else dpop.scheme(scheme), scope_validator, **own)
        self._dpop: ProofOfPossession | None = dpop
        self._max_token_bytes = options.get("max_token_bytes", 16_384)
        shared = {name: value for name, value in options.items() if name not in ("name", "on_event")}
        self.providers: dict[str, OIDCAuth] = {
            name: _provider(name, given, shared) for name, given in providers.items()
        }
        admins = items_of("admin_providers", admin_providers, f"such as {sorted(self.providers)}")
        if any(name not in self.providers for name in admins):
            msg = f"admin_providers is a list of names among {sorted(self.providers)}"
            raise ConfigurationError(msg)
        self._admin_providers = frozenset(admins)
        nameless = [name for name, auth in self.providers.items() if not auth.issuers]
        if nameless:
            msg = f"{', '.join(nameless)} has no fixed issuer: combine it with others by MultiOIDCAuth(...) | auth"
            raise ConfigurationError(msg)
        spellings = [(issuer, name, auth) for name, auth in self.providers.items() for issuer in auth.issuers]
        self._by_issuer = {issuer: (name, auth) for issuer, name, auth in spellings}
        if not self.providers or len(self._by_issuer) < len(spellings):
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
        """Fetch the keys of all providers now; an unreachable one does not delay the others."""
        await gather(*(auth.start() for auth in self.providers.values()))

    async def aclose(self) -> None:
        """End the fetches that are in flight."""
        for auth in self.providers.values():
            await auth.aclose()

    async def verify(self, raw: str) -> Claims:
        """Return the claims of a token, verified by the provider that its ``iss`` names.

        Raises:
            Unauthorized: It is invalid, or of another issuer: then nothing is fetched.
            ServiceUnavailable: The keys of its provider are not there.
        """
        return await self.find(raw)[1].verify(raw)

    async def verify_request(self, connection: HTTPConnection, raw: str) -> Claims:
        """Return the claims of a token that came on ``connection``, and keep there the name of its provider."""
        name, auth = self.find(raw)
        claims = await auth.verify_request(connection, raw)
        connection.scope.setdefault("state", {})["auth_provider"] = name
        return claims

    def find(self, raw: str) -> tuple[str, OIDCAuth]:
        """Return the name and the provider of the issuer that a token names, before the token is verified.

        Raises:
            Unauthorized: There is none.
        """
        try:
            if len(raw) > self._max_token_bytes:
                raise MalformedToken("oversized")
            issuer = _issuer_in(decode_base64url(split(raw.encode("ascii"))[2]))
        except ValueError:
            raise invalid_token("malformed") from None
        found = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        if found is None:
            raise invalid_token("issuer")
        return found

    def provider_of(self, claims: Claims) -> tuple[str, OIDCAuth] | None:
        """Return the provider whose issuer the claims name, and its name; ``None`` where they name no known one."""
        issuer = claims.get("iss") if isinstance(claims, dict) else None
        return self._by_issuer.get(issuer) if isinstance(issuer, str) else None

    def grants_of(self, principal: Claims) -> Grants:
        """Return what the claims grant, by the rules of their provider.

        ``is_admin`` counts only from the ``admin_providers``: any other issuer decides nothing about this application.
        """
        found = self.provider_of(principal)
        grants = super().grants_of(principal) if found is None else found[1].grants_of(principal)
        is_trusted = found is not None and found[0] in self._admin_providers
        return grants if is_trusted else grants._replace(is_admin=False)

    async def _current(self, principal: Claims, connection: HTTPConnection | None) -> Claims:
        found = self._by_issuer.get(principal["iss"])
        if found is None:
            raise invalid_token("issuer")
        return await found[1]._current(principal, connection)  # noqa: SLF001 - of the same class


def _issuer_in(payload: bytes) -> object:
    # Parsing it all takes longer than the rest. If the name is in it once, with a plain value, that is the
    # issuer, or the provider's own Auth refuses the token; anything else is parsed.
    plain = _PLAIN_ISSUER.search(payload)
    if plain is not None and payload.count(b'"iss"') == 1:
        return plain[1].decode("utf-8")
    return decode_object(payload).get("iss")


def _shared_dpop(providers: Mapping[str, Any], options: OIDCOptions) -> ProofOfPossession | None:
    """Return the ``dpop`` of all providers, and reject options that would not reach a provider that is an instance."""
    instances = {name: auth for name, auth in providers.items() if isinstance(auth, OIDCAuth)}
    dpop = options.get("dpop")
    own = {*AuthOptions.__annotations__, "max_token_bytes", "dpop"}
    unsaid = {"accept": "access"}
    lost = sorted(
        name
        for name, value in options.items()
        if name not in own and any(auth._options.get(name, unsaid.get(name)) != value for auth in instances.values())  # noqa: SLF001
    )
    if lost:
        msg = f"{', '.join(lost)} would not apply to {', '.join(instances)}: pass it to that OIDCAuth itself"
        raise ConfigurationError(msg)
    checked = [auth._dpop for auth in instances.values()]  # noqa: SLF001 - of the same package
    if dpop is None and checked and len(checked) == len(providers):
        dpop = checked[0]
    if any(proofs is not dpop for proofs in checked):
        msg = "dpop is that of every provider or of none: pass the same DPoP to MultiOIDCAuth and each OIDCAuth"
        raise ConfigurationError(msg)
    return dpop


def _provider(name: str, provider: OIDCAuth | Mapping[str, Any], shared: Mapping[str, Any]) -> OIDCAuth:
    set_here = provider._set_options if isinstance(provider, OIDCAuth) else frozenset(provider)  # noqa: SLF001
    lost = sorted(_OF_THE_WHOLE & set_here)
    if lost:
        msg = f"provider {name!r}: {', '.join(lost)} would not apply: pass it to MultiOIDCAuth"
        raise ConfigurationError(msg)
    if isinstance(provider, OIDCAuth):
        return provider
    try:
        return OIDCAuth(**{**shared, **provider})
    except (TypeError, ConfigurationError) as error:
        msg = f"provider {name!r}: {error}"
        raise ConfigurationError(msg) from error
