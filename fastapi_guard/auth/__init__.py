"""From the raw credential to claims, and from claims to a yes or no."""

from fastapi_guard.auth.any_of import AnyAuth
from fastapi_guard.auth.auth import MEMO, Auth, AuthOptions, TokenAuth
from fastapi_guard.auth.guard import FlatGuard, Guard, Verified
from fastapi_guard.auth.scopes import ScopesAuth, ScopesOptions

__all__ = [
    "MEMO",
    "AnyAuth",
    "Auth",
    "AuthOptions",
    "FlatGuard",
    "Guard",
    "ScopesAuth",
    "ScopesOptions",
    "TokenAuth",
    "Verified",
]
