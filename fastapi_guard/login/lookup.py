"""Look users up for a login, and write what a login changes."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import isawaitable
from typing import Any, Final, TypeVar

from fastapi import HTTPException

from fastapi_guard.exceptions import AuthError, ConfigurationError, ServiceUnavailable
from fastapi_guard.login.hooks import NONE, Kinds, result_of
from fastapi_guard.login.users import MappingUsers, User, Users
from fastapi_guard.login.users.names import normalized
from fastapi_guard.stores.arguments import like

logger: logging.Logger = logging.getLogger("fastapi_guard")

ResultT = TypeVar("ResultT")

# Longer than any e-mail address (RFC 5321 4.5.3.1).
_LONGEST_NAME: Final = 512
#: What a look-up of a user returns.
USER: Final = (User, NONE)
_METHODS: Final = ("by_login", "by_subject", "set_password_hash", "update")


class UserLookup:
    """The users of a Login. Where they are unreachable the answer is a 503.

    Attributes:
        users: The users.
    """

    def __init__(self, users: Users | Mapping[str, Mapping[str, Any]]) -> None:
        """Use ``users``, or the users in a mapping.

        Raises:
            ConfigurationError: It is neither, a method is not an ``async def`` or has other parameters, or a user in
                the mapping is not valid.
        """
        self.users: Users = MappingUsers(users) if isinstance(users, Mapping) else users
        if isinstance(users, type) or not all(callable(getattr(self.users, name, None)) for name in _METHODS):
            msg = f"users is a mapping, or has the methods {', '.join(_METHODS)}, not {type(users).__name__}"
            raise ConfigurationError(msg)
        like("users", self.users, Users, "a mapping")

    async def by_login(self, login: str) -> User | None:
        """Return the user with this username or address, as it was typed or normalised.

        Raises:
            ServiceUnavailable: The users are unreachable.
        """
        # No user has such a name, and a database may not accept it.
        if not login or len(login) > _LONGEST_NAME or "\0" in login or not _is_text(login):
            return None
        return await found(USER, self.users.by_login, normalized(login))

    async def by_subject(self, subject: str) -> User | None:
        """Return the user with this subject.

        Raises:
            ServiceUnavailable: The users are unreachable.
        """
        return await found(USER, self.users.by_subject, subject)

    async def replace_hash(self, user: User, newer: str) -> None:
        """Replace an outdated hash. A failure is logged: the login is valid all the same."""
        try:
            # A password that was changed while the old one was verified stays.
            await self.users.set_password_hash(user.subject_id, user.password_hash, newer)
        except Exception as error:  # noqa: BLE001 - of any database
            # A database driver quotes what it was to write: the hash.
            cause = type(error.__cause__ or error).__name__
            logger.warning("an outdated password hash could not be replaced: %s", cause)


async def found(kinds: Kinds, call: Callable[..., Awaitable[ResultT]], *arguments: Any, **named: Any) -> ResultT:
    """Return the result of a method of the users, or of another place where credentials are.

    Raises:
        ServiceUnavailable: It raised anything other than an AuthError, or returned nothing of these ``kinds``.
    """
    return await result_of("users_unreachable", kinds, call, *arguments, **named)


async def ended_by(calls: Iterable[Callable[[], Awaitable[int | None]]]) -> int:
    """Call everything that ends credentials, also after one that failed; return how many credentials ended.

    Raises:
        AuthError: One raised it, or is a ServiceUnavailable for anything else that it raised or returned.
    """
    ended, failed = 0, None
    for call in calls:
        try:
            # One that does not count what it ended has ended it all the same.
            count: int | None = await found((int, NONE), call)
            ended += count or 0
        except AuthError as error:
            failed = error
    if failed is not None:
        raise failed
    return ended


async def decided(name: str, hook: Callable[..., Any], *arguments: object) -> Any:
    """Return the result of a function of the application, sync or async.

    Raises:
        HTTPException: It raised one, such as an AuthError.
        ServiceUnavailable: It raised anything else: what cannot be decided is neither a yes nor a no.
    """
    try:
        answer = hook(*arguments)
        return await answer if isawaitable(answer) else answer
    except HTTPException:
        raise
    except Exception as error:
        # The text of the error may quote what a user sent.
        logger.warning("%s failed with %s", name, type(error).__name__)
        raise ServiceUnavailable(reason=name) from error


def _is_text(login: str) -> bool:
    try:
        login.encode()
    except UnicodeEncodeError:
        return False
    return True
