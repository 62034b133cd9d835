"""Sign in with a provider: Google, Microsoft Entra, GitHub, Apple, or any OpenID Connect provider."""

from fastapi_guard.login.providers.github import GitHub
from fastapi_guard.login.providers.identities import (
    DatabaseIdentities,
    LinkedIdentity,
    StoredIdentities,
    identity_id,
)
from fastapi_guard.login.providers.logout import ProviderLogout
from fastapi_guard.login.providers.openid import OpenIDProvider
from fastapi_guard.login.providers.provider import Identity
from fastapi_guard.login.providers.sign_in import ProviderLogin, SignedIn

__all__ = [
    "DatabaseIdentities",
    "GitHub",
    "Identity",
    "LinkedIdentity",
    "OpenIDProvider",
    "ProviderLogin",
    "ProviderLogout",
    "SignedIn",
    "StoredIdentities",
    "identity_id",
]
