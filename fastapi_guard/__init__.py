"""Authentication and authorization for FastAPI: who may call what, declared in the signature of the endpoint."""

# First, because it loads FastAPI: below ten imports of ours that takes CPython a tenth longer.
from fastapi_guard.exceptions import (
    AuthError,
    ConfigurationError,
    Forbidden,
    GuardError,
    MissingExtraError,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
)

# isort: split
from fastapi_guard.api_key import APIKeyAuth, StaticAPIKeyAuth
from fastapi_guard.app.configure import configure_app
from fastapi_guard.auth import AnyAuth, Auth, ScopesAuth, TokenAuth
from fastapi_guard.claims import Claims
from fastapi_guard.jwt import BearerAccessToken, JWTAuth, JWTConfig
from fastapi_guard.routers import jwks_router
from fastapi_guard.routers.responses import no_store
from fastapi_guard.schemes import APIKeyScheme, BearerScheme
from fastapi_guard.scopes import HierarchicalScopeValidator, Scope, ScopeValidator, SimpleScopeValidator

__all__ = [
    "APIKeyAuth",
    "APIKeyScheme",
    "AnyAuth",
    "Auth",
    "AuthError",
    "BearerAccessToken",
    "BearerScheme",
    "Claims",
    "ConfigurationError",
    "Forbidden",
    "GuardError",
    "HierarchicalScopeValidator",
    "JWTAuth",
    "JWTConfig",
    "MissingExtraError",
    "Scope",
    "ScopeValidator",
    "ScopesAuth",
    "ServiceUnavailable",
    "SimpleScopeValidator",
    "StaticAPIKeyAuth",
    "TokenAuth",
    "TooManyRequests",
    "Unauthorized",
    "configure_app",
    "jwks_router",
    "no_store",
]
