"""Users written in the configuration."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.login.users.protocol import User
from fastapi_guard.scopes import Scope

_FIELDS = frozenset(each.name for each in fields(User)) - {"username"}
_TEXTS = ("password_hash", "subject_id", "subject_type")


class MappingUsers:
    """Users by name, such as ``{"alice@example.com": {"password_hash": "$argon2id$...", "scopes": ["items:read"]}}``.

    A hash that a login replaces is replaced in this process, the mapping stays as it is.
    """

    def __init__(self, users: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the users, each with the fields of User; ``subject_id`` is the name where it is left out.

        Raises:
            ConfigurationError: A field is unknown, missing, or of another type.
        """
        self._users = {username: _user(username, entry) for username, entry in users.items()}

    async def get(self, username: str) -> User | None:
        """Return the user of this name, ``None`` where there is none."""
        return self._users.get(username)

    async def set_password_hash(self, username: str, hash: str) -> None:  # noqa: A002 - what it is
        """Keep another hash of the password."""
        self._users[username] = replace(self._users[username], password_hash=hash)


def _user(username: str, entry: Mapping[str, Any]) -> User:
    if not isinstance(entry, Mapping):
        msg = f"the user {username!r} is a mapping with a password_hash, not {type(entry).__name__}"
        raise ConfigurationError(msg)
    unknown = sorted(set(entry) - _FIELDS)
    if unknown:
        msg = f"the user {username!r} has unknown fields {', '.join(unknown)}; known are {', '.join(sorted(_FIELDS))}"
        raise ConfigurationError(msg)
    values = {"subject_id": username, **entry}
    for name in _TEXTS:
        if not isinstance(values.get(name, "-"), str) or not values.get(name, name != "password_hash"):
            msg = f"the user {username!r} needs {name} as text" + _hint(name)
            raise ConfigurationError(msg)
    for name in ("is_admin", "disabled"):
        if not isinstance(values.get(name, False), bool):
            msg = f"{name} of the user {username!r} is true or false"
            raise ConfigurationError(msg)
    for name in ("scopes", "roles"):
        if not isinstance(values.get(name, []), list | tuple | set | frozenset):
            msg = f"{name} of the user {username!r} is a list of texts"
            raise ConfigurationError(msg)
    values["scopes"] = tuple(Scope(scope) for scope in values.get("scopes", ()))
    values["roles"] = tuple(values.get("roles", ()))
    return User(username=username, **values)


def _hint(name: str) -> str:
    return ": make one with `fastapi-guard password hash`" if name == "password_hash" else ""
