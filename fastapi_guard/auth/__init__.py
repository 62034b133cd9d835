"""Auth, ScopesAuth and AnyAuth: from a credential to claims, and from claims to a yes or no."""

from fastapi_guard.auth.any_of import AnyAuth
from fastapi_guard.auth.auth import Auth, AuthOptions
from fastapi_guard.auth.decision import Decided, Verified
from fastapi_guard.auth.guard import FlatGuard, Guard
from fastapi_guard.auth.scopes import ScopesAuth, ScopesOptions, TokenAuth

__all__ = [
    "AnyAuth",
    "Auth",
    "AuthOptions",
    "Decided",
    "FlatGuard",
    "Guard",
    "ScopesAuth",
    "ScopesOptions",
    "TokenAuth",
    "Verified",
]
