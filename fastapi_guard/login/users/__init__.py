"""Users: the protocols, and the two places that come with the package."""

from fastapi_guard.login.users.database import DatabaseUsers
from fastapi_guard.login.users.mapping import MappingUsers
from fastapi_guard.login.users.protocol import AccountUsers, User, Users

__all__ = ["AccountUsers", "DatabaseUsers", "MappingUsers", "User", "Users"]
