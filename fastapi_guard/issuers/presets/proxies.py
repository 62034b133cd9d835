"""Presets for identity-aware proxies: Cloudflare Access and Google IAP. AWS ALB is in ``alb``.

A proxy logs users in, keeps a cookie in their browser, and adds a signed token to each request in a header of its own.
To the application that header is a cookie: a page of another site can cause a request that has it. So the same-origin
rule applies, and the header counts only with a valid signature and audience.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final, Unpack

from fastapi_guard.auth import AuthOptions
from fastapi_guard.claims import Claims
from fastapi_guard.exceptions import ConfigurationError, invalid_token
from fastapi_guard.issuers.oidc import OIDCAuth
from fastapi_guard.issuers.options import OIDCOptions, PresetOptions, check_host, with_required
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.rules import ClaimRules
from fastapi_guard.schemes import APIKeyScheme
from fastapi_guard.stores.arguments import check_texts, texts_of

_IAP_ISSUER: Final = "https://cloud.google.com/iap"
_IAP_KEYS: Final = "https://www.gstatic.com/iap/verify/public_key-jwk"


def google_iap(
    audience: str | Sequence[str], *, hosted_domain: str | None = None, **options: Unpack[PresetOptions]
) -> OIDCAuth:
    """Accept the users that Google Identity-Aware Proxy lets in, by its header ``x-goog-iap-jwt-assertion``.

    Source: https://cloud.google.com/iap/docs/signed-headers-howto

    Args:
        audience: ``/projects/<number>/apps/<project>`` for App Engine, or
            ``/projects/<number>/global/backendServices/<id>``.
        hosted_domain: Accept members of this Google Workspace domain alone, by the claim ``hd``.
        options: See PresetOptions. ``trusted_origins`` are other origins whose pages may send requests.

    Raises:
        ConfigurationError: ``cookie=False`` would switch off the same-origin rule.
    """
    check_texts(hosted_domain=hosted_domain)
    own: OIDCOptions = {"accept": "id", "algorithms": ["ES256"], "jwks_uri": _IAP_KEYS, "leeway_seconds": 30}
    chosen = with_required(own, options, {} if hosted_domain is None else {"hd": hosted_domain})
    return OIDCAuth(_IAP_ISSUER, audience, **behind_proxy("x-goog-iap-jwt-assertion", chosen))


def cloudflare_access(
    team: str,
    audience: str | Sequence[str],
    *,
    service_tokens: Collection[str] = (),
    **options: Unpack[PresetOptions],
) -> OIDCAuth:
    """Accept the users and services that Cloudflare Access lets in, by its header ``Cf-Access-Jwt-Assertion``.

    The token of a service has an empty ``sub`` and its client id in ``common_name``. It identifies no user, and is
    accepted only for the ids in ``service_tokens``.

    Source: https://developers.cloudflare.com/cloudflare-one/access-controls/applications/http-apps/authorization-cookie/application-token/

    Args:
        team: The team domain, such as ``acme.cloudflareaccess.com``.
        audience: The Application Audience (AUD) tag of the application, or several.
        service_tokens: The accepted client ids of service tokens, such as ``e367826f93b8d711.access``.
        options: See PresetOptions. ``trusted_origins`` are other origins whose pages may send requests.

    Raises:
        ConfigurationError: The team is not a host name, or ``cookie=False`` would switch off the same-origin rule.
    """
    issuer = f"https://{check_host('team', team)}"
    tokens = frozenset(texts_of("service_tokens", service_tokens, 'of client ids, such as ["e367826f93b8d711.access"]'))
    own: OIDCOptions = {
        "algorithms": ["RS256"],
        "access_mark": {"type": "app"},
        "jwks_uri": f"{issuer}/cdn-cgi/access/certs",
    }
    chosen = with_required(own, options, {"type": "app"})
    return _CloudflareAccess(tokens, issuer, audience, **behind_proxy("Cf-Access-Jwt-Assertion", chosen))


def behind_proxy(header: str, options: PresetOptions) -> PresetOptions:
    """Return the options for a token that a proxy adds in ``header``: the same-origin rule applies.

    Raises:
        ConfigurationError: ``cookie=False`` would switch off that rule.
    """
    check_cookie(options)
    return {"scheme": APIKeyScheme(header), **options, "cookie": True}


def check_cookie(options: AuthOptions) -> None:
    """Reject ``cookie=False``.

    Raises:
        ConfigurationError: It would switch off the same-origin rule.
    """
    if options.get("cookie", True) is not True:
        msg = "cookie=False would let pages of any origin use the proxy's session: name them in trusted_origins"
        raise ConfigurationError(msg)


class _CloudflareAccess(OIDCAuth):
    """Tokens of users, with a ``sub``, and of services, whose ``sub`` is empty."""

    def __init__(
        self,
        service_tokens: frozenset[str],
        issuer: str,
        audience: str | Sequence[str],
        **options: Unpack[PresetOptions],
    ) -> None:
        self._service_tokens = service_tokens
        super().__init__(issuer, audience, **options)

    def _claim_rules(self, config: JWTConfig) -> ClaimRules:
        return replace(super()._claim_rules(config), allows_empty_sub=bool(self._service_tokens))

    def _check_claims(self, claims: Claims) -> None:
        name = claims.get("common_name")
        if not claims.get("sub") and (not isinstance(name, str) or name not in self._service_tokens):
            raise invalid_token("service_token")
        super()._check_claims(claims)
