"""Presets for the services that people log in to: Cognito, Okta, Clerk, WorkOS, Supabase, Firebase, Apple and others.

What a provider needs beside its issuer and audience is one row of the table ``_PROVIDERS``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Unpack

from joserfc.jwk import OctKey
from pydantic import SecretStr

from fastapi_guard.auth import ScopesOptions
from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.issuers.oidc import OIDCAuth
from fastapi_guard.issuers.options import OIDCOptions, PresetOptions, check_host, with_required
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.schemes import APIKeyScheme
from fastapi_guard.stores.arguments import instance_of
from fastapi_guard.stores.hidden import plain, revealed

# By provider: the algorithms, the mark by which its access tokens differ from its ID tokens, and where it puts what.
_PROVIDERS: Final[Mapping[str, OIDCOptions]] = {
    "apple": {"accept": "id", "algorithms": ["RS256"]},
    "clerk": {
        "algorithms": ["RS256"],
        "audience_claim": "azp",
        "access_mark": {"sid": True},
        "reject": {"sts": "pending"},
        "role_claims": ["o.rol", "org_role"],
        "tenant_claims": ["org_id"],
    },
    "cognito": {
        "algorithms": ["RS256"],
        "audience_claim": "client_id",
        "access_mark": {"token_use": "access"},
        "role_claims": ["cognito:groups"],
    },
    "cognito-id": {"accept": "id", "algorithms": ["RS256"], "role_claims": ["cognito:groups"]},
    "firebase": {"accept": "id", "algorithms": ["RS256"]},
    "fusionauth": {"access_mark": {"permissions": True}, "scope_claims": ["scope", "permissions"]},
    "okta": {"algorithms": ["RS256"], "access_mark": {"cid": True, "scp": True}, "role_claims": ["groups"]},
    "okta-org": {"accept": "id", "algorithms": ["RS256"], "role_claims": ["groups"]},
    "supabase": {
        "algorithms": ["ES256", "RS256"],
        "access_mark": {"session_id": True},
        "role_claims": ["app_metadata.roles"],
    },
    "workos": {
        "algorithms": ["RS256"],
        "access_mark": {"sid": True},
        "scope_claims": ["scope", "permissions"],
        "tenant_claims": ["org_id"],
    },
    "zitadel": {"algorithms": ["RS256"], "access_mark": {"jti": True}},
}
_USER_POOL: Final = re.compile(r"([a-z]{2}(?:-[a-z]+)+-[0-9]+)_[0-9A-Za-z]+")
_NAME: Final = re.compile(r"[0-9A-Za-z_-]+")
_GOOGLE_KEYS: Final = "https://www.googleapis.com/"


def cognito(user_pool_id: str, client_id: str | Sequence[str], **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept access tokens of an Amazon Cognito user pool, or its ID tokens; its groups are roles.

    Access tokens have no ``aud``, but ``client_id``; ``token_use`` names the kind of both.

    Source: https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html

    Args:
        user_pool_id: The id of the user pool, such as ``eu-central-1_Ab12Cd34E``.
        client_id: The app client, or several. With resource binding, add the identifier of the API.
        options: See PresetOptions; ``accept="id"`` is for ID tokens.

    Raises:
        ConfigurationError: It is not the id of a user pool.
    """
    pool = _USER_POOL.fullmatch(user_pool_id) if isinstance(user_pool_id, str) else None
    if pool is None:
        msg = f"user_pool_id is such as eu-central-1_Ab12Cd34E, not {shown(user_pool_id)}"
        raise ConfigurationError(msg)
    accept = options.get("accept", "access")
    row = _PROVIDERS["cognito" if accept == "access" else "cognito-id"]
    issuer = f"https://cognito-idp.{pool[1]}.amazonaws.com/{user_pool_id}"
    return OIDCAuth(issuer, client_id, **with_required(row, options, {"token_use": accept}))


def okta(
    domain: str,
    audience: str | Sequence[str] = "api://default",
    *,
    server: str = "default",
    **options: Unpack[PresetOptions],
) -> OIDCAuth:
    """Accept access tokens of a custom authorization server of Okta; its claim ``groups`` has roles.

    Source: https://developer.okta.com/docs/guides/validate-access-tokens/

    Args:
        domain: The domain of the organization, such as ``acme.okta.com``.
        audience: The audience of the authorization server.
        server: The id of the authorization server.
        options: See PresetOptions.

    Raises:
        ConfigurationError: The domain or the server is not such a name.
    """
    if not isinstance(server, str) or not _NAME.fullmatch(server):
        msg = f'server is the id of a custom authorization server, such as "default", not {shown(server)}'
        raise ConfigurationError(msg)
    issuer = f"https://{check_host('domain', domain)}/oauth2/{server}"
    return OIDCAuth(issuer, audience, **with_required(_PROVIDERS["okta"], options))


def okta_org(domain: str, client_id: str | Sequence[str], **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept ID tokens of the org authorization server of Okta, whose access tokens are for Okta alone.

    Source: https://developer.okta.com/docs/concepts/auth-servers/

    Args:
        domain: The domain of the organization, such as ``acme.okta.com``.
        client_id: The client, or several, that the users log in to.
        options: See PresetOptions.

    Raises:
        ConfigurationError: The domain is not a host name.
    """
    issuer = f"https://{check_host('domain', domain)}"
    return OIDCAuth(issuer, client_id, **with_required(_PROVIDERS["okta-org"], options))


def clerk(frontend_api: str, origins: str | Sequence[str], **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept session tokens of Clerk, which name the origin of the page in ``azp`` and have no audience.

    A session that is ``pending``, such as before a second factor, is rejected.

    Source: https://clerk.com/docs/guides/sessions/session-tokens

    Args:
        frontend_api: The Frontend API URL, such as ``https://clerk.example.com``.
        origins: The origins of the pages, such as ``https://app.example.com``.
        options: See PresetOptions.
    """
    issuer = str(plain(frontend_api)).rstrip("/")
    own: OIDCOptions = {**_PROVIDERS["clerk"], "jwks_uri": f"{issuer}/.well-known/jwks.json"}
    return OIDCAuth(issuer, origins, **with_required(own, options))


def workos(
    client_id: str,
    *,
    issuer: str | None = None,
    audience: str | Sequence[str] | None = None,
    **options: Unpack[PresetOptions],
) -> OIDCAuth:
    """Accept access tokens of WorkOS AuthKit; ``permissions`` are scopes, ``org_id`` is the tenant.

    By default the tokens have no ``aud``: the issuer names the client, and the keys are those of the client.

    Source: https://workos.com/docs/reference/authkit/session-tokens

    Args:
        client_id: The client id of the environment, such as ``client_01HXYZ``.
        issuer: The ``iss`` of its tokens, where it is not ``https://api.workos.com/user_management/<client id>``.
        audience: The ``aud`` that a JWT template adds.
        options: See PresetOptions.

    Raises:
        ConfigurationError: It is not a client id.
    """
    if not isinstance(client_id, str) or not _NAME.fullmatch(client_id):
        msg = f"client_id is such as client_01HXYZ, not {shown(client_id)}"
        raise ConfigurationError(msg)
    iss = f"https://api.workos.com/user_management/{client_id}" if issuer is None else issuer
    own: OIDCOptions = {**_PROVIDERS["workos"], "jwks_uri": f"https://api.workos.com/sso/jwks/{client_id}"}
    if audience is None:
        own["audience_claim"] = "iss"
    return OIDCAuth(iss, iss if audience is None else audience, **with_required(own, options))


def supabase(url: str, audience: str | Sequence[str] = "authenticated", **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept access tokens of Supabase Auth that are signed with its signing keys (ES256, RS256).

    ``app_metadata.roles`` has roles. During a migration, combine it with ``supabase_hs256``: ``supabase(...) |
    supabase_hs256(...)``.

    Source: https://supabase.com/docs/guides/auth/jwt-fields

    Args:
        url: The URL of the project, such as ``https://abcdefghijklmnopqrst.supabase.co``.
        audience: The ``aud`` of the tokens.
        options: See PresetOptions.
    """
    issuer = _supabase_issuer(url)
    own: OIDCOptions = {**_PROVIDERS["supabase"], "jwks_uri": f"{issuer}/.well-known/jwks.json"}
    return OIDCAuth(issuer, audience, **with_required(own, options))


def supabase_hs256(
    url: str, secret: str | SecretStr, audience: str | Sequence[str] = "authenticated", **options: Unpack[ScopesOptions]
) -> JWTAuth:
    """Accept access tokens of Supabase Auth that are signed with the legacy JWT secret (HS256).

    Anyone with the secret can make tokens: migrate to signing keys.

    Source: https://supabase.com/docs/guides/auth/signing-keys

    Args:
        url: The URL of the project.
        secret: The legacy JWT secret of the project.
        audience: The ``aud`` of the tokens.
        options: See ScopesOptions; ``name`` is "supabase-hs256" by default.

    Raises:
        ConfigurationError: The secret is weak.
    """
    row = _PROVIDERS["supabase"]
    config = JWTConfig(
        key=OctKey.import_key(instance_of("secret", revealed(secret), (str, bytes), "the legacy JWT secret")),
        algorithms=["HS256"],
        issuer_url=_supabase_issuer(url),
        audience=audience,
        access_mark=row["access_mark"],
    )
    own: dict[str, Any] = {"name": "supabase-hs256", "role_claims": row["role_claims"], **options}
    return JWTAuth(config, **own)


def firebase(project_id: str, **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept ID tokens of Firebase Authentication.

    Source: https://firebase.google.com/docs/auth/admin/verify-id-tokens

    Args:
        project_id: The id of the Firebase project.
        options: See PresetOptions.
    """
    keys = "service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
    own: OIDCOptions = {**_PROVIDERS["firebase"], "jwks_uri": _GOOGLE_KEYS + keys}
    return OIDCAuth(f"https://securetoken.google.com/{project_id}", project_id, **with_required(own, options))


def firebase_session(project_id: str, *, cookie_name: str = "session", **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept session cookies of Firebase Authentication; the same-origin rule applies to them.

    Source: https://firebase.google.com/docs/auth/admin/manage-cookies

    Args:
        project_id: The id of the Firebase project.
        cookie_name: The name of the cookie; behind Firebase Hosting it has to be ``__session``.
        options: See PresetOptions.
    """
    keys = "identitytoolkit/v3/relyingparty/publicKeys"
    own: OIDCOptions = {**_PROVIDERS["firebase"], "jwks_uri": _GOOGLE_KEYS + keys}
    chosen = with_required(own, {"scheme": APIKeyScheme(cookie_name, "cookie"), **options})
    return OIDCAuth(f"https://session.firebase.google.com/{project_id}", project_id, **chosen)


def apple(client_id: str | Sequence[str], **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept ID tokens of Sign in with Apple.

    Source: https://developer.apple.com/documentation/signinwithapple/verifying-a-user

    Args:
        client_id: The bundle id of the app or the Services ID of the site, or several.
        options: See PresetOptions.
    """
    return OIDCAuth("https://appleid.apple.com", client_id, **with_required(_PROVIDERS["apple"], options))


def zitadel(issuer: str, project_id: str, **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept JWT access tokens of Zitadel, which have a ``jti``; the roles of the project are roles.

    Source: https://zitadel.com/docs/apis/openidoauth/claims

    Args:
        issuer: The instance, such as ``https://acme-x1y2z3.zitadel.cloud``.
        project_id: The project of the API: its id is in the ``aud`` of the tokens.
        options: See PresetOptions.
    """
    roles = ["urn:zitadel:iam:org:project:roles", f"urn:zitadel:iam:org:project:{project_id}:roles"]
    own: OIDCOptions = {**_PROVIDERS["zitadel"], "role_claims": roles}
    return OIDCAuth(issuer, project_id, **with_required(own, options))


def fusionauth(url: str, application_id: str, *, issuer: str, **options: Unpack[PresetOptions]) -> OIDCAuth:
    """Accept access tokens of FusionAuth (1.24 or later), signed with an asymmetric key.

    Both kinds of token have the same audience and ``scope``; ``applicationId`` is in access tokens alone, unless a
    lambda adds it to ID tokens.

    Source: https://fusionauth.io/docs/lifecycle/authenticate-users/oauth/tokens

    Args:
        url: The server.
        application_id: The id of the application, or of the target entity of client credentials.
        issuer: The issuer in the JWT settings of the tenant, such as ``acme.com``.
        options: See PresetOptions.
    """
    own: OIDCOptions = {**_PROVIDERS["fusionauth"], "jwks_uri": f"{str(plain(url)).rstrip('/')}/.well-known/jwks.json"}
    own["access_mark"] = {**own["access_mark"], "applicationId": application_id}
    return OIDCAuth(issuer, application_id, **with_required(own, options))


def _supabase_issuer(url: str) -> str:
    return f"{str(plain(url)).rstrip('/')}/auth/v1"
