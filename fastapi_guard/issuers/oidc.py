"""OIDCAuth: verify the tokens of one OpenID provider. Its class methods are presets; ``presets`` has more of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, Self, Unpack

from fastapi.security.base import SecurityBase
from pydantic import AnyUrl

from fastapi_guard.auth import ScopesOptions
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.issuers.discovery import DiscoveredKeySet, key_set
from fastapi_guard.issuers.options import (
    AUTH0_ACCESS_MARK,
    ENTRA_ACCESS_MARK,
    OIDCOptions,
    PresetOptions,
    asked_claims,
    check_host,
    check_names,
    chosen,
    with_required,
)
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.kinds import OTHER_KINDS, TokenKind, accepted_values, rejected_texts
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.jwt.rules import ClaimRules
from fastapi_guard.schemes import BearerScheme, SchemeCallable
from fastapi_guard.scopes import ScopeValidator
from fastapi_guard.stores.arguments import check_texts, items_of, mapping_of, optional_texts, texts_of
from fastapi_guard.stores.hidden import plain

_KEY_SET_OPTIONS: Final = (
    *("client", "min_ttl", "max_ttl", "cooldown", "stale_for", "timeout", "max_bytes", "private_http", "clock"),
)
_CONFIG_OPTIONS: Final = (
    *("leeway_seconds", "cache_size", "max_token_bytes", "profile", "audience_claim", "access_mark", "requires_type"),
)
_AUTH_OPTIONS: Final = ("revocations", "dpop", "clock", *ScopesOptions.__annotations__)

# By version: the issuer, the keys where discovery below the issuer does not find them, and the claims of access tokens.
_ENTRA: Final[Mapping[str, tuple[str, str | None, Mapping[str, Any]]]] = {
    "1.0": (
        "https://sts.windows.net/{}/",
        "https://login.microsoftonline.com/{}/discovery/keys",
        {"appid": True, "scp": True},
    ),
    "2.0": ("https://login.microsoftonline.com/{}/v2.0", None, ENTRA_ACCESS_MARK),
}
GUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class OIDCAuth(JWTAuth):
    """Tokens of one OpenID provider.

    The class methods are presets, each with the page of the provider that it was written from; there are more in
    ``fastapi_guard.issuers.presets``.

    Attributes:
        key_set: The keys of the provider.
    """

    name = "oidc"

    def __init__(
        self,
        issuer: str | AnyUrl | Sequence[str | AnyUrl],
        audience: str | AnyUrl | Sequence[str | AnyUrl],
        scheme: SecurityBase | SchemeCallable | None = None,
        scope_validator: ScopeValidator | None = None,
        **options: Unpack[OIDCOptions],
    ) -> None:
        """Accept the tokens of ``issuer`` for ``audience``; nothing is fetched before the first request.

        Args:
            issuer: The ``iss`` of its tokens, exactly as they have it, or several spellings of it. Discovery uses the
                first, an https URL. With ``jwks_uri`` there is no discovery, and an issuer may be any text.
            audience: The ``aud`` of tokens for this API: its identifier, or the client's for ID tokens.
            scheme: Where the token comes from, by default the Bearer header.
            scope_validator: Which scopes cover which, by default the hierarchical one.
            options: See OIDCOptions.

        Raises:
            ConfigurationError: The issuer or the audience is empty, the issuer is not an https URL and ``jwks_uri`` is
                missing, or an option is out of its range or for another kind of token.
            MissingExtraError: The extra ``http`` is not installed.
            TypeError: There is no such option.
        """
        check_names(options)
        accept = options.get("accept", "access")
        if accept not in OTHER_KINDS:
            msg = f'accept is "access" or "id", not {shown(accept)}'
            raise ConfigurationError(msg)
        for name in ("profile", "access_mark"):
            if accept == "id" and options.get(name) is not None:
                msg = f'{name} is for access tokens: leave it out, or accept="access"'
                raise ConfigurationError(msg)
        if not audience:
            msg = "audience is the identifier of this API, or of the client for ID tokens: it cannot be left out"
            raise ConfigurationError(msg)
        spellings = plain(issuer)
        several = (spellings,) if isinstance(spellings, str) else spellings
        self._issuers: tuple[str, ...] = items_of("issuer", several, "of texts") if several else ()
        if not self._issuers or not all(isinstance(name, str) and name for name in self._issuers):
            msg = "issuer is the exact text of the iss claim, or several spellings of it"
            raise ConfigurationError(msg)
        jwks_uri = plain(options.get("jwks_uri"))
        self._options = options
        given = {"scheme": scheme, "scope_validator": scope_validator, **options}
        self._set_options = frozenset(name for name, value in given.items() if value is not None)
        self.key_set: RemoteKeySet = self._new_key_set(jwks_uri, chosen(options, _KEY_SET_OPTIONS))
        config = JWTConfig(
            key=self.key_set,
            algorithms=options.get("algorithms"),
            issuer_url=self._issuers[0],
            audience=plain(audience),
            token_types=("JWT",) if accept == "id" else ("JWT", "at+jwt"),
            **chosen(options, _CONFIG_OPTIONS),
        )
        if scheme is None:
            # With jwks_uri, nothing is known of a discovery document that could be announced.
            found = isinstance(self.key_set, DiscoveredKeySet)
            scheme = BearerScheme.openid_connect(self.key_set.url) if found else BearerScheme()
        self._accept: TokenKind = accept
        required = mapping_of("require", options.get("require", {}), "{'tid': '...'}")
        rejected = mapping_of("reject", options.get("reject", {}), "{'sts': 'pending'}")
        self._required = {name: accepted_values("require", name, value) for name, value in required.items()}
        self._rejected = {name: rejected_texts(name, value) for name, value in rejected.items()}
        super().__init__(config, scheme, scope_validator, **chosen(options, _AUTH_OPTIONS))

    async def __aenter__(self) -> Self:
        """Fetch the keys, see ``start``."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End what is in flight."""
        await self.aclose()

    async def start(self) -> None:
        """Fetch the keys now, so that no request waits for them; an unreachable provider does not raise here."""
        await self.key_set.start()

    async def aclose(self) -> None:
        """End the fetch that is in flight."""
        await self.key_set.aclose()

    @property
    def issuers(self) -> tuple[str, ...]:
        """The accepted spellings of the issuer."""
        return self._issuers

    def _new_key_set(self, jwks_uri: str | None, options: Mapping[str, Any]) -> RemoteKeySet:
        return key_set(self._issuers[0], jwks_uri, options)

    def _claim_rules(self, config: JWTConfig) -> ClaimRules:
        return replace(
            config.rules,
            issuers=frozenset(self._issuers),
            kind=self._accept,
            access_marks=config.rules.access_marks if self._accept == "access" else None,
            other_kinds={**OTHER_KINDS[self._accept], **self._rejected},
            required=self._required,
        )

    @classmethod
    def google(
        cls, client_id: str | Sequence[str], *, hosted_domain: str | None = None, **options: Unpack[PresetOptions]
    ) -> Self:
        """Accept ID tokens of Google, whose access tokens are opaque.

        Source: https://developers.google.com/identity/openid-connect/openid-connect#validatinganidtoken

        Args:
            client_id: The OAuth client, or several, that the users sign in to.
            hosted_domain: Accept members of this Google Workspace domain alone, by the claim ``hd``.
            options: See PresetOptions.
        """
        check_texts(hosted_domain=hosted_domain)
        clients = plain(client_id)
        if not isinstance(clients, str):
            clients = texts_of("client_id", clients, "of client ids")
        require: dict[str, Any] = {} if hosted_domain is None else {"hd": hosted_domain}
        own: OIDCOptions = {"accept": "id", "algorithms": ["RS256"]}
        return cls("https://accounts.google.com", clients, **with_required(own, options, require))

    @classmethod
    def entra(
        cls,
        tenant_id: str,
        audience: str | Sequence[str],
        *,
        version: Literal["1.0", "2.0"] = "2.0",
        **options: Unpack[PresetOptions],
    ) -> Self:
        """Accept access tokens of Microsoft Entra ID, of one tenant.

        Sources: https://learn.microsoft.com/entra/identity-platform/access-tokens and
        https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference

        Args:
            tenant_id: The directory's id, a GUID. ``presets.entra_tenants`` accepts several.
            audience: The client id of the API's app registration; for version 1.0, its App ID URI.
            version: The version of the tokens: ``requestedAccessTokenVersion`` in the manifest of the API.
            options: See PresetOptions.

        Raises:
            ConfigurationError: The tenant is not a GUID: "common" and "organizations" would let in every tenant's
                users. Or there is no such version.
        """
        if not isinstance(tenant_id, str) or not GUID.fullmatch(tenant_id):
            msg = f"tenant_id is a GUID in lower case, not {shown(tenant_id)}; for several use presets.entra_tenants"
            raise ConfigurationError(msg)
        if version not in _ENTRA:
            msg = f'version is "1.0" or "2.0", not {shown(version)}'
            raise ConfigurationError(msg)
        issuer, jwks_uri, mark = _ENTRA[version]
        own: OIDCOptions = {"algorithms": ["RS256"], "access_mark": mark}
        if jwks_uri is not None:
            own["jwks_uri"] = jwks_uri.format(tenant_id)
        required = with_required(own, options, {"tid": tenant_id, "ver": version})
        return cls(issuer.format(tenant_id), audience, **required)

    @classmethod
    def auth0(cls, domain: str, audience: str | Sequence[str], **options: Unpack[PresetOptions]) -> Self:
        """Accept access tokens of an Auth0 tenant; ``permissions`` (RBAC) count as scopes.

        Sources: https://auth0.com/docs/secure/tokens/access-tokens/validate-access-tokens and
        https://auth0.com/docs/get-started/apis/enable-role-based-access-control-for-apis

        Args:
            domain: The tenant's or the custom domain, such as ``tenant.eu.auth0.com``.
            audience: The identifier of the API.
            options: See PresetOptions.

        Raises:
            ConfigurationError: The domain is not a host name.
        """
        own: OIDCOptions = {
            "algorithms": ["RS256"],
            "scope_claims": ("scope", "permissions"),
            "access_mark": AUTH0_ACCESS_MARK,
        }
        return cls(f"https://{check_host('domain', domain)}/", audience, **with_required(own, options))

    @classmethod
    def keycloak(
        cls,
        url: str | AnyUrl,
        realm: str,
        audience: str | Sequence[str],
        *,
        client_id: str | None = None,
        **options: Unpack[PresetOptions],
    ) -> Self:
        """Accept access tokens of a Keycloak realm; realm roles, and those of ``client_id``, count as roles.

        Sources: https://www.keycloak.org/securing-apps/oidc-layers and
        https://www.keycloak.org/docs/latest/server_admin/#audience-support

        Args:
            url: The server, with its relative path where it has one: ``https://sso.example`` or ``.../auth``.
            realm: The name of the realm.
            audience: The value that an audience mapper adds to the tokens for this API.
            client_id: The client whose roles count too.
            options: See PresetOptions.

        Raises:
            ConfigurationError: The realm cannot be part of a URL, or the client is empty.
        """
        optional_texts(realm=realm, client_id=client_id)
        if not realm or "/" in realm or client_id == "":
            msg = "realm is a name without a slash, and client_id is not empty"
            raise ConfigurationError(msg)
        roles: list[str | tuple[str, ...]] = (
            ["realm_access.roles"]
            if client_id is None
            else ["realm_access.roles", ("resource_access", client_id, "roles")]
        )
        own: OIDCOptions = {"role_claims": roles, "access_mark": {"typ": ["Bearer", "DPoP"]}}
        return cls(f"{str(plain(url)).rstrip('/')}/realms/{realm}", audience, **with_required(own, options))

    @classmethod
    def github_actions(
        cls,
        audience: str | Sequence[str],
        *,
        issuer: str = "https://token.actions.githubusercontent.com",
        **options: Unpack[PresetOptions],
    ) -> Self:
        """Accept tokens of GitHub Actions workflows.

        Source: https://docs.github.com/en/actions/reference/security/oidc

        Args:
            audience: The audience that the workflow requests its token for.
            issuer: For an enterprise with an issuer of its own, ``https://token.actions.githubusercontent.com/<slug>``;
                for GitHub Enterprise Server, ``https://<host>/_services/token``.
            options: See PresetOptions. ``require`` restricts the workflows, such as ``{"repository_id": "12345"}``:
                every repository of GitHub has the same issuer. An id cannot be taken over, unlike a name that was
                given up.

        Raises:
            ConfigurationError: ``require`` names no repository, owner or enterprise, and no subject.
        """
        whose = {"repository", "repository_id", "repository_owner", "repository_owner_id", "enterprise_id", "sub"}
        if whose.isdisjoint(asked_claims(options)):
            msg = f"any workflow on GitHub can have a token: require one of {', '.join(sorted(whose))}"
            raise ConfigurationError(msg)
        own: OIDCOptions = {"accept": "id", "algorithms": ["RS256"]}
        return cls(issuer, audience, **with_required(own, options))
