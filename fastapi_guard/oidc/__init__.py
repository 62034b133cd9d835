"""OIDCAuth and MultiOIDCAuth: tokens of OpenID providers, whose keys are found by discovery.

All of it needs the extra ``http``, so this package cannot be imported without.
"""

from fastapi_guard.oidc.auth import OIDCAuth
from fastapi_guard.oidc.multi import MultiOIDCAuth

__all__ = ["MultiOIDCAuth", "OIDCAuth"]
