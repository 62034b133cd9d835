"""Providers that people have: each function returns one with its issuer, its quirks, and the addresses it vouches for.

An address is matched with an account only where no other user of the provider can have it. By default that is Google
for gmail.com and for the domains of Google Workspace; the option ``vouches`` changes it.
"""

import re
import time
from collections.abc import Mapping
from typing import Any, Final, Unpack

from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.issuers.oidc import GUID
from fastapi_guard.issuers.options import check_host, with_required
from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.key_formats import import_pem
from fastapi_guard.login.providers.client import ClientSecret, parameters_of
from fastapi_guard.login.providers.github import GitHub
from fastapi_guard.login.providers.openid import OpenIDProvider, ProviderOptions
from fastapi_guard.login.providers.provider import Identity
from fastapi_guard.stores.arguments import check_texts, instance_of
from fastapi_guard.stores.hidden import plain, revealed

__all__ = ["apple", "auth0", "cognito", "entra", "github", "gitlab", "google", "keycloak", "okta"]

github = GitHub

_NAME: Final = re.compile(r"[0-9A-Za-z_-]+")
_APPLE: Final = "https://appleid.apple.com"
_APPLE_SECRET_SECONDS: Final = 300


def google(
    client_id: str,
    client_secret: ClientSecret,
    *,
    hosted_domain: str | None = None,
    name: str = "google",
    **options: Unpack[ProviderOptions],
) -> OpenIDProvider:
    """Return Google. It vouches for addresses of gmail.com and of the user's Google Workspace.

    Source: https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload

    Args:
        client_id: The OAuth client.
        client_secret: Its secret.
        hosted_domain: Accept members of this Google Workspace domain alone, by the claim ``hd``.
        name: The name in routes.
        options: See ProviderOptions.
    """
    check_texts(hosted_domain=hosted_domain)
    own: dict[str, Any] = {"vouches": _google_vouches, **options}
    if hosted_domain is not None:
        own |= _requiring(options, {"hd": hosted_domain})
        own["parameters"] = {"hd": hosted_domain, **parameters_of(options.get("parameters", {}), "{'prompt': 'login'}")}
    return OpenIDProvider(name, "https://accounts.google.com", client_id, client_secret, **own)


def entra(
    tenant_id: str,
    client_id: str,
    client_secret: ClientSecret,
    *,
    name: str = "microsoft",
    **options: Unpack[ProviderOptions],
) -> OpenIDProvider:
    """Return Microsoft Entra ID, of one tenant. Its addresses are not verified, and never vouched for.

    Source: https://learn.microsoft.com/entra/identity-platform/id-token-claims-reference

    Args:
        tenant_id: The directory's id, a GUID in lower case.
        client_id: The app registration.
        client_secret: Its secret.
        name: The name in routes.
        options: See ProviderOptions.

    Raises:
        ConfigurationError: The tenant is not a GUID: "common" would let in the users of every tenant.
    """
    if not isinstance(tenant_id, str) or not GUID.fullmatch(tenant_id):
        msg = f"tenant_id is a GUID in lower case, not {shown(tenant_id)}"
        raise ConfigurationError(msg)
    issuer = f"https://login.microsoftonline.com/{tenant_id}/v2.0"
    own: dict[str, Any] = {**options, **_requiring(options, {"tid": tenant_id})}
    return OpenIDProvider(name, issuer, client_id, client_secret, **own)


def gitlab(
    client_id: str,
    client_secret: ClientSecret,
    *,
    url: str = "https://gitlab.com",
    name: str = "gitlab",
    **options: Unpack[ProviderOptions],
) -> OpenIDProvider:
    """Return GitLab, or a GitLab of your own at ``url``.

    Source: https://docs.gitlab.com/integration/openid_connect_provider/

    Args:
        client_id: The id of the application in GitLab.
        client_secret: Its secret.
        url: The https URL of the instance.
        name: The name in routes.
        options: See ProviderOptions.

    Raises:
        ConfigurationError: The URL is not https, or an argument is empty.
    """
    return OpenIDProvider(name, str(plain(url)).rstrip("/"), client_id, client_secret, **options)


def apple(
    client_id: str,
    *,
    team_id: str,
    key_id: str,
    private_key: str,
    name: str = "apple",
    **options: Unpack[ProviderOptions],
) -> OpenIDProvider:
    """Return Sign in with Apple. Its client secret is a token that is signed for each exchange.

    Source: https://developer.apple.com/documentation/accountorganizationaldatasharing/creating-a-client-secret

    Args:
        client_id: The Services ID.
        team_id: The team.
        key_id: The id of the private key.
        private_key: The private key that Apple has given out, as PEM.
        name: The name in routes.
        options: See ProviderOptions.

    Raises:
        ConfigurationError: The key is not a private key, or an id is not text.
    """
    for argument, value in (("team_id", team_id), ("key_id", key_id)):
        instance_of(argument, value, str, "the id that Apple has given out")
    config = JWTConfig(
        key=import_pem(revealed(private_key), key_id),
        algorithms=["ES256"],
        issuer_url=team_id,
        audience=_APPLE,
        expiration_seconds=_APPLE_SECRET_SECONDS,
    )
    config.signing_key()
    signer = JWTAuth(config, clock=options.get("clock", time.time))
    own: dict[str, Any] = {"scopes": ("openid", "email", "name"), "authentication": "client_secret_post"}
    return OpenIDProvider(
        name,
        _APPLE,
        client_id,
        lambda: signer.encode({"sub": client_id}),
        response_mode="form_post",
        **{**own, **options},
    )


def keycloak(
    url: str,
    realm: str,
    client_id: str,
    client_secret: ClientSecret = None,
    *,
    name: str = "keycloak",
    **options: Unpack[ProviderOptions],
) -> OpenIDProvider:
    """Return a realm of Keycloak.

    Source: https://www.keycloak.org/securing-apps/oidc-layers

    Args:
        url: The https URL of the server, with its relative path where it has one, such as ``https://sso.example/auth``.
        realm: The name of the realm.
        client_id: The client in the realm.
        client_secret: Its secret; ``None`` for a public client.
        name: The name in routes.
        options: See ProviderOptions.

    Raises:
        ConfigurationError: The URL is not https, or the realm cannot be part of a URL.
    """
    if not isinstance(realm, str) or not realm or "/" in realm:
        msg = "realm is a name without a slash"
        raise ConfigurationError(msg)
    return OpenIDProvider(name, f"{str(plain(url)).rstrip('/')}/realms/{realm}", client_id, client_secret, **options)


def okta(
    domain: str,
    client_id: str,
    client_secret: ClientSecret = None,
    *,
    authorization_server: str | None = None,
    name: str = "okta",
    **options: Unpack[ProviderOptions],
) -> OpenIDProvider:
    """Return an Okta organisation, or one of its custom authorization servers, such as ``"default"``.

    Source: https://developer.okta.com/docs/concepts/auth-servers/

    Args:
        domain: The domain of the organisation, such as ``acme.okta.com``.
        client_id: The client id of the app integration.
        client_secret: Its secret; ``None`` for a public client.
        authorization_server: The id of a custom authorization server; ``None`` for that of the organisation.
        name: The name in routes.
        options: See ProviderOptions.

    Raises:
        ConfigurationError: The domain is not a host name, or the authorization server is not an id.
    """
    host = f"https://{check_host('domain', domain)}"
    if authorization_server is not None and not _is_name(authorization_server):
        msg = f'authorization_server is its id, such as "default", not {shown(authorization_server)}'
        raise ConfigurationError(msg)
    issuer = host if authorization_server is None else f"{host}/oauth2/{authorization_server}"
    return OpenIDProvider(name, issuer, client_id, client_secret, **options)


def auth0(
    domain: str,
    client_id: str,
    client_secret: ClientSecret = None,
    *,
    name: str = "auth0",
    **options: Unpack[ProviderOptions],
) -> OpenIDProvider:
    """Return an Auth0 tenant, by its own or a custom domain.

    Source: https://auth0.com/docs/get-started/authentication-and-authorization-flow/authorization-code-flow

    Args:
        domain: The tenant's or the custom domain, such as ``tenant.eu.auth0.com``.
        client_id: The client id of the application.
        client_secret: Its secret; ``None`` for a public client.
        name: The name in routes.
        options: See ProviderOptions.

    Raises:
        ConfigurationError: The domain is not a host name.
    """
    return OpenIDProvider(name, f"https://{check_host('domain', domain)}/", client_id, client_secret, **options)


def cognito(
    region: str,
    user_pool_id: str,
    client_id: str,
    client_secret: ClientSecret = None,
    *,
    name: str = "cognito",
    **options: Unpack[ProviderOptions],
) -> OpenIDProvider:
    """Return a user pool of Amazon Cognito.

    Source: https://docs.aws.amazon.com/cognito/latest/developerguide/cognito-userpools-server-contract-reference.html

    Args:
        region: The region of AWS, such as ``eu-central-1``.
        user_pool_id: The id of the user pool, such as ``eu-central-1_Ab12Cd34E``.
        client_id: The app client.
        client_secret: Its secret; ``None`` for a public client.
        name: The name in routes.
        options: See ProviderOptions.

    Raises:
        ConfigurationError: The region cannot be part of a host name, or the user pool is not one of it.
    """
    host = check_host("region", f"cognito-idp.{region}.amazonaws.com")
    if not _is_name(user_pool_id) or not user_pool_id.startswith(f"{region}_"):
        msg = f"user_pool_id begins with the region, such as {region}_Ab12Cd34E, unlike {shown(user_pool_id)}"
        raise ConfigurationError(msg)
    return OpenIDProvider(name, f"https://{host}/{user_pool_id}", client_id, client_secret, **options)


def _requiring(options: ProviderOptions, needed: Mapping[str, Any]) -> dict[str, Any]:
    # With the error where another value of the same claim is required.
    return {"require": with_required({}, {"require": options.get("require", {})}, needed)["require"]}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _google_vouches(identity: Identity) -> bool:
    domain = (identity.email or "").rpartition("@")[2].lower()
    return domain == "gmail.com" or ("hd" in identity.claims and identity.claims["hd"] == domain)
