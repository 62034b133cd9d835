"""Verify tokens that somebody else issued: OpenID providers, introspection, Auth0, DPoP.

OIDCAuth and MultiOIDCAuth need the extra ``http``, so this package cannot be imported without.
"""

from fastapi_guard.issuers.multi_oidc import MultiOIDCAuth
from fastapi_guard.issuers.oidc import OIDCAuth

__all__ = ["MultiOIDCAuth", "OIDCAuth"]
