"""Who can log in: the protocol, and the two places that come with it."""

from fastapi_guard.login.users.database import DatabaseUsers
from fastapi_guard.login.users.mapping import MappingUsers
from fastapi_guard.login.users.protocol import User, Users

__all__ = ["DatabaseUsers", "MappingUsers", "User", "Users"]
