"""Log users in, and keep, renew and end what a login leaves behind."""

from fastapi_guard.login.refresh import Family, RefreshTokens
from fastapi_guard.login.revocation import Revocations
from fastapi_guard.login.session import Session, SessionAuth
from fastapi_guard.login.users import DatabaseUsers, MappingUsers, User, Users

__all__ = [
    "DatabaseUsers",
    "Family",
    "MappingUsers",
    "RefreshTokens",
    "Revocations",
    "Session",
    "SessionAuth",
    "User",
    "Users",
]
