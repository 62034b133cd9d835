"""Check a password: throttled, with the same work and the same refusal for every reason."""

from typing import Final

from starlette.requests import HTTPConnection

from fastapi_guard.exceptions import ConfigurationError
from fastapi_guard.login.gate import is_active
from fastapi_guard.login.limits import LoginLimits
from fastapi_guard.login.lookup import UserLookup
from fastapi_guard.login.passwords import PasswordHasher
from fastapi_guard.login.users import MappingUsers, User
from fastapi_guard.login.users.mapping import shown_login
from fastapi_guard.login.users.names import normalized

WRONG_CREDENTIALS: Final = "Incorrect username or password"
# Of a user who is logged in, and proves the password again.
WRONG_PASSWORD: Final = "The password is wrong"


class PasswordCheck:
    """Verifies passwords of the users of a Login."""

    def __init__(self, lookup: UserLookup, limits: LoginLimits, hasher: PasswordHasher | None) -> None:
        """Verify with ``hasher``; with ``None`` there are no passwords.

        Raises:
            ConfigurationError: A user in a mapping has a ``password_hash`` that is not one, such as a plain text.
        """
        users = lookup.users if isinstance(lookup.users, MappingUsers) and hasher is not None else ()
        for user in users:
            if user.password_hash is not None and hasher is not None and not hasher.identifies(user.password_hash):
                name = shown_login(user.login_name)
                msg = f"the password_hash of {name} is not a hash: `fastapi-guard password hash` makes one"
                raise ConfigurationError(msg)
        self._lookup = lookup
        self._limits = limits
        self._hasher = hasher

    async def find(self, username: str, password: str, connection: HTTPConnection | None) -> tuple[User | None, bool]:
        """Return the user of this name, and whether the password is right and the user active. It is counted.

        Raises:
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The users or the throttle are unreachable.
        """
        await self._limits.count(None, connection)
        user = await self._lookup.by_login(username)
        # The account that is counted is the one that is looked up, under whichever of its names.
        account = f"name:{normalized(username)}" if user is None else account_of(user)
        return user, await self._verify(user, account, password) and is_active(user)

    async def proves(self, user: User, password: str, connection: HTTPConnection | None) -> bool:
        """Return whether the password of ``user`` is right, whose address may not be verified yet. It is counted.

        Raises:
            TooManyRequests: It was tried too often.
            ServiceUnavailable: The throttle is unreachable.
        """
        await self._limits.count(None, connection)
        return await self._verify(user, account_of(user), password)

    async def _verify(self, user: User | None, account: str, password: str) -> bool:
        if self._hasher is None:
            msg = "this Login has no passwords: Login(..., passwords=PasswordHasher())"
            raise ConfigurationError(msg)
        await self._limits.count(account, None)
        stored = None if user is None else user.password_hash
        valid, newer = await self._hasher.verify_and_update(password, stored)
        if user is None or valid is not True or user.disabled:
            return False
        if newer is not None:
            await self._lookup.replace_hash(user, newer)
        await self._limits.clear(account)
        return True


def account_of(user: User) -> str:
    """Return the account of a user for LoginLimits."""
    return f"subject:{user.subject_id}"
