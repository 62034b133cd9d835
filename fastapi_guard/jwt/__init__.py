"""Signed tokens: their compact form, keys, rules, and the Auth."""

from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.protocols import KeySource, RevocationCheck
from fastapi_guard.jwt.tokens import BearerAccessToken
from fastapi_guard.jwt.verification_keys import VerificationKeys

__all__ = ["BearerAccessToken", "Header", "JWTAuth", "JWTConfig", "KeySource", "RevocationCheck", "VerificationKeys"]
