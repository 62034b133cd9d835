"""The names that a user imports, pinned: one that goes or comes is a decision, not an accident."""

import importlib
from types import ModuleType

import pytest

import fastapi_guard

NAMES = {
    "fastapi_guard": {
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
    },
    "fastapi_guard.api_key": {"APIKeyAuth", "StaticAPIKeyAuth"},
    "fastapi_guard.issuers": {"DPoP", "DPoPNonces", "IntrospectionAuth", "MultiOIDCAuth", "OIDCAuth"},
    "fastapi_guard.routers": {"jwks_router", "protected_resource_router"},
    "fastapi_guard.settings": {"check_config", "create_auth"},
    "fastapi_guard.stores": {"MemoryStore", "Record", "Store"},
    "fastapi_guard.testing": {"acting_as"},
    "fastapi_guard.login.throttle": {"Throttle", "account", "client_address", "subject"},
    "fastapi_guard.login.users": {"AccountUsers", "DatabaseUsers", "MappingUsers", "User", "Users"},
}


@pytest.mark.parametrize("module", NAMES)
def test_the_exported_names(module: str) -> None:
    """A module that users import from exports exactly these names, sorted, and binds no other public one."""
    package = importlib.import_module(module)
    assert package.__all__ == sorted(NAMES[module])
    bound = {name for name, value in vars(package).items() if not isinstance(value, ModuleType)}
    assert {name for name in bound if not name.startswith("_")} == NAMES[module]


def test_the_core_names_are_documented() -> None:
    """Each exported class and function of the core has a docstring of its own."""
    documented = [name for name in fastapi_guard.__all__ if getattr(fastapi_guard, name).__doc__]
    assert documented == fastapi_guard.__all__
