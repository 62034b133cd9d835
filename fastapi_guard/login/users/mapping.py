"""Users written in the configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from fastapi_guard.api_key.mistakes import shown_name
from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.login.users.names import normalized
from fastapi_guard.login.users.protocol import MAX_SUBJECT_CHARACTERS, User
from fastapi_guard.scopes import Scope
from fastapi_guard.stores.arguments import mapping_of
from fastapi_guard.stores.hidden import revealed


class _Entry(BaseModel, defer_build=True):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", hide_input_in_errors=True)

    password_hash: Annotated[StrictStr, BeforeValidator(revealed)] = Field(min_length=1)
    username: StrictStr | None = Field(default=None, min_length=1)
    email: StrictStr | None = Field(default=None, min_length=1)
    subject_id: StrictStr | None = Field(default=None, min_length=1, max_length=MAX_SUBJECT_CHARACTERS)
    subject_type: StrictStr = Field(default="user", min_length=1)
    tenant_id: StrictStr | None = None
    is_admin: StrictBool = False
    scopes: list[StrictStr] | tuple[StrictStr, ...] | set[StrictStr] | frozenset[StrictStr] = ()
    roles: list[StrictStr] | tuple[StrictStr, ...] | set[StrictStr] | frozenset[StrictStr] = ()
    disabled: StrictBool = False
    extra_claims: dict[str, Any] = Field(default_factory=dict)


class MappingUsers:
    """Users by login name, such as ``{"alice@example.com": {"password_hash": "$argon2id$...", "scopes": ["a:b"]}}``.

    What a login or a command changes is changed in this process; the mapping stays as it is.
    """

    def __init__(self, users: Mapping[str, Mapping[str, Any]]) -> None:
        """Read the users, each with the fields of User.

        Args:
            users: A key with an ``@`` is the ``email``, any other the ``username``. Without ``subject_id`` the key is
                the ``sub`` of the claims.

        Raises:
            ConfigurationError: A field is unknown, missing, or of another type, or two users have the same name. Every
                mistake is named.
        """
        mistakes: list[str] = []
        self._users: dict[str, User] = {}
        self._names: dict[str, str] = {}
        for name, entry in mapping_of("users", users, '{"alice": {"password_hash": "$argon2id$..."}}').items():
            try:
                self._put(_user(name, entry))
            except ConfigurationError as error:
                mistakes.append(str(error))
        if mistakes:
            raise ConfigurationError("\n".join(mistakes))

    def __iter__(self) -> Iterator[User]:
        """Iterate over the users, in the order of the mapping."""
        return iter(list(self._users.values()))

    async def by_login(self, login: str) -> User | None:
        """Return the user with this normalised login name."""
        subject = self._names.get(login)
        return None if subject is None else self._users.get(subject)

    async def by_subject(self, subject: str) -> User | None:
        """Return the user with this ``subject_id``."""
        return self._users.get(subject)

    async def set_password_hash(self, subject: str, expected: str | None, new: str) -> bool:
        """Replace the hash of the password in this process."""
        user = self._users.get(subject)
        if user is None or user.password_hash != expected:
            return False
        self._users[subject] = replace(user, password_hash=new)
        return True

    async def update(self, expected: User, new: User) -> bool:
        """Replace the user in this process."""
        current = self._users.get(expected.subject_id)
        if current is None or current.credentials_version != expected.credentials_version:
            return False
        names = _names_of(new)
        if any(self._names.get(name, new.subject_id) != new.subject_id for name in names):
            return False
        for name in _names_of(current):
            del self._names[name]
        self._names.update(dict.fromkeys(names, new.subject_id))
        self._users[new.subject_id] = new
        return True

    def _put(self, user: User) -> None:
        names = _names_of(user)
        if user.subject_id in self._users or any(name in self._names for name in names):
            name = shown_login(user.login_name)
            msg = f"the user {name} has the name or the subject_id of another user (case does not count)"
            raise ConfigurationError(msg)
        self._users[user.subject_id] = user
        self._names.update(dict.fromkeys(names, user.subject_id))


def shown_login(name: str) -> str:
    """Return a login name for a message, without a hash that was written in place of the name."""
    return "(a hash)" if str(name).startswith("$") else repr(name)


def _names_of(user: User) -> set[str]:
    return {normalized(name) for name in (user.username, user.email) if name}


def _user(name: str, entry: Mapping[str, Any]) -> User:
    if not isinstance(entry, Mapping):
        msg = f"the user {shown_login(name)} is a mapping with a password_hash, not {type(entry).__name__}"
        raise ConfigurationError(msg)
    try:
        fields = _Entry.model_validate(dict(entry))
        values = {key: value for key, value in fields.model_dump().items() if value is not None}
        values |= {"scopes": tuple(Scope(scope) for scope in fields.scopes), "roles": tuple(fields.roles)}
        own = {"email": name} if "@" in name else {"username": name}
        return User(**{"subject_id": name, **own, **values})
    except ValidationError as error:
        found = [f"the user {shown_login(name)}: {_mistake(one)}" for one in error.errors()]
        raise ConfigurationError("\n".join(dict.fromkeys(found))) from None
    except ValueError as error:
        msg = f"the user {shown_login(name)}: {error}"
        raise ConfigurationError(msg) from None


def _mistake(error: Mapping[str, Any]) -> str:
    field = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"unknown field {shown_name(field)}; known are {', '.join(sorted(_Entry.model_fields))}"
    if field == "password_hash":
        return "password_hash is needed as text: make one with `fastapi-guard password hash`"
    if field in ("scopes", "roles"):
        return f"{field} is a list of texts"
    return f"{field}: {error['msg']}"
