"""Signed tokens: their compact form, keys, rules, and the Auth."""

from fastapi_guard.jwt.auth import JWTAuth
from fastapi_guard.jwt.collaborators import RevocationCheck
from fastapi_guard.jwt.compact import Header
from fastapi_guard.jwt.config import JWTConfig
from fastapi_guard.jwt.tokens import BearerAccessToken
from fastapi_guard.jwt.verification import KeySource, VerificationKeys

__all__ = ["BearerAccessToken", "Header", "JWTAuth", "JWTConfig", "KeySource", "RevocationCheck", "VerificationKeys"]
