"""Verify tokens that another party issued: OpenID providers, introspection, DPoP.

OIDCAuth, MultiOIDCAuth and IntrospectionAuth need the extra ``http`` when they are constructed. ``Auth0`` is in
``fastapi_guard.issuers.auth0``, which needs the extra ``auth0`` when it is imported. An Auth for each of many providers
and identity-aware proxies is in ``fastapi_guard.issuers.presets``.
"""

from fastapi_guard.issuers.dpop import DPoP, DPoPNonces
from fastapi_guard.issuers.introspection import IntrospectionAuth
from fastapi_guard.issuers.multi_oidc import MultiOIDCAuth
from fastapi_guard.issuers.oidc import OIDCAuth

__all__ = ["DPoP", "DPoPNonces", "IntrospectionAuth", "MultiOIDCAuth", "OIDCAuth"]
