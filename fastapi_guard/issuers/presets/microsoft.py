"""Presets for Microsoft beside ``OIDCAuth.entra``: several tenants of Entra ID, Azure AD B2C, and AD FS."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from inspect import isawaitable
from typing import Any, Final, Unpack

from starlette.requests import HTTPConnection

from fastapi_guard.claims import Claims
from fastapi_guard.events import logger
from fastapi_guard.exceptions import AuthError, ConfigurationError, ServiceUnavailable, invalid_token, shown
from fastapi_guard.issuers.oidc import GUID, OIDCAuth
from fastapi_guard.issuers.options import ENTRA_ACCESS_MARK, OIDCOptions, PresetOptions, check_host, with_required
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.remote import RemoteKeySet
from fastapi_guard.jwt.responses import Document
from fastapi_guard.jwt.rules import ClaimRules

_HOST: Final = "https://login.microsoftonline.com"
_TEMPLATE: Final = f"{_HOST}/{{tenantid}}/v2.0"

AcceptsTenant = Callable[[str], bool | Awaitable[bool]]


def entra_b2c(
    tenant: str,
    tenant_id: str,
    policy: str,
    audience: str | Sequence[str],
    *,
    policy_claim: str = "tfp",
    **options: Unpack[PresetOptions],
) -> OIDCAuth:
    """Accept access tokens of an Azure AD B2C tenant, of one user flow or custom policy.

    Both kinds of token have the same issuer, and may have the same audience and a ``nonce``; ``scp`` is in access
    tokens alone.

    Sources: https://learn.microsoft.com/azure/active-directory-b2c/tokens-overview and
    https://learn.microsoft.com/azure/active-directory-b2c/access-tokens

    Args:
        tenant: The name of the tenant, such as ``contoso`` for ``contoso.onmicrosoft.com``.
        tenant_id: The directory's id, a GUID.
        policy: The user flow or policy, such as ``B2C_1_signupsignin``.
        audience: The application id of the API.
        policy_claim: The claim that names the policy: ``tfp``, or ``acr`` by its compatibility settings.
        options: See PresetOptions.

    Raises:
        ConfigurationError: A name cannot be part of a URL, or the id is not a GUID.
    """
    are_texts = all(isinstance(name, str) for name in (tenant, tenant_id, policy))
    names = (tenant, policy.replace("_", "").replace("-", "")) if are_texts else ("",)
    if not all(name.isalnum() for name in names) or not GUID.fullmatch(tenant_id):
        msg = 'entra_b2c takes such as ("contoso", "72f988bf-86f1-41af-91ab-2d7cd011db47", "B2C_1_signupsignin", ...)'
        raise ConfigurationError(msg)
    server = f"https://{tenant}.b2clogin.com"
    own: OIDCOptions = {
        "algorithms": ["RS256"],
        "access_mark": {"scp": True},
        "jwks_uri": f"{server}/{tenant}.onmicrosoft.com/{policy}/discovery/v2.0/keys",
    }
    return OIDCAuth(f"{server}/{tenant_id}/v2.0/", audience, **with_required(own, options, {policy_claim: policy}))


def entra_tenants(audience: str | Sequence[str], accepts: AcceptsTenant, **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept v2.0 access tokens of those Entra ID tenants that ``accepts`` returns True for.

    The tenant of a token is its ``tid``, which its issuer names too. Personal Microsoft accounts are not accepted. Its
    ``issuers`` are empty, since they are not known in advance.

    Source: https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-tokens

    Args:
        audience: The client id of the API's app registration.
        accepts: Called with the directory's id, a GUID in lower case, for every token whose signature and claims are
            valid, cached ones too: a ``def`` or an ``async def``. Where it raises, the answer is 503.
        options: See PresetOptions.

    Raises:
        ConfigurationError: ``accepts`` cannot be called.
    """
    if not callable(accepts):
        msg = f"accepts is a function of the tenant's id, such as {{...}}.__contains__, not {shown(accepts)}"
        raise ConfigurationError(msg)
    own: OIDCOptions = {
        "algorithms": ["RS256"],
        "access_mark": ENTRA_ACCESS_MARK,
        "jwks_uri": f"{_HOST}/organizations/discovery/v2.0/keys",
        "tenant_claims": ["tid"],
    }
    return _EntraTenants(accepts, audience, **with_required(own, options, {"ver": "2.0"}))


def adfs(host: str, audience: str | Sequence[str], **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept access tokens of AD FS (2016 or later), whose issuer is not that of its ID tokens.

    Source: https://learn.microsoft.com/windows-server/identity/ad-fs/overview/ad-fs-openid-connect-oauth-concepts

    Args:
        host: The host name of the federation service.
        audience: The identifier of the web API.
        options: See PresetOptions.

    Raises:
        ConfigurationError: It is not a host name.
    """
    server = check_host("host", host)
    own: OIDCOptions = {
        "algorithms": ["RS256"],
        "access_mark": {"appid": True, "scp": True},
        "role_claims": ["role", "roles"],
        "jwks_uri": f"https://{server}/adfs/discovery/keys",
    }
    return OIDCAuth(f"http://{server}/adfs/services/trust", audience, **with_required(own, options))


class _TenantKeys(RemoteKeySet):
    """The keys that sign for any tenant: a key that names another issuer, such as personal accounts, is left out."""

    async def read(self) -> Document:
        """Fetch the JWK Set.

        Raises:
            FetchError: It did not come.
        """
        document = await super().read()
        entries = document.value.get("keys") if isinstance(document.value, dict) else None
        if not isinstance(entries, list):
            return document
        kept = [key for key in entries if not isinstance(key, dict) or key.get("issuer", _TEMPLATE) == _TEMPLATE]
        return Document({"keys": kept}, document.max_age_seconds)


class _EntraTenants(OIDCAuth):
    """Tokens of several tenants; the issuer of a token follows from its ``tid``."""

    def __init__(self, accepts: AcceptsTenant, audience: str | Sequence[str], **options: Unpack[PresetOptions]) -> None:
        self._accepts = accepts
        super().__init__(_TEMPLATE, audience, **options)

    @property
    def issuers(self) -> tuple[str, ...]:
        """None: the tenants are not known in advance."""
        return ()

    def _new_key_set(self, jwks_uri: str | None, options: Mapping[str, Any]) -> RemoteKeySet:
        assert jwks_uri is not None  # noqa: S101 - the preset passes it
        return _TenantKeys(jwks_uri, **options)

    def _claim_rules(self, config: JWTConfig) -> ClaimRules:
        return replace(super()._claim_rules(config), issuers=frozenset())  # see _check_claims

    def _check_claims(self, claims: Claims) -> None:
        tenant = claims.get("tid")
        if not isinstance(tenant, str) or not GUID.fullmatch(tenant):
            raise invalid_token("tenant")
        if claims.get("iss") != _TEMPLATE.replace("{tenantid}", tenant):
            raise invalid_token("issuer")
        super()._check_claims(claims)

    async def _valid_claims(self, raw: str) -> Claims:
        claims = await super()._valid_claims(raw)
        return await self._of_accepted_tenant(claims)

    async def _current(self, principal: Claims, connection: HTTPConnection | None) -> Claims:
        return await self._of_accepted_tenant(await super()._current(principal, connection))

    async def _of_accepted_tenant(self, claims: Claims) -> Claims:
        if not await self._is_accepted(claims["tid"]):
            raise invalid_token("tenant")
        return claims

    async def _is_accepted(self, tenant: str) -> bool:
        try:
            accepted = self._accepts(tenant)
            return (await accepted if isawaitable(accepted) else accepted) is True
        except AuthError:
            raise
        except Exception as error:
            # What cannot be decided is neither a pass nor the client's fault. The text may quote the token.
            logger.warning("the tenants could not be looked up: %s", type(error).__name__)
            raise ServiceUnavailable(reason="tenants_unreachable") from error
